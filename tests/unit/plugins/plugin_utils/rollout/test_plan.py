from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.times import moment
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import capacity
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.plan import (
    HostState,
    RolloutPlan,
    RolloutSettings,
    downtime,
    expected_seconds,
    make,
)

from tests.unit.plugins.plugin_utils.rollout.rollouts import NOW, claim, facts, staged, status

RECENTLY = moment(NOW - 600)


def plan(
    fleet: dict[str, HostState], verb: str = "site", canary: t.Collection[str] = (), **settings: t.Any
) -> RolloutPlan:
    return make(RolloutSettings(verb, **{"waves": [1, "100%"], **settings}), fleet, canary, NOW)


def serving(fleet: dict[str, HostState]) -> dict[str, t.Any]:
    return {host: capacity.serving(one.status) for host, one in fleet.items()}


def test_only_what_differs_takes_part() -> None:
    made = plan({"a": facts(staged()), "b": facts(staged("")), "c": facts(staged())})
    assert made.waves == [["a"], ["c"]]
    assert made.targets == {"a": {"vllm-0": "vllm-new"}, "c": {"vllm-0": "vllm-new"}}
    assert made.hosts["c"]["wave"] == 2
    instance = made.hosts["a"]["instances"][0]
    assert instance["from"] == {"release": "vllm-old", "version": "1"}
    assert instance["to"] == {"release": "vllm-new", "version": "2"}
    assert not made.refusals + made.warnings


def test_the_canary_ring_is_the_first_wave() -> None:
    fleet = {host: facts(staged()) for host in "abc"}
    assert plan(fleet, canary=["c"]).waves == [["c"], ["a"], ["b"]]


def test_a_host_whose_keys_are_not_confirmed_is_left_out_and_named() -> None:
    held = status(0, health=503)
    held["edge"]["held"] = {"since": "2026-11-29T10:00:00Z", "why": "EC2 had stopped it"}
    fleet = {"a": facts(staged(), host_status=held), "b": facts(staged()), "c": facts(staged(""), host_status=held)}
    made = plan(fleet)
    assert list(made.hosts) == ["b"]
    assert list(made.left_out) == ["a"]
    assert made.left_out["a"].startswith(
        "its edge is held since 2026-11-29T10:00:00Z (EC2 had stopped it); site.yml or "
    )


def test_what_an_operator_drained_is_left_out_and_named() -> None:
    host = {"state": "drained", "by": "operator", "reason": "fan"}
    one = {"instances": {"engine-1": {"state": "drained", "by": "operator", "reason": ""}}}
    made = plan(
        {
            "a": facts(staged(), host_status=status(0, drain=host)),
            "b": facts(staged(), staged(index=1), host_status=status(0, 0, drain=one)),
            "c": facts(staged(""), host_status=status(0, drain=host)),
        }
    )
    assert list(made.hosts) == ["b"]
    assert [instance["name"] for instance in made.hosts["b"]["instances"]] == ["vllm-0"]
    assert made.left_out == {
        "a": "an operator has drained it (fan); playbooks/undrain.yml puts it back",
        "vllm-1 of b": "an operator has drained it; playbooks/undrain.yml puts it back",
    }


def test_what_aws_ends_is_left_out_and_says_why() -> None:
    notice: dict[str, t.Any] = {
        "state": "lame_duck",
        "reason": "spot, terminates 12:03:10 UTC",
        "since": "then",
        "notices": ["spot"],
    }
    mark: dict[str, t.Any] = {"state": "lame_duck", "by": "aws", "reason": notice["reason"], "since": "then"}
    made = plan(
        {
            "a": facts(staged(), host_status=status(0, drain={**mark, "marks": [mark], "aws": notice})),
            "b": facts(staged(""), host_status=status(0, drain={**mark, "marks": [mark], "aws": notice})),
            # Overridden by an operator, and no more announced: both take part.
            "c": facts(staged(), host_status=status(0, drain={"aws": {**notice, "state": "overridden"}})),
            "d": facts(
                staged(), host_status=status(0, drain={**mark, "marks": [mark], "aws": {**notice, "notices": []}})
            ),
        }
    )
    assert list(made.hosts) == ["c", "d"]
    assert list(made.left_out) == ["a"]
    assert made.left_out["a"].startswith("AWS announces: spot, terminates 12:03:10 UTC; the host drains itself")


def test_an_operators_drain_beside_that_of_aws_is_the_reason() -> None:
    aws: dict[str, t.Any] = {"state": "drained", "by": "aws", "reason": "spot", "since": "then"}
    operator = {"state": "lame_duck", "by": "operator", "reason": "fan", "since": "then"}
    drain = {**aws, "marks": [operator, aws], "aws": {**aws, "notices": ["spot"]}}
    made = plan({"a": facts(staged(), host_status=status(0, drain=drain))})
    assert made.left_out == {"a": "an operator has drained it (fan); playbooks/undrain.yml puts it back"}


