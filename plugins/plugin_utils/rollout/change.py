# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The change of one instance: its steps, the response to a failure, and the outcome. Pure.

A step is a generator. It yields calls of modules and events for the journal, receives a call's result, and returns the
new state of the change; a failed call is raised inside it. Action engine_change runs it on the host, and role engine
orders the steps, with the gates between them. Only judge() decides what a failure leads to.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import AWS, server_name
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.present import instance_now
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

DONE = "done"
ROLLED_BACK = "rolled_back"
STOPPED = "stopped"
UNRECORDED = "unrecorded"

Fields = dict[str, t.Any]


class Call(t.NamedTuple):
    """A module to run on the host, and its purpose, for people."""

    what: str
    module: str
    arguments: Fields


class JournalEntry(t.NamedTuple):
    """A line for the rollout's journal."""

    event: str
    fields: Fields


class CallError(Exception):
    """A call that failed."""

    def __init__(self, call: Call, result: t.Mapping[str, t.Any]) -> None:
        super().__init__(f"{call.what}: {result.get('msg') or 'no reason given'}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of all instances of a host.

    Attributes:
        host: its name.
        root: of releases and instances.
        edge_url: of the host's edge, on the host.
        journal: the rollout's, on the controller; empty for none.
        rollout: its id; empty for none.
        lame_duck_seconds: how long the balancer in front needs to notice a drain.
        drain_seconds: how long requests in flight may take to finish.
        forget_previous: whether not to keep the previous good release for a rollback.
        keep_releases: how many unused ones to keep.
        edge_later: whether the host serves without its instances until one has passed its gate.
        measures: whether the instance is measured and not changed.
    """

    host: str
    root: str = ENGINE_ROOT
    edge_url: str = "http://127.0.0.1:8000"
    journal: str = ""
    rollout: str = ""
    lame_duck_seconds: float = 0
    drain_seconds: float = 0
    forget_previous: bool = False
    keep_releases: int = 3
    edge_later: bool = False
    measures: bool = False


@dataclasses.dataclass(frozen=True)
class Change:
    """The state of the change of an instance.

    Attributes:
        settings: those of its host.
        instance: its wanted state, as module fleet_facts describes it.
        others: the host's other instances.
        release: the wanted one; empty to remove the instance.
        reason: why it is changed.
        running_unit: the old unit; empty for none.
        began: Unix time.
        requests: whether clients may have requests in it.
        attempt: 1 brings the release into service, 2 the last good one; 0 when there is nothing left to try.
        step: the last one that began.
        subject: the instance as this attempt starts it; empty before it is known, and where there is none.
        subject_release: the release of the subject.
        trial: the release that is tried; empty for none.
        drafts: whether that has a draft model.
        held_by: who keeps the host or the instance drained although this change has undrained it; empty for none.
        passed: the attempt that passed both gates; 0 for none.
        failure: why the first attempt failed.
        outcome: as a rollout's record has it; empty while it goes on.
        message: the outcome for people, where it failed.
    """

    settings: Settings
    instance: Fields
    others: list[Fields]
    release: str
    reason: str
    running_unit: str
    began: float
    requests: bool
    attempt: int = 1
    step: str = ""
    subject: Fields = dataclasses.field(default_factory=dict)
    subject_release: str = ""
    trial: str = ""
    drafts: bool = False
    held_by: str = ""
    passed: int = 0
    failure: str = ""
    outcome: str = ""
    message: str = ""

    @property
    def index(self) -> int:
        return int(self.instance["index"])

    @property
    def name(self) -> str:
        return str(self.instance["name"])

    @property
    def drained(self) -> Fields:
        """The target for module edge_drain: with one instance the whole host, so that the balancer in front notices;
        with several, for a removal, and where the host serves without it, the instance.
        """
        alone = not self.others and self.release and not self.settings.edge_later
        return {} if alone else {"instance": server_name(self.index)}

    def note(self, step: str) -> JournalEntry:
        name = self.subject.get("name") or self.name
        return JournalEntry("step", {"instance": name, "step": step, "attempt": self.attempt})

    def call_release(self, what: str, state: str, **arguments: t.Any) -> Call:
        instance = {"index": self.index, **({"release": self.release} if state == "active" else {})}
        given = {"state": state, "root": self.settings.root, "instances": [instance], **arguments}
        return Call(what, "inference.fleet.engine_release", given)


ChangeStep = t.Generator[t.Union[Call, JournalEntry], t.Any, Change]


def begin(staged: Fields, instances: list[Fields], settings: Settings, now: float) -> Change:
    """The change of an instance that differs.

    Args:
        staged: what module engine_release returned for it.
        instances: the wanted ones of the host.
        settings: those of the host.
        now: Unix time.
    """
    index = staged["index"]
    wanted = staged.get("instance") or next(one for one in instances if one["index"] == index)
    return Change(
        settings=settings,
        instance=wanted,
        others=[one for one in instances if one["index"] != index],
        release=staged["release"],
        reason=staged["pending"],
        running_unit=staged["running_unit"],
        began=now,
        requests=bool(staged["running"]),
        drafts=bool(staged.get("drafts")),
    )


def read(document: t.Mapping[str, t.Any]) -> Change:
    """A change from its dictionary between two tasks."""
    names = {field.name for field in dataclasses.fields(Change)}
    fields = {name: value for name, value in document.items() if name in names}
    return Change(**{**fields, "settings": Settings(**fields["settings"])})


# The steps


def drain(change: Change) -> ChangeStep:
    """Let requests finish. Nothing is stopped before, and from here on a failure needs a rollback."""
    yield change.note("drain")
    settings = change.settings
    drained = yield Call(
        "Drain",
        "inference.fleet.edge_drain",
        {
            "state": "drained",
            **change.drained,
            "by": "rollout",
            "reason": change.reason if change.attempt == 1 else f"release {change.release} failed",
            # An instance that never served has no requests, and its counters may hang.
            "lame_duck_seconds": settings.lame_duck_seconds if change.requests else 0,
            "wait": settings.drain_seconds if change.requests else 0,
        },
    )
    names = ("idle", "requests", "engines", "waited", "lame_duck_seconds")
    yield JournalEntry("drained", {"instance": change.name, **{name: drained.get(name) for name in names}})
    return change


def measure(change: Change) -> ChangeStep:
    """Role benchmark measures; the instance goes on running what it runs."""
    yield change.note("measure")
    return dataclasses.replace(change, subject=change.instance, subject_release=change.trial or change.release)


def trial(change: Change) -> ChangeStep:
    """Stop what runs, and select a release that is only tried. The last good one stays what it was."""
    yield change.note("trial")
    yield _stop_unit(change.instance["unit"], stays=True)
    named = {"index": change.index, "release": change.trial}
    given = {"state": "active", "root": change.settings.root, "instances": [named], "trial": True}
    yield Call("Activate the release for a trial", "inference.fleet.engine_release", given)
    return dataclasses.replace(change, subject=change.instance, subject_release=change.trial)


def conclude(change: Change, release: str, now: float) -> Change:
    """End the trials: from here on it is the change of a drained instance to a release.

    Args:
        change: of an instance that was drained.
        release: what it is to run.
        now: Unix time.
    """
    unit = change.instance["unit"]
    # How long a search took says nothing about the next restart.
    done = dataclasses.replace(change, release=release, trial="", step="", requests=False, began=now)
    # A trial may run now, whatever ran when the search began.
    return dataclasses.replace(done, subject={}, subject_release="", running_unit=unit)


def stop(change: Change) -> ChangeStep:
    """Stop the running unit, and select what this attempt starts."""
    if not change.release:
        yield change.note("stop")
        yield _stop_unit(change.instance["unit"], stays=False)
        yield change.call_release("Forget the instance", "removed")
        return change
    if change.attempt > 1:
        return (yield from _restore(change))
    if change.running_unit:
        yield change.note("stop")
        yield _stop_unit(change.running_unit, stays=change.running_unit == change.instance["unit"])
    yield change.call_release("Activate the release", "active")
    renewed = {
        "state": "renewed",
        "instance": change.index,
        "others": [one["index"] for one in change.others],
        "engines": sorted({one["engine"] for one in [change.instance, *change.others]}),
    }
    yield Call("Renew the key between edge and engine", "inference.fleet.engine_key", renewed)
    yield Call("Give the edge its keys", "inference.fleet.edge_keys", {})
    return dataclasses.replace(change, subject=change.instance, subject_release=change.release)


def _stop_unit(unit: str, stays: bool) -> Call:
    # A unit that does not come back must not start at boot.
    enabled = {} if stays else {"enabled": False}
    return Call("Stop the unit", "ansible.builtin.systemd_service", {"name": unit, "state": "stopped", **enabled})


def _restore(change: Change) -> ChangeStep:
    restored = yield change.call_release("Point to the last good release", "restored")
    good = restored["instances"][0]
    # Where the engine changes, the new unit is not the good release's. And without a good release there is nothing to
    # roll back to: an engine that dies at start would loop for ever.
    if good["unit"] != change.instance["unit"]:
        yield _stop_unit(change.instance["unit"], stays=False)
    if not good["release"]:
        said = "There is no good release to go back to: the instance is stopped and drained."
        return _end(change, STOPPED, f"{_failed(change)} {said}")
    names = ("name", "engine", "unit", "engine_port", "health_path", "serves", "span")
    subject = {**change.instance, **{name: good[name] for name in names}}
    return dataclasses.replace(change, subject=subject, subject_release=good["release"], drafts=bool(good["drafts"]))


def start(change: Change) -> ChangeStep:
    """Start the subject's unit."""
    yield change.note("start")
    # Restarted, because after a failure the unit may run the failed release. Without waiting: the start may have to
    # wait for the weights, or for the other nodes, and the next task reports progress.
    unit = {"name": change.subject["unit"], "state": "restarted", "enabled": True, "daemon_reload": True}
    yield Call("Start the unit", "ansible.builtin.systemd_service", {**unit, "no_block": True})
    return change


def gate(change: Change) -> ChangeStep:
    """Role gate runs the gate itself."""
    yield change.note("gate")
    return change


def undrain(change: Change) -> ChangeStep:
    """Let requests come; for a removed instance, remove the drain."""
    if change.release:
        yield change.note("undrain")
    given = {"state": "undrained", **change.drained, "by": "rollout"}
    undrained = yield Call("Undrain", "inference.fleet.edge_drain", given)
    if not change.release:
        return dataclasses.replace(change, passed=1)
    return dataclasses.replace(change, held_by=str(undrained.get("held_by") or ""))


def edge_gate(change: Change) -> ChangeStep:
    """Role gate runs the gate itself, except where somebody keeps the host out of service: no request passes then."""
    if change.held_by:
        who = "AWS announces its end or a maintenance" if change.held_by == AWS else "an operator has drained it"
        text = f"{change.settings.host}: {change.name} passed the gate on its own port and stays drained: {who}."
        yield JournalEntry("decision", {"text": text})
        return change
    yield change.note("edge_gate")
    return change


def prove(change: Change) -> Change:
    """Mark what passed both gates as proven; the further nodes of an instance that spans hosts have no gate."""
    return _pass(change) if change.subject["serves"] else change


def follow(change: Change, first: t.Mapping[str, t.Any]) -> Change:
    """Mark a further node of an instance that spans hosts as proven where its first node was.

    Args:
        change: the change.
        first: the change on the first node, which serves the requests.

    Raises:
        FleetError: it was not proven there.
    """
    if change.passed or not change.subject:
        return change
    there = read(first) if first.get("instance") else None
    if not there or (there.index, there.passed) != (change.index, change.attempt):
        raise FleetError(f"it was not proved on {change.subject['span']['nodes'][0]}, where its requests come to")
    return _pass(change)


def _pass(change: Change) -> Change:
    passed = dataclasses.replace(change, passed=change.attempt)
    if change.attempt == 1:
        return passed
    said = f"It was rolled back to {change.subject_release} and is in service."
    return _end(passed, ROLLED_BACK, f"{_failed(change)} {said}")


def confirm(change: Change, now: float) -> ChangeStep:
    """Record the result. Every record is tried, and a failure of one does not undo the change."""
    if change.outcome or not change.passed:
        return change
    unwritten = []
    if change.release:
        yield change.note("confirm")
    for call in _notes(change, now):
        try:
            yield call
        except CallError as error:
            unwritten.append(str(error))
    if not unwritten:
        return _end(change, DONE, "")
    achieved = (
        f"runs release {change.release}, which passed its gate, and serves."
        if change.release
        else "is stopped, as it is no longer wanted."
    )
    said = (
        f"{change.settings.host}: {change.name} {achieved} Nothing of that was taken back, but not everything could be "
        f"written down ({' '.join(unwritten)})."
    )
    return _end(change, UNRECORDED, said)


def _notes(change: Change, now: float) -> t.Iterator[Call]:
    settings = change.settings
    if settings.measures:
        yield from _note_done(change, now)
        return
    if change.release:
        forget = {"forget_previous": settings.forget_previous}
        yield change.call_release("Confirm the release", "good", **forget)
    yield from _note_done(change, now)
    if change.release:
        arguments = {"instances": [change.instance], "root": settings.root}
        yield Call("Keep what the engine said of memory", "inference.fleet.engine_memory", arguments)
        pruned = {"state": "pruned", "root": settings.root, "keep": settings.keep_releases}
        yield Call("Remove releases that nothing refers to", "inference.fleet.engine_release", pruned)


def _note_done(change: Change, now: float) -> t.Iterator[Call]:
    settings = change.settings
    if settings.rollout:
        # How long a measurement took says nothing about the next restart.
        seconds = {} if settings.measures else {"seconds": now - change.began}
        done = {"state": DONE, "id": settings.rollout, "instance": change.name, **seconds}
        yield Call("Note on the host that this instance is done", "inference.fleet.rollout_claim", done)


# What a failure leads to


def judge(change: Change, failure: str) -> ChangeStep:
    """The response to a failed attempt: the last good release where something was stopped, else the end.

    Args:
        change: as the failure left it.
        failure: what failed, and why.
    """
    if change.settings.measures:
        # Nothing was changed, so there is nothing to go back to.
        present = yield from _look(change)
        text = f"{change.settings.host}: {change.name} was measured, and did not come back ({failure})."
        return _end(change, present["outcome"], f"{text} {present['said']}")
    if not change.release:
        present = yield from _look(change)
        text = f"{change.name}, which is no longer wanted, could not be taken out ({failure})."
        return _end(change, present["outcome"], f"{change.settings.host}: {text} {present['said']}")
    if change.attempt > 1:
        present = yield from _look(change)
        return _end(change, present["outcome"], f"{_failed(change)} The way back ended ({failure}). {present['said']}")
    failed = dataclasses.replace(change, failure=failure)
    if change.step == "drain":
        present = yield from _look(change)
        return _end(failed, present["outcome"], f"{_failed(failed)} It was not stopped. {present['said']}")
    # Where only the gate through the edge failed, clients have requests in it.
    requests = steps.follows_change(change.step)
    return dataclasses.replace(failed, attempt=2, subject={}, subject_release="", requests=requests)


def _look(change: Change) -> t.Generator[Call, t.Any, dict[str, str]]:
    """What the instance runs and whether requests come to it, read from the host rather than assumed."""
    try:
        runs = yield change.call_release("See what it runs", "kept")
        settings = change.settings
        asked = {"host": settings.host, "engine_root": settings.root, "edge_url": settings.edge_url}
        status = yield Call("See whether requests come to it", "inference.fleet.fleet_status", asked)
    except CallError as error:
        return {"outcome": "failed", "said": f"What it runs now could not be found out ({error})."}
    return instance_now(status, change.index, runs["instances"][0]["running"])


def _failed(change: Change) -> str:
    return f"{change.settings.host}: release {change.release} of {change.name} failed ({change.failure})."


def _end(change: Change, outcome: str, message: str) -> Change:
    return dataclasses.replace(change, attempt=0, outcome=outcome, message=message, subject={})
