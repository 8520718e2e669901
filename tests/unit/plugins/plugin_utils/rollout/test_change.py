"""The change of an instance: what each step does on the host, and what a failure of each leads to."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import Instance
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import change as changes
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.change import (
    Call,
    CallError,
    Change,
    JournalEntry,
)

SETTINGS = changes.Settings("gpu-1", rollout="r1", lame_duck_seconds=6, drain_seconds=300)
FIRST = Instance(0, "vllm", (0,), 8000).as_dict()
SECOND = Instance(1, "sglang", (1,), 8000).as_dict()
STAGED: dict[str, t.Any] = {
    "index": 0,
    "release": "vllm-new",
    "running": "vllm-old",
    "running_unit": "vllm@0.service",
    "pending": "its release changes",
    "drafts": True,
}
GOOD = {**Instance(0, "vllm", (), 0).as_dict(), "release": "vllm-old", "drafts": False}
DRAINED = {"idle": True, "requests": [], "engines": [], "waited": 4.0, "lame_duck_seconds": 6}
#: A drained host whose instance does not run.
STATUS = {"problems": [], "drain": {"state": "drained"}, "edge": {"health": 503}}

FORWARD = {
    "drain": changes.drain,
    "stop": changes.stop,
    "start": changes.start,
    "gate": changes.gate,
    "undrain": changes.undrain,
    "edge_gate": changes.edge_gate,
}


class Host:
    """Answers calls by their purpose; those in ``fails`` fail."""

    def __init__(
        self, fails: t.Collection[str] = (), good: dict[str, t.Any] = GOOD, held_by: str | None = None
    ) -> None:
        self.fails = fails
        self.calls: list[Call] = []
        self.events: list[JournalEntry] = []
        self._answers: dict[str, t.Any] = {
            "Drain": DRAINED,
            "Undrain": {"held_by": held_by},
            "Point to the last good release": {"instances": [good]},
            "See what it runs": {"instances": [{"running": ""}]},
            "See whether requests come to it": STATUS,
        }

    def do(self, step: changes.ChangeStep) -> Change:
        try:
            item = next(step)
            while True:
                if isinstance(item, JournalEntry):
                    self.events.append(item)
                    item = step.send(None)
                    continue
                self.calls.append(item)
                if item.what in self.fails:
                    item = step.throw(CallError(item, {"msg": "it broke"}))
                else:
                    item = step.send(self._answers.get(item.what, {}))
        except StopIteration as ended:
            return t.cast(Change, ended.value)

    def attempt(self, change: Change, failing: str = "") -> Change:
        """Every step of an attempt up to the failing one, which is judged."""
        try:
            for name, step in FORWARD.items():
                if not change.subject and name not in ("drain", "stop"):
                    return change
                change = dataclasses.replace(change, step=name)
                if name == failing:
                    return self.do(changes.judge(change, f"{name}: it broke"))
                change = self.do(step(change))
        except CallError as error:
            return self.do(changes.judge(change, str(error)))
        return changes.prove(change)

    @property
    def done(self) -> list[str]:
        return [call.what for call in self.calls]

    def arguments(self, what: str, number: int = 0) -> dict[str, t.Any]:
        return [call.arguments for call in self.calls if call.what == what][number]

    @property
    def steps(self) -> list[tuple[str, str, int]]:
        noted = [event.fields for event in self.events if event.event == "step"]
        return [(fields["step"], fields["instance"], fields["attempt"]) for fields in noted]


def begun(others: t.Sequence[dict[str, t.Any]] = (), **staged: t.Any) -> Change:
    return changes.begin({**STAGED, **staged}, [FIRST, *others], SETTINGS, 1000.0)


def test_a_change_goes_from_task_to_task_as_json() -> None:
    change = Host().do(changes.stop(begun([SECOND])))
    assert changes.read({**json.loads(json.dumps(dataclasses.asdict(change))), "changed": True}) == change


def test_an_instance_is_drained_stopped_and_started_with_its_release() -> None:
    host = Host()
    change = host.attempt(begun())
    assert [(call.what, call.module.rpartition(".")[2], call.arguments) for call in host.calls] == [
        (
            "Drain",
            "edge_drain",
            {"state": "drained", "by": "rollout", "reason": "its release changes", "lame_duck_seconds": 6, "wait": 300},
        ),
        ("Stop the unit", "systemd_service", {"name": "vllm@0.service", "state": "stopped"}),
        (
            "Activate the release",
            "engine_release",
            {"state": "active", "root": "/opt/inference", "instances": [{"index": 0, "release": "vllm-new"}]},
        ),
        (
            "Renew the key between edge and engine",
            "engine_key",
            {"state": "renewed", "instance": 0, "others": [], "engines": ["vllm"]},
        ),
        ("Give the edge its keys", "edge_keys", {}),
        (
            "Start the unit",
            "systemd_service",
            {"name": "vllm@0.service", "state": "restarted", "enabled": True, "daemon_reload": True, "no_block": True},
        ),
        ("Undrain", "edge_drain", {"state": "undrained", "by": "rollout"}),
    ]
    # All steps but the last, which comes after the proof.
    assert host.steps == [(step.name, "vllm-0", 1) for step in steps.of_instances()[:-1]]
    assert JournalEntry("drained", {"instance": "vllm-0", **DRAINED}) in host.events
    assert (change.passed, change.attempt, change.outcome, change.drafts) == (1, 1, "", True)


@pytest.mark.parametrize(
    ("held_by", "why"), [("aws", "AWS announces its end or a maintenance"), ("operator", "an operator has drained it")]
)
def test_a_host_that_somebody_keeps_out_is_not_gated_through_the_edge(held_by: str, why: str) -> None:
    host = Host(held_by=held_by)
    change = host.attempt(begun())
    assert (change.held_by, change.passed) == (held_by, 1)
    assert "edge_gate" not in [step for step, _instance, _attempt in host.steps]
    (decision,) = [event for event in host.events if event.event == "decision"]
    assert decision.fields["text"] == f"gpu-1: vllm-0 passed the gate on its own port and stays drained: {why}."


def test_one_of_several_is_drained_alone_and_the_others_are_named_to_the_key() -> None:
    host = Host()
    host.attempt(begun([SECOND]))
    assert host.arguments("Drain")["instance"] == host.arguments("Undrain")["instance"] == "engine-0"
    renewed = host.arguments("Renew the key between edge and engine")
    assert (renewed["others"], renewed["engines"]) == ([1], ["sglang", "vllm"])


def test_a_host_that_serves_without_its_instance_is_not_drained_for_it() -> None:
    host = Host()
    settings = dataclasses.replace(SETTINGS, edge_later=True)
    host.attempt(changes.begin({**STAGED, "running": "", "running_unit": ""}, [FIRST], settings, 1000.0))
    assert host.arguments("Drain")["instance"] == host.arguments("Undrain")["instance"] == "engine-0"


def test_a_first_start_stops_nothing_and_waits_for_no_requests() -> None:
    host = Host()
    host.attempt(begun(running="", running_unit=""))
    assert (host.arguments("Drain")["lame_duck_seconds"], host.arguments("Drain")["wait"]) == (0, 0)
    assert "Stop the unit" not in host.done
    assert "stop" not in [step for step, _instance, _attempt in host.steps]


def test_the_unit_of_another_engine_does_not_start_at_boot_any_more() -> None:
    host = Host()
    host.attempt(begun(running="sglang-old", running_unit="sglang@0.service"))
    assert host.arguments("Stop the unit") == {"name": "sglang@0.service", "state": "stopped", "enabled": False}


def test_an_instance_that_is_no_longer_configured_is_stopped_and_removed() -> None:
    host = Host()
    gone = changes.begin({**STAGED, "index": 1, "release": "", "instance": SECOND}, [FIRST], SETTINGS, 1000.0)
    change = host.attempt(gone)
    assert not change.subject
    change = host.do(changes.undrain(change))
    assert host.done == ["Drain", "Stop the unit", "Forget the instance", "Undrain"]
    assert host.arguments("Stop the unit") == {"name": "sglang@1.service", "state": "stopped", "enabled": False}
    assert host.arguments("Undrain")["instance"] == "engine-1"
    assert host.do(changes.confirm(change, 1060.0)).outcome == "done"
    assert host.done[4:] == ["Note on the host that this instance is done"]


# What a failure leads to


def test_where_nothing_was_stopped_it_is_left_alone_and_looked_at() -> None:
    host = Host(fails=["Drain"])
    change = host.attempt(begun())
    assert host.done == ["Drain", "See what it runs", "See whether requests come to it"]
    assert (change.attempt, change.outcome) == (0, "drained")
    assert change.message == (
        "gpu-1: release vllm-new of vllm-0 failed (Drain: it broke). It was not stopped. It does not run and is "
        "drained: it gets no requests."
    )


@pytest.mark.parametrize(
    ("failing", "requests"),
    [("stop", False), ("start", False), ("gate", False), ("undrain", True), ("edge_gate", True)],
)
def test_a_stopped_instance_is_rolled_back_and_drained_where_it_may_have_requests(failing: str, requests: bool) -> None:
    host = Host()
    change = host.attempt(begun(), failing)
    assert (change.attempt, change.outcome, change.passed) == (2, "", 0)
    back = host.attempt(change)
    assert host.steps[-1] == ("edge_gate", "vllm-0", 2)
    drain = host.arguments("Drain", 1)
    assert (drain["lame_duck_seconds"], drain["wait"]) == ((6, 300) if requests else (0, 0))
    assert drain["reason"] == "release vllm-new failed"
    assert (back.passed, back.attempt, back.outcome) == (2, 0, "rolled_back")
    assert back.message == (
        f"gpu-1: release vllm-new of vllm-0 failed ({failing}: it broke). It was rolled back to vllm-old and is in "
        "service."
    )


def test_every_call_of_a_step_after_the_drain_leads_back() -> None:
    whole = Host()
    whole.attempt(begun())
    for what in whole.done[1:]:
        change = Host(fails=[what]).attempt(begun())
        assert (change.attempt, change.failure) == (2, f"{what}: it broke")


def test_the_good_release_of_another_engine_starts_in_the_others_place() -> None:
    good = {**Instance(0, "sglang", (), 0).as_dict(), "release": "sglang-old", "drafts": False}
    host = Host(good=good)
    back = host.attempt(host.attempt(begun(), "gate"))
    assert host.arguments("Stop the unit", 1) == {"name": "vllm@0.service", "state": "stopped", "enabled": False}
    assert host.arguments("Start the unit", 1)["name"] == "sglang@0.service"
    assert ("start", "sglang-0", 2) in host.steps
    assert back.message.endswith("It was rolled back to sglang-old and is in service.")


def test_what_is_started_on_the_way_back_is_the_good_release_in_the_instances_place() -> None:
    host = Host(good={**GOOD, "span": {"rank": 1, "nodes": ["gpu-0", "gpu-1"]}, "serves": False})
    change = host.do(changes.stop(host.attempt(begun(), "start")))
    assert change.subject == {**FIRST, "span": {"rank": 1, "nodes": ["gpu-0", "gpu-1"]}, "serves": False}
    assert (change.subject_release, change.drafts) == ("vllm-old", False)


def test_without_a_good_release_it_stays_stopped_and_drained() -> None:
    none = {**dict.fromkeys(GOOD, ""), "serves": True}
    host = Host(good=none)
    back = host.attempt(host.attempt(begun(), "start"))
    assert host.done[-2:] == ["Point to the last good release", "Stop the unit"]
    assert (back.attempt, back.outcome, back.subject) == (0, "stopped", {})
    assert "There is no good release to go back to: the instance is stopped and drained." in back.message


def test_a_way_back_that_fails_is_looked_at_and_not_tried_again() -> None:
    host = Host()
    back = host.attempt(host.attempt(begun(), "gate"), "gate")
    assert (back.attempt, back.outcome) == (0, "drained")
    assert back.message == (
        "gpu-1: release vllm-new of vllm-0 failed (gate: it broke). The way back ended (gate: it broke). It does not "
        "run and is drained: it gets no requests."
    )


def test_a_host_that_cannot_be_looked_at_claims_nothing() -> None:
    change = Host(fails=["Drain", "See whether requests come to it"]).attempt(begun())
    assert change.outcome == "failed"
    assert "could not be found out (See whether requests come to it: it broke)." in change.message


def test_an_instance_that_cannot_be_taken_out_is_looked_at_and_not_started_again() -> None:
    gone = changes.begin({**STAGED, "index": 1, "release": "", "instance": SECOND}, [FIRST], SETTINGS, 1000.0)
    change = Host(fails=["Stop the unit"]).attempt(gone)
    assert (change.attempt, change.outcome) == (0, "drained")
    assert change.message.startswith(
        "gpu-1: sglang-1, which is no longer wanted, could not be taken out (Stop the unit:"
    )


# Instances that span hosts


def node(rank: int, attempt: int = 1) -> Change:
    span = {"rank": rank, "nodes": ["gpu-1", "gpu-2"]}
    subject = {**FIRST, "span": span, "serves": not rank}
    return dataclasses.replace(begun(), attempt=attempt, subject=subject, subject_release="vllm-old", failure="x")


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_further_node_comes_through_with_the_first(attempt: int) -> None:
    first = changes.prove(node(0, attempt))
    assert changes.prove(node(1, attempt)).passed == 0, "it waits for the first"
    there = dataclasses.asdict(first)
    assert changes.follow(node(1, attempt), there).passed == attempt
    assert changes.follow(first, {}) == first


@pytest.mark.parametrize(
    "first",
    [{}, dataclasses.asdict(node(0)), dataclasses.asdict(dataclasses.replace(node(0), passed=1, instance=SECOND))],
)
def test_a_further_node_is_rolled_back_with_the_first(first: dict[str, t.Any]) -> None:
    with pytest.raises(FleetError, match="it was not proved on gpu-1, where its requests come to"):
        changes.follow(node(1), first)


def test_a_first_node_that_passed_before_its_rollback_proves_nothing_new() -> None:
    with pytest.raises(FleetError, match="it was not proved on gpu-1"):
        changes.follow(node(1, attempt=2), dataclasses.asdict(dataclasses.replace(node(0), passed=1)))


# Records


NOTES = [
    "Confirm the release",
    "Note on the host that this instance is done",
    "Keep what the engine said of memory",
    "Remove releases that nothing refers to",
]


def test_what_was_proved_is_written_down() -> None:
    host = Host()
    change = host.do(changes.confirm(dataclasses.replace(begun(), passed=1), 1075.0))
    assert host.done == NOTES
    assert host.arguments(NOTES[1]) == {"state": "done", "id": "r1", "instance": "vllm-0", "seconds": 75.0}
    assert host.steps == [("confirm", "vllm-0", 1)]
    assert (change.outcome, change.message) == ("done", "")


@pytest.mark.parametrize("failing", NOTES)
def test_a_note_that_cannot_be_written_takes_nothing_back_and_keeps_no_other_from_being_tried(failing: str) -> None:
    host = Host(fails=[failing])
    change = host.do(changes.confirm(dataclasses.replace(begun(), passed=1), 1075.0))
    assert host.done == NOTES
    assert (change.outcome, change.attempt) == ("unrecorded", 0)
    assert change.message == (
        "gpu-1: vllm-0 runs release vllm-new, which passed its gate, and serves. Nothing of that was taken back, but "
        f"not everything could be written down ({failing}: it broke)."
    )


@pytest.mark.parametrize(
    "fields", [{}, {"passed": 2, "outcome": "rolled_back"}, {"passed": 1, "outcome": "unrecorded"}]
)
def test_nothing_else_is_written_down(fields: dict[str, t.Any]) -> None:
    change = dataclasses.replace(begun(), **fields)
    host = Host()
    assert host.do(changes.confirm(change, 1075.0)) == change
    assert (host.calls, host.events) == ([], [])


def test_outside_of_a_rollout_there_is_no_claim_to_note_it_in() -> None:
    change = dataclasses.replace(begun(), passed=1, settings=changes.Settings("gpu-1"))
    host = Host()
    host.do(changes.confirm(change, 1075.0))
    assert NOTES[1] not in host.done


MEASURED = dataclasses.replace(SETTINGS, measures=True)
MEASURE = {name: FORWARD.get(name, changes.measure) for name in ("drain", "measure", "gate", "undrain", "edge_gate")}


def measure_until(host: Host, failing: str = "") -> Change:
    change = changes.begin(STAGED, [FIRST], MEASURED, 100.0)
    for name, step in MEASURE.items():
        change = dataclasses.replace(change, step=name)
        if name == failing:
            return host.do(changes.judge(change, "the gate failed"))
        change = host.do(step(change))
    return host.do(changes.confirm(changes.prove(change), 160.0))


def test_a_measured_instance_is_drained_and_undrained_and_nothing_else() -> None:
    host = Host()
    change = measure_until(host)
    assert change.outcome == "done"
    assert [call.what for call in host.calls] == ["Drain", "Undrain", "Note on the host that this instance is done"]
    # How long it took says nothing about a restart.
    assert "seconds" not in host.calls[-1].arguments
    assert [event.fields["step"] for event in host.events if event.event == "step"] == [*MEASURE, "confirm"]
    assert change.subject == {}


@pytest.mark.parametrize("failing", ["drain", "measure", "gate", "edge_gate"])
def test_after_a_measurement_there_is_nothing_to_go_back_to(failing: str) -> None:
    host = Host()
    change = measure_until(host, failing)
    assert change.attempt == 0
    assert change.outcome not in ("", "done")
    assert "vllm-0 was measured, and did not come back (the gate failed)." in change.message
    assert not [call for call in host.calls if "release" in call.what.lower() and call.what != "See what it runs"]


def search(host: Host, *tried: str) -> Change:
    """Drain, and try releases; each is started, gated and measured."""
    change = host.do(changes.drain(begun(release="vllm-own", running="vllm-own")))
    for release in tried:
        change = host.do(changes.trial(dataclasses.replace(change, trial=release)))
        for step in (changes.start, changes.gate, changes.measure):
            change = host.do(step(change))
    return change


def test_a_trial_starts_a_release_that_is_only_tried_and_undrains_nothing() -> None:
    host = Host()
    change = search(host, "vllm-a", "vllm-b")
    assert host.done == [
        "Drain",
        *("Stop the unit", "Activate the release for a trial", "Start the unit") * 2,
    ]
    given = [call.arguments for call in host.calls if call.what == "Activate the release for a trial"]
    assert [(one["trial"], one["instances"]) for one in given] == [
        (True, [{"index": 0, "release": "vllm-a"}]),
        (True, [{"index": 0, "release": "vllm-b"}]),
    ]
    assert (change.release, change.trial, change.subject_release) == ("vllm-own", "vllm-b", "vllm-b")
    assert [step for step, _name, _attempt in host.steps] == ["drain", *("trial", "start", "gate", "measure") * 2]


def test_after_the_trials_an_instance_gets_its_release_back_through_both_gates() -> None:
    # Nothing ran when it began, as after a trial of an earlier search that was broken off.
    tried = dataclasses.replace(search(Host(), "vllm-a"), running_unit="")
    change = changes.conclude(tried, "vllm-own", 5000.0)
    host = Host()
    change = host.attempt(change)
    assert [what for what in host.done if "elease" in what] == ["Activate the release"]
    assert "trial" not in host.arguments("Activate the release")
    assert host.done.index("Stop the unit") < host.done.index("Activate the release")
    assert host.arguments("Activate the release")["instances"] == [{"index": 0, "release": "vllm-own"}]
    # It is drained, and no client has a request in it.
    assert (host.arguments("Drain")["lame_duck_seconds"], host.arguments("Drain")["wait"]) == (0, 0)
    assert (change.passed, change.subject_release) == (1, "vllm-own")
    notes = Host()
    assert notes.do(changes.confirm(change, 5030.0)).outcome == "done"
    # How long the search took says nothing about a restart.
    assert notes.arguments("Note on the host that this instance is done")["seconds"] == 30.0


@pytest.mark.parametrize("failing", ["stop", "start", "gate", "edge_gate"])
def test_a_winner_that_fails_when_it_is_to_stay_is_rolled_back(failing: str) -> None:
    change = changes.conclude(search(Host(), "vllm-a"), "vllm-a", 5000.0)
    failed = Host().attempt(change, failing)
    assert failed.attempt == 2
    host = Host()
    back = host.attempt(failed)
    assert "Point to the last good release" in host.done
    assert (back.outcome, back.subject) == ("rolled_back", {})
    why = f"release vllm-a of vllm-0 failed ({failing}: it broke)"
    assert back.message == f"gpu-1: {why}. It was rolled back to vllm-old and is in service."
