from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.evidence import (
    HostCounters,
    check_limit,
    compare,
)

KIND = "qwen on g6e.xlarge"
Counters = dict[str, t.Any]


def counted(
    requests: int,
    errors: int = 0,
    gap: float = 0.02,
    slow: int = 0,
    *,
    bounds: tuple[float, ...] = (0.01, 0.025, 0.05, 0.1),
    tokens: int = 20,
) -> Counters:
    """What a host has counted since its start: requests, of which some failed, and some had a slow first token; each
    token came ``gap`` seconds after the last.
    """
    # Of tokens in a bucket, half are below its middle: the median is the gap where its bucket is around it.
    lower = max((bound for bound in (0.0, *bounds) if bound < gap), default=0.0)
    upper = min((bound for bound in bounds if bound >= gap), default=None)
    total = requests * tokens
    share = 0.5 / ((gap - lower) / (upper - lower)) if upper else 0.0
    itl = [[bound, float(total * min(share, 1.0)) if upper and bound >= upper else 0.0] for bound in bounds]
    ttft = [[0.1, requests * 0.5], [1.0, float(requests - slow)], [10.0, float(requests)], [None, float(requests)]]
    return {
        "at": 0.0,
        "edge": {"answers": requests, "errors": errors},
        "instances": {"engine-0": {"ttft": ttft, "itl": [*itl, [None, float(total)]]}},
    }


def plus(before: Counters, gained: Counters) -> Counters:
    """The counters after more was counted."""
    edge = {name: before["edge"][name] + gained["edge"][name] for name in before["edge"]}
    pairs = {
        figure: [
            [bound, count + more]
            for (bound, count), (_bound, more) in zip(
                before["instances"]["engine-0"][figure], gained["instances"]["engine-0"][figure]
            )
        ]
        for figure in ("ttft", "itl")
    }
    return {"at": 60.0, "edge": edge, "instances": {"engine-0": pairs}}


def host(name: str, gained: Counters, kind: str = KIND) -> HostCounters:
    before = counted(5000, 40, 0.04, 900)
    return HostCounters(name, kind, before, plus(before, gained))


def judge(wave: Counters, rest: Counters, limit: float = 1.3) -> dict[str, t.Any]:
    return compare([host("gpu-1", wave)], [host("gpu-2", rest), host("gpu-3", rest)], limit)


@pytest.mark.parametrize(
    ("wave", "rest", "verdict", "failed"),
    [
        # As good, and better.
        (counted(200), counted(200), "fine", []),
        (counted(200, gap=0.012), counted(200, errors=10, gap=0.04, slow=60), "fine", []),
        # A little worse is allowed.
        (counted(200, gap=0.025), counted(200, gap=0.02), "fine", []),
        (counted(1000, errors=11), counted(1000, errors=10), "fine", []),
        # Worse in one figure.
        (counted(200, gap=0.04), counted(200, gap=0.02), "worse", ["median time between tokens"]),
        (counted(1000, errors=60), counted(1000, errors=10), "worse", ["share of errors"]),
        (counted(1000, slow=200), counted(1000, slow=50), "worse", ["share of first tokens after 1 s"]),
        # From nothing: a single error of many is chance, a tenth of them is none.
        (counted(1000, errors=1), counted(1000), "fine", []),
        (counted(50, errors=1), counted(50), "fine", []),
        (counted(50, errors=2), counted(500), "fine", []),
        (counted(50, errors=8), counted(500), "worse", ["share of errors"]),
        (counted(100, slow=30), counted(1000), "worse", ["share of first tokens after 1 s"]),
        # A difference that no reader sees.
        (counted(200, gap=0.0035), counted(200, gap=0.002), "fine", []),
        # Everything.
        (
            counted(500, errors=400, gap=0.09, slow=490),
            counted(500),
            "worse",
            ["share of errors", "median time between tokens", "share of first tokens after 1 s"],
        ),
    ],
)
def test_a_wave_is_judged_by_three_figures(wave: Counters, rest: Counters, verdict: str, failed: list[str]) -> None:
    found = judge(wave, rest)
    (one,) = found["comparisons"]
    assert [figure["name"] for figure in one["figures"] if figure["verdict"] == "worse"] == failed
    assert found["verdict"] == one["verdict"] == verdict
    assert len(one["figures"]) == 3


def test_the_limit_is_the_operators() -> None:
    assert judge(counted(200, gap=0.04), counted(200, gap=0.02), 2.5)["verdict"] == "fine"
    assert judge(counted(200, gap=0.023), counted(200, gap=0.02), 1.1)["verdict"] == "worse"


def test_the_text_has_the_figures() -> None:
    text = judge(counted(200, gap=0.04), counted(150, gap=0.02))["text"]
    assert text == (
        "gpu-1: worse than 2 untouched hosts: median time between tokens 40 ms against 20 ms (up to 26 ms is allowed)."
    )
    fine = judge(counted(200), counted(150))["text"]
    assert fine.startswith("gpu-1: no worse than 2 untouched hosts: share of errors 0 % of 200 against 0 % of 300 (")


@pytest.mark.parametrize(("wave", "rest"), [(49, 1000), (1000, 24), (0, 0), (0, 1000)])
def test_too_few_requests_prove_nothing_and_are_said(wave: int, rest: int) -> None:
    found = judge(counted(wave, errors=wave), counted(rest))
    assert found["verdict"] == "inconclusive"
    assert f"inconclusive: {wave} requests there and {2 * rest} on 2 untouched, and each side needs 50" in found["text"]
    assert found["comparisons"][0]["figures"] == []