def test_what_a_rollout_left_drained_takes_part() -> None:
    mark = {"state": "drained", "by": "rollout", "reason": ""}
    assert list(plan({"a": facts(staged(), host_status=status(0, drain=mark))}).hosts) == ["a"]


def test_how_long_it_takes_is_what_it_took() -> None:
    fleet = {
        "a": facts(staged(), claim=claim(finished=True, seconds={"vllm-0": 40.0})),
        "b": facts(staged(), claim=claim(finished=True, seconds={"vllm-0": 60.0})),
        "c": facts(staged()),
    }
    made = plan(fleet)
    assert [made.hosts[host]["expected_seconds"] for host in "abc"] == [40, 60, 50]
    assert expected_seconds(made) == 100
    assert expected_seconds(plan({"a": facts(staged())})) is None


def test_a_first_installation_warns_that_it_cannot_be_rolled_back() -> None:
    made = plan({"a": facts(staged(good="", running=""), host_status=status(0, active=False))})
    assert "no release yet that passed its gate" in made.warnings[0]
    assert not made.refusals


def test_what_serves_without_a_good_release_is_not_changed_unasked() -> None:
    fleet = {"a": facts(staged(good=""))}
    assert "-e rollout_accept_no_way_back=true" in plan(fleet).refusals[0]
    assert not plan(fleet, accept_no_way_back=True).refusals


def test_a_rollback_needs_a_release_to_go_to() -> None:
    fleet = {"a": facts(staged("")), "b": facts(staged("", problem="instance 0 has no earlier good release"))}
    assert plan(fleet, verb="rollback").refusals == [
        "b: instance 0 has no earlier good release. Leave it out with -l, or deploy the version that you want with "
        "site.yml."
    ]


def test_a_fleet_of_one_is_warned_of_its_downtime() -> None:
    fleet = {"a": facts(staged(), claim=claim(finished=True, seconds={"vllm-0": 42.0}))}
    said = downtime(plan(fleet), serving(fleet))
    assert "Nothing else serves while vllm-0 of a is changed: this means downtime of about 42 seconds" in said
    assert "-e rollout_accept_downtime=true" in said
    fleet["b"] = facts(staged(""))
    assert downtime(plan(fleet), serving(fleet)) == ""


def test_a_second_instance_serves_on() -> None:
    fleet = {"a": facts(staged(), staged(index=1), host_status=status(0, 0))}
    assert downtime(plan(fleet), serving(fleet)) == ""


def test_the_host_that_is_repaired_first_serves_while_the_next_one_is_changed() -> None:
    fleet = {"a": facts(staged(), host_status=status(0, active=False)), "b": facts(staged())}
    made = plan(fleet)
    assert made.waves == [["a"], ["b"]]
    assert downtime(made, serving(fleet)) == ""


def test_a_first_start_is_no_downtime() -> None:
    fleet = {"a": facts(staged(good="", running=""), host_status=status(0, active=False))}
    assert downtime(plan(fleet), serving(fleet)) == ""


def test_a_restart_goes_on_with_the_hosts_that_are_left() -> None:
    fleet = {
        "a": facts(staged("asked"), claim=claim(since=RECENTLY, held=False, done={"vllm-0": "t"})),
        "b": facts(staged("asked"), claim=claim(since=RECENTLY, held=False)),
        "c": facts(staged("asked")),
    }
    made = plan(fleet, verb="rolling_restart")
    assert (made.id, made.done, list(made.hosts)) == ("r1", ["a"], ["b", "c"])
    restarted = plan(fleet, verb="rolling_restart", resume=False)
    assert (restarted.id, restarted.done, list(restarted.hosts)) == ("", [], ["a", "b", "c"])


@pytest.mark.parametrize(
    "changes", [{"finished": True}, {"verb": "rollback"}, {"since": moment(NOW - 90000)}, {"since": "yesterday"}]
)
def test_what_is_over_old_or_something_else_is_not_gone_on_with(changes: dict[str, t.Any]) -> None:
    before = claim(**{"since": RECENTLY, "done": {"vllm-0": "t"}, **changes})
    made = plan({"a": facts(staged("asked"), claim=before)}, verb="rolling_restart")
    assert (made.id, list(made.hosts)) == ("", ["a"])


def test_other_variables_make_another_rollout() -> None:
    before = claim(verb="site", since=RECENTLY, targets={"vllm-0": "vllm-new"})
    assert plan({"a": facts(staged(), claim=before)}).id == "r1"
    assert plan({"a": facts(staged(release="vllm-newer"), claim=before)}).id == ""
    # A finished host is no longer pending, and prevents nothing.
    fleet = {"a": facts(staged(""), claim=before), "b": facts(staged(), claim=before)}
    assert plan(fleet).id == "r1"


