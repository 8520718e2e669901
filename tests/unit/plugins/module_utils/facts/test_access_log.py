from __future__ import annotations

from ansible_collections.inference.fleet.plugins.module_utils.facts.access_log import OTHER, AccessCounters


def line(**changes: str) -> str:
    values = {"client": "team-a", "path": "/v1/x", "status": "200", "instance": "engine-0", "total": "1500"}
    values = {**values, "cause": "-", **changes}
    return (
        f"client={values['client']} key=01234567 from=10.0.0.1:1234 for=- method=POST path={values['path']} "
        f"status={values['status']} instance={values['instance']} end=-- queued_ms=0 connect_ms=0 first_ms=12 "
        f"total_ms={values['total']} bytes=100 active=1 queue=0 retries=0 cause={values['cause']} request=abc"
    )


def counted(*lines: str) -> AccessCounters:
    counters = AccessCounters()
    for one in lines:
        counters.add(one)
    return counters


def test_requests_that_reached_an_instance_have_their_times() -> None:
    counters = counted(line(), line(total="500"), line(client="team-b", total="+7"))
    assert counters.served == {"team-a": (2, 2000), "team-b": (1, 7)}
    assert counters.rejected == {}


def test_refused_ones_have_their_causes() -> None:
    refused = [line(status="429", instance="<NOSRV>", cause="queue_full")] * 2
    wrong = line(client="-", status="429", instance="<NOSRV>", cause="too_many_wrong_keys")
    engines = line(status="429", cause="engine")
    counters = counted(*refused, wrong, engines)
    assert counters.rejected == {
        ("team-a", "queue_full"): 2,
        ("", "too_many_wrong_keys"): 1,
        ("team-a", "engine"): 1,
    }
    assert counters.served == {}


def test_other_lines_do_not_count() -> None:
    counters = counted(
        line(client="-", status="401", instance="<NOSRV>"),
        # A try of a request that has a line of its own.
        line(client="-", status="502"),
        line(path="/metrics/engine-0", client="monitoring"),
        line(instance="<NOSRV>", status="503"),
        line(total="-1"),
        "Proxy edge_8000 started.",
        "client=team-a",
        "",
    )
    assert (counters.served, counters.rejected) == ({}, {})


def test_a_client_cannot_write_itself_into_another_field() -> None:
    counters = counted(line(path="/v1/client=team-b", total="3"))
    assert counters.served == {"team-a": (1, 3)}


def test_they_are_the_same_after_a_file() -> None:
    counters = counted(line(), line(status="429", cause="engine"))
    again = AccessCounters.read(counters.document())
    again.add(line())
    assert again.served == {"team-a": (2, 3000)}
    assert again.rejected == counters.rejected


def test_their_number_has_a_bound() -> None:
    names = [f"n{number}" for number in range(1100)]
    counters = counted(*(line(client=name) for name in names), *(line(cause=name) for name in names))
    assert len(counters.served) == 1001
    assert counters.served[OTHER][0] == 100
    assert sum(count for count in counters.rejected.values()) == 1100
    assert len(counters.rejected) == 51