def test_enough_requests_are_fifty() -> None:
    assert judge(counted(50), counted(25))["verdict"] == "fine"


def test_a_process_that_restarted_is_counted_from_there() -> None:
    before = counted(5000, 40)
    again = HostCounters("gpu-1", KIND, before, counted(60, 30))
    found = compare([again], [host("gpu-2", counted(500))], 1.3)
    assert found["comparisons"][0]["requests"] == [60, 500]
    assert found["verdict"] == "worse"
    assert "share of errors 50 % of 60" in found["text"]
    assert "Restarted meanwhile, and counted from there: gpu-1." in found["text"]


def test_an_engine_that_restarted_leaves_the_edges_count() -> None:
    before = counted(5000)
    after = plus(before, counted(100))
    after["instances"] = counted(60, gap=0.04)["instances"]
    found = compare([HostCounters("gpu-1", KIND, before, after)], [host("gpu-2", counted(500))], 1.3)
    assert found["comparisons"][0]["requests"] == [100, 500]
    assert "median time between tokens 40 ms" in found["text"]
    assert "Restarted meanwhile" in found["text"]


@pytest.mark.parametrize("missing", [None, {}, {"unreachable": True}, {"edge": None, "instances": {}}])
def test_a_host_that_vanished_is_left_out_and_named(missing: Counters | None) -> None:
    gone = HostCounters("gpu-3", KIND, counted(10), missing)
    found = compare([host("gpu-1", counted(100))], [host("gpu-2", counted(100)), gone], 1.3)
    assert found["verdict"] == "fine"
    assert found["comparisons"][0]["untouched"] == ["gpu-2"]
    assert found["text"].endswith("Not read: gpu-3.")
    other = compare([gone], [host("gpu-2", counted(100))], 1.3)
    assert (other["verdict"], other["comparisons"][0]["hosts"]) == ("inconclusive", [])
    assert "gpu-3: not compared with untouched hosts, their counters were not read" in other["text"]
    none = compare([host("gpu-1", counted(100))], [gone], 1.3)
    assert "(gpu-3 could not be read)" in none["text"]


def test_without_untouched_hosts_it_is_inconclusive() -> None:
    found = compare([host("gpu-1", counted(1000, errors=900))], [], 1.3)
    assert found["verdict"] == "inconclusive"
    assert found["text"] == f"gpu-1: not compared with untouched hosts, none is left with {KIND}."


def test_hosts_are_compared_with_their_own_kind() -> None:
    slow = host("gpu-9", counted(500, gap=0.09), "qwen on g5.xlarge")
    found = compare([host("gpu-1", counted(500, gap=0.02)), slow], [host("gpu-2", counted(500, gap=0.02))], 1.3)
    assert [one["verdict"] for one in found["comparisons"]] == ["fine", "inconclusive"]
    assert found["verdict"] == "fine"
    worse = compare(
        [slow, host("gpu-1", counted(500, gap=0.09))],
        [host("gpu-2", counted(500, gap=0.02)), host("gpu-8", counted(500, gap=0.09), "qwen on g5.xlarge")],
        1.3,
    )
    assert worse["verdict"] == "worse"
    assert worse["text"].startswith("gpu-1: worse than 1 untouched host: median")


def test_engines_with_other_bounds_compare_by_those_that_both_have() -> None:
    found = compare(
        [host("gpu-1", counted(100, gap=0.02))],
        [
            HostCounters(
                "gpu-2", KIND, counted(0, bounds=(0.025, 0.1, 0.4)), counted(100, gap=0.02, bounds=(0.025, 0.1, 0.4))
            )
        ],
        1.3,
    )
    (median,) = [
        one for one in found["comparisons"][0]["figures"] if "tokens" in one["name"] and "median" in one["name"]
    ]
    assert median["verdict"] == "fine"


def test_a_gateway_without_histograms_is_judged_by_its_answers() -> None:
    def gateway(name: str, errors: int) -> HostCounters:
        before, after = ({"edge": {"answers": n, "errors": e}, "instances": {}} for n, e in ((0, 0), (500, errors)))
        return HostCounters(name, "", before, after)

    found = compare([gateway("gw-1", 100)], [gateway("gw-2", 0)], 1.3)
    assert found["verdict"] == "worse"
    assert [figure["name"] for figure in found["comparisons"][0]["figures"]] == ["share of errors"]


def test_an_instance_that_is_new_counts_from_the_next_time_on() -> None:
    before = counted(100)
    after = plus(before, counted(100))
    after["instances"]["engine-1"] = counted(900, gap=0.09, slow=900)["instances"]["engine-0"]
    assert (
        compare([HostCounters("gpu-1", KIND, before, after)], [host("gpu-2", counted(100))], 1.3)["verdict"] == "fine"
    )


@pytest.mark.parametrize(("value", "limit"), [(1.3, 1.3), ("1.5", 1.5), (1, 1.0), (0, None), ("0", None), ("", None)])
def test_the_limit_is_a_factor_or_nothing(value: t.Any, limit: float | None) -> None:
    assert check_limit(value) == limit
    assert check_limit(None) is None
    assert check_limit(False) is None


@pytest.mark.parametrize("value", ["x", 0.5, -1, True, "nan", "inf", [1.3], {}])
def test_anything_else_is_refused_with_what_is_valid(value: t.Any) -> None:
    with pytest.raises(FleetError, match=r"rollout_max_regression is .* a number from 1, such as 1\.3"):
        check_limit(value)
