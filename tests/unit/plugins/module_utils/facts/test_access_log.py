from __future__ import annotations

import json

from ansible_collections.inference.fleet.plugins.module_utils.facts.access_log import OTHER, AccessCounters


def line(**changes: str) -> str:
    values = {"client": "team-a", "path": "/v1/x", "status": "200", "instance": "engine-0", "total": "1500"}
    values = {**values, "cause": "-", "end": "--", "answer": "-", **changes}
    used = {name: changes.get(name, "-") for name in ("model", "prompt", "cached", "completion", "first", "tokens")}
    return (
        f"client={values['client']} key=01234567 from=10.0.0.1:1234 for=- method=POST path={values['path']} "
        f"status={values['status']} instance={values['instance']} end={values['end']} queued_ms=0 connect_ms=0 "
        f"first_ms=12 total_ms={values['total']} bytes=100 active=1 queue=0 retries=0 "
        f"cause={values['cause']} request=abc answer={values['answer']} model={used['model']} "
        f"prompt={used['prompt']} cached={used['cached']} completion={used['completion']} "
        f"first_token_ms={used['first']} tokens_ms={used['tokens']}"
    )


def answer(**changes: str) -> str:
    given = {"answer": "stream", "model": "m", "prompt": "100", "cached": "64", "completion": "11"}
    return line(**{**given, "first": "50", "tokens": "200", **changes})


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
    counters = counted(line(), line(status="429", cause="engine"), answer())
    again = AccessCounters.read(json.loads(json.dumps(counters.document())))
    assert (again.answers, again.document()) == (counters.answers, counters.document())
    again.add(line())
    assert again.served == {"team-a": (3, 4500)}
    assert again.rejected == counters.rejected


def test_a_file_from_before_answers_counted_is_read() -> None:
    document = counted(line()).document()
    del document["answers"]
    assert AccessCounters.read(document).served == {"team-a": (1, 1500)}


def test_a_line_from_before_answers_counted_counts() -> None:
    counters = counted(answer().partition(" answer=")[0])
    assert (counters.served, counters.answers.tokens) == ({"team-a": (1, 1500)}, {})


def test_answers_have_their_tokens_by_client_and_model() -> None:
    counters = counted(
        answer(),
        answer(answer="whole", prompt="10", cached="-", completion="1", first="-", tokens="-"),
        answer(model="-"),
        answer(client="team-b"),
    ).answers
    assert counters.tokens == {
        ("team-a", "m"): (110, 64, 12),
        ("team-a", ""): (100, 64, 11),
        ("team-b", "m"): (100, 64, 11),
    }
    assert counters.answers == {("team-a", "m", "whole"): 2, ("team-a", "", "whole"): 1, ("team-b", "m", "whole"): 1}


def test_what_is_not_known_is_no_number() -> None:
    counters = counted(
        answer(end="CD", cached="-"),
        answer(end="SD", completion="-"),
        answer(prompt="-", cached="-", completion="-"),
        answer(end="CD", prompt="-", cached="-", completion="-"),
        answer(prompt="x", cached="-1", completion=""),
    ).answers
    assert counters.answers == {("team-a", "m", "partial"): 2, ("team-a", "m", "unknown"): 3}
    assert counters.tokens == {("team-a", "m"): (200, 64, 11)}


def test_streams_have_times_of_their_tokens() -> None:
    counters = counted(
        answer(),
        answer(completion="101", first="10", tokens="5000"),
        # Nothing to divide by.
        answer(completion="1", first="10", tokens="0"),
        answer(completion="-", prompt="-", cached="-", first="10", tokens="7"),
        # It went on until it was broken off, and its count did not.
        answer(end="CD", first="10", tokens="9000"),
        answer(answer="whole", first="-", tokens="-"),
    ).answers
    assert counters.first == {"team-a": (5, 90)}
    assert counters.gaps == {"team-a": (110, 5200)}


def test_other_requests_are_no_answers() -> None:
    refused = answer(status="429", instance="<NOSRV>", cause="queue_full")
    counters = counted(line(), refused, answer(client="-"), answer(answer="other"), answer(path="/metrics/engine-0"))
    assert (counters.answers.answers, counters.answers.tokens) == ({}, {})


def test_their_number_has_a_bound() -> None:
    names = [f"n{number}" for number in range(1100)]
    counters = counted(*(line(client=name) for name in names), *(line(cause=name) for name in names))
    assert len(counters.served) == 1001
    assert counters.served[OTHER][0] == 100
    assert sum(count for count in counters.rejected.values()) == 1100
    assert len(counters.rejected) == 51