def test_wrong_waves_are_refused() -> None:
    with pytest.raises(FleetError, match="never reaches 100 %"):
        plan({"a": facts(staged(""))}, waves=[1])


def test_an_engine_that_changes_is_the_same_instance() -> None:
    """A serving instance has its old name until its turn; the plan has the new one."""
    switching = {host: facts(staged(release="sglang-new"), host_status=status(9)) for host in "ab"}
    for one in switching.values():
        one.names[0] = "sglang-0"
    made = plan(switching, waves=["100%"])
    assert made.targets["a"] == {"sglang-0": "sglang-new"}
    assert not made.warnings
    assert "Nothing else serves" in downtime(made, serving(switching))


def test_an_instance_that_is_not_configured_is_stopped_in_its_turn() -> None:
    leaving = staged("it is no longer wanted", index=1, release="")
    host = HostState([leaving, staged("")], {0: "vllm-0"}, status(0, 0), None)
    made = plan({"a": host, "b": facts(staged(""))})
    [instance] = made.hosts["a"]["instances"]
    assert (instance["name"], instance["action"], instance["to"]) == ("vllm-1", "stop", None)
    assert made.targets == {"a": {"vllm-1": ""}}
    assert not made.refusals


def spanning(*nodes: str, **changes: t.Any) -> HostState:
    return dataclasses.replace(facts(staged(), **changes), spans={0: nodes})


def test_the_nodes_of_an_instance_are_changed_together() -> None:
    fleet = {"a": facts(staged()), "b": spanning("b", "d"), "c": facts(staged()), "d": spanning("b", "d")}
    made = plan(fleet, waves=[1, 1, "100%"])
    assert made.waves == [["a"], ["b", "d"], ["c"]]
    assert {host: planned["together"] for host, planned in made.hosts.items()} == {
        "a": [],
        "b": ["d"],
        "c": [],
        "d": ["b"],
    }
    assert not made.refusals


def test_the_canary_takes_its_companions_along() -> None:
    fleet = {"a": facts(staged()), "b": spanning("b", "d"), "c": facts(staged()), "d": spanning("b", "d")}
    assert plan(fleet, canary=["d"], waves=["100%"]).waves == [["d", "b"], ["a", "c"]]


def test_a_part_of_an_instance_is_not_changed_alone() -> None:
    [refusal] = plan({"b": spanning("b", "d")}).refusals
    assert "vllm-0 of b spans b, d, and this run leaves d out" in refusal
    assert "-l b,d" in refusal
    drained = status(0, drain={"state": "drained", "by": "operator", "reason": ""})
    [refusal] = plan({"b": spanning("b", "d"), "d": spanning("b", "d", host_status=drained)}).refusals
    assert "leaves d out" in refusal


def test_a_benchmark_measures_one_host_after_the_other_whatever_the_waves() -> None:
    fleet = {host: facts(staged("a benchmark was asked for", good="")) for host in "abc"}
    made = plan(fleet, verb="benchmark", canary=["b", "c"], waves=["100%"])
    assert made.waves == [["a"], ["b"], ["c"]]
    assert {one["action"] for planned in made.hosts.values() for one in planned["instances"]} == {"measure"}
    # Nothing is replaced, so nothing has to be rolled back; and a restart's time says nothing.
    assert made.refusals + made.warnings == []
    assert expected_seconds(made) is None


def test_a_benchmark_of_a_host_that_is_drained_by_hand_is_refused() -> None:
    drained = status(0, drain={"state": "drained", "by": "operator", "reason": "fan"})
    made = plan({"a": facts(staged(), host_status=drained), "b": facts(staged())}, verb="benchmark")
    assert made.refusals == [
        "a cannot be measured: an operator has drained it (fan); playbooks/undrain.yml puts it back."
    ]


@pytest.mark.parametrize("verb", ["benchmark", "tune"])
def test_a_benchmark_of_the_last_host_is_downtime(verb: str) -> None:
    fleet = {"a": facts(staged())}
    assert "this means downtime" in downtime(plan(fleet, verb=verb), serving(fleet))


def test_a_search_of_settings_takes_one_host_that_has_a_way_back() -> None:
    made = plan({"a": facts(staged("a search of settings was asked for"))}, verb="tune")
    assert made.waves == [["a"]]
    assert made.hosts["a"]["instances"][0]["action"] == "tune"
    assert made.refusals + made.warnings == []
    assert expected_seconds(made) is None
    [refusal] = plan({"a": facts(staged(good=""))}, verb="tune").refusals
    assert "so a failure could not be rolled back" in refusal
    drained = status(0, drain={"state": "drained", "by": "operator", "reason": "fan"})
    [refusal] = plan({"a": facts(staged(), host_status=drained)}, verb="tune").refusals
    assert refusal == "a cannot be tuned: an operator has drained it (fan); playbooks/undrain.yml puts it back."
