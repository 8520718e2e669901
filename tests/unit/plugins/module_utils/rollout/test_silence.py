"""Which silences are a rollout's, and whose alerts they match. A real Alertmanager: tests/integration/monitoring."""

from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.rollout import silence


def a_silence(hosts: list[str], rollout: str = "r", state: str = "active") -> dict[str, t.Any]:
    return {
        "id": f"{rollout}-{state}",
        "createdBy": silence.creator(rollout),
        "status": {"state": state},
        "matchers": silence.matchers(hosts),
    }


@pytest.mark.parametrize(
    ("host", "matches"),
    [
        ("gpu-1", True),
        ("10.0.0.1", True),
        ("gpu-11", False),
        ("my-gpu-1", False),
        # A dot of an address stands for itself.
        ("10x0.0.1", False),
        ("gpu-2", False),
    ],
)
def test_exactly_the_named_hosts_match(host: str, matches: bool) -> None:
    (matcher,) = silence.matchers(["gpu-1", "10.0.0.1"])
    assert (matcher["name"], matcher["isRegex"], matcher["isEqual"]) == ("host", True, True)
    assert bool(re.fullmatch(matcher["value"], host)) == matches


def test_only_live_silences_of_the_rollout_are_its_own() -> None:
    mine, pending = a_silence(["a"]), a_silence(["a"], state="pending")
    others = [a_silence(["a"], state="expired"), a_silence(["a"], rollout="r2"), {**mine, "createdBy": "anna"}]
    assert silence.own([*others, mine, pending], "r") == [mine, pending]


@pytest.mark.parametrize("answer", [None, {"message": "no"}, [{"id": "x"}], ["x"]])
def test_what_is_no_list_of_silences_is_refused(answer: t.Any) -> None:
    with pytest.raises(FleetError, match="no list of silences"):
        silence.own(answer, "r")


def test_the_silence_of_the_same_hosts_is_found_in_any_order() -> None:
    first, second = a_silence(["a"]), a_silence(["a", "b"])
    assert silence.same_hosts([first, second], ["b", "a"]) is second
    assert silence.same_hosts([first, second], ["c"]) is None
    # An Alertmanager before 0.22 has no isEqual.
    old = {**first, "matchers": [{"name": "host", "value": "a", "isRegex": True}]}
    assert silence.same_hosts([old], ["a"]) is old


def test_a_moment_is_in_utc() -> None:
    assert silence.moment(1_700_000_000) == "2023-11-14T22:13:20+00:00"
