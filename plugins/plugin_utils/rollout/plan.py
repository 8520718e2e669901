# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout's plan, made before any change. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import (
    OPERATOR,
    drained_by,
    leaving,
    server_index,
)
from ansible_collections.inference.fleet.plugins.module_utils.rollout.claim import Claim
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import capacity
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import waves as rollout_waves

SITE = "site"
ROLLING_RESTART = "rolling_restart"
ROLLBACK = "rollback"
#: Measures instances, each drained, and changes nothing.
BENCHMARK = "benchmark"
#: Tries settings on instances, each drained, and puts back what they ran.
TUNE = "tune"
VERBS = (SITE, ROLLING_RESTART, ROLLBACK, BENCHMARK, TUNE)

#: What these do to an instance. Who names a host wants its figures.
_MEASURES = {BENCHMARK: ("measure", "measured"), TUNE: ("tune", "tuned")}


@dataclasses.dataclass(frozen=True)
class HostState:
    """The state of a host before the rollout.

    Attributes:
        staged: what module engine_release returned for each of its instances.
        names: the instances' names by index.
        status: what module fleet_status returned; None for a host that did not answer.
        claim: the last rollout that it took part in.
        spans: by index, the hosts of the instances that span some.
    """

    staged: list[dict[str, t.Any]]
    names: dict[int, str]
    status: dict[str, t.Any] | None
    claim: Claim | None
    spans: t.Mapping[int, t.Sequence[str]] = dataclasses.field(default_factory=dict)

    def name_of(self, staged: t.Mapping[str, t.Any]) -> str:
        """An instance's name; that of its running release where it is no longer wanted."""
        index = staged["index"]
        return self.names.get(index) or f"{(staged['running'] or staged['current']).split('-')[0]}-{index}"

    @property
    def mark(self) -> t.Mapping[str, t.Any]:
        """Who drained the host, and which of its instances."""
        return (self.status or {}).get("drain") or {}

    @property
    def held(self) -> t.Mapping[str, str]:
        """Since when and why its edge is held; empty where it is not."""
        return ((self.status or {}).get("edge") or {}).get("held") or {}


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """The operator's settings; the names are those of role rollout's variables."""

    verb: str
    waves: t.Any
    resume: bool = True
    resume_within: float = 86400.0
    accept_downtime: bool = False
    accept_no_way_back: bool = False
    max_load: float = 0.9


@dataclasses.dataclass
class RolloutPlan:
    """The plan.

    Attributes:
        id: of the resumed rollout; empty for a new one.
        waves: hosts that are changed together, in order.
        hosts: for each its wave (from 1), its instances, its duration last time in seconds, and the hosts with which it
            shares an instance.
        left_out: hosts and instances that take no part, with the reason.
        done: hosts that an earlier run of this rollout has done.
        warnings: for the operator, before the rollout.
        refusals: why it must not begin.
    """

    id: str
    waves: list[list[str]]
    hosts: dict[str, dict[str, t.Any]]
    left_out: dict[str, str]
    done: list[str]
    warnings: list[str]
    refusals: list[str]

    @property
    def targets(self) -> dict[str, dict[str, str]]:
        """The release that each instance of each host gets."""
        return {
            host: {one["name"]: one["to"]["release"] if one["to"] else "" for one in planned["instances"]}
            for host, planned in self.hosts.items()
        }


def make(
    settings: RolloutSettings, fleet: t.Mapping[str, HostState], canary: t.Collection[str], now: float
) -> RolloutPlan:
    """The plan for the hosts of ``fleet``, in their order.

    Args:
        settings: the operator's settings.
        fleet: the hosts that the run may change.
        canary: the hosts of the canary ring.
        now: Unix time.

    Raises:
        FleetError: the waves are invalid.
    """
    rollout_waves.check_waves(settings.waves)
    open_claim = unfinished(settings, fleet, now) if settings.resume else None
    plan = RolloutPlan(open_claim.id if open_claim else "", [], {}, {}, [], [], [])
    for host, facts in fleet.items():
        instances = _instances(settings, plan, host, facts)
        if instances:
            plan.hosts[host] = {"instances": instances, "expected_seconds": None, "together": []}
    waves = rollout_waves.split(list(plan.hosts), canary, settings.waves)
    if settings.verb in _MEASURES:
        # What is measured side by side is measured alone, and the fleet misses no more than one host.
        waves = [[host] for host in plan.hosts]
    plan.waves = rollout_waves.together(waves, _companions(fleet))
    for number, wave in enumerate(plan.waves, 1):
        for host in wave:
            companions = _companions(fleet)[host]
            together = [other for other in wave if other in companions and other != host]
            plan.hosts[host] = {"wave": number, **plan.hosts[host], "together": together}
    if settings.verb in _MEASURES:
        # Without it there is nothing to show.
        done = _MEASURES[settings.verb][1]
        plan.refusals += [f"{name} cannot be {done}: {why}." for name, why in plan.left_out.items()]
    else:
        _expect(plan, fleet)
    if settings.verb != BENCHMARK:
        _refuse(settings, plan, fleet)
    _refuse_parts(plan, fleet)
    return plan


def _companions(fleet: t.Mapping[str, HostState]) -> dict[str, set[str]]:
    """For each host those with which it shares an instance, including itself; empty where there is none."""
    return {host: {node for nodes in facts.spans.values() for node in nodes} for host, facts in fleet.items()}


def unfinished(settings: RolloutSettings, fleet: t.Mapping[str, HostState], now: float) -> Claim | None:
    """The unfinished rollout to resume, from its hosts' claims; None where there is none.

    A ``site`` rollout is resumed only for the same releases: other variables make another rollout.
    """
    claims = [facts.claim for facts in fleet.values() if facts.claim and not facts.claim.finished]
    own = [
        claim for claim in claims if claim.verb == settings.verb and now - _moment(claim.since) < settings.resume_within
    ]
    newest = max(own, key=lambda claim: claim.since, default=None)
    if newest is None or settings.verb != SITE:
        return newest
    for facts in fleet.values():
        if facts.claim and facts.claim.id == newest.id:
            wanted = {facts.name_of(one): one["release"] for one in facts.staged if one["pending"]}
            if any(
                newest_target != wanted.get(name, newest_target) for name, newest_target in facts.claim.targets.items()
            ):
                return None
    return newest


def _instances(settings: RolloutSettings, plan: RolloutPlan, host: str, facts: HostState) -> list[dict[str, t.Any]]:
    """The changes on a host; records in the plan why an instance is not changed."""
    if facts.held:
        if any(one["pending"] for one in facts.staged):
            plan.left_out[host] = _held(facts.held)
        return []
    reason = _out_of_reach(facts.mark)
    if reason:
        if any(one["pending"] for one in facts.staged):
            plan.left_out[host] = reason
        return []
    drained = {
        server_index(server): mark
        for server, mark in (facts.mark.get("instances") or {}).items()
        if OPERATOR in drained_by(mark)
    }
    done = facts.claim.done if facts.claim and plan.id and facts.claim.id == plan.id and settings.verb != SITE else {}
    changing = []
    for one in facts.staged:
        name = facts.name_of(one)
        if name in done:
            continue
        if one.get("problem"):
            plan.refusals.append(_no_release(settings.verb, host, one["problem"]))
        elif one["pending"] and one["index"] in drained:
            plan.left_out[f"{name} of {host}"] = _drained_by_hand(drained[one["index"]])
        elif one["pending"]:
            changing.append(_instance(name, one, settings.verb))
    if done and not changing:
        plan.done.append(host)
    return changing


def _instance(name: str, staged: dict[str, t.Any], verb: str) -> dict[str, t.Any]:
    described = staged.get("described") or {}
    before = staged["running"] or staged["current"]
    release = staged["release"]
    change = "restart" if before and release else "first start" if release else "stop"
    return {
        "name": name,
        "index": staged["index"],
        "action": _MEASURES[verb][0] if verb in _MEASURES else change,
        "reason": staged["pending"],
        "from": {"release": before, **described.get(before, {})} if before else None,
        "to": {"release": release, **described.get(release, {})} if release else None,
        "good": staged["good"],
    }


def _expect(plan: RolloutPlan, fleet: t.Mapping[str, HostState]) -> None:
    """The expected duration of each host: as last time there, else as on the other hosts."""
    known = [seconds for facts in fleet.values() if facts.claim for seconds in facts.claim.seconds.values()]
    usual = sum(known) / len(known) if known else None
    for host, planned in plan.hosts.items():
        claim = fleet[host].claim
        own = [(claim.seconds if claim else {}).get(one["name"], usual) for one in planned["instances"]]
        found = [seconds for seconds in own if seconds is not None]
        planned["expected_seconds"] = round(sum(found)) if len(found) == len(own) else None


def expected_seconds(plan: RolloutPlan) -> float | None:
    """How long the rollout will take: the slowest host of each wave; None where that is unknown."""
    waves = [[plan.hosts[host]["expected_seconds"] for host in wave] for wave in plan.waves]
    if any(seconds is None for wave in waves for seconds in wave):
        return None
    return float(sum(max(wave) for wave in waves))


def _refuse(settings: RolloutSettings, plan: RolloutPlan, fleet: t.Mapping[str, HostState]) -> None:
    for host, planned in plan.hosts.items():
        serving = {one.index for one in capacity.serving(fleet[host].status)}
        for one in planned["instances"]:
            if one["good"] or not one["to"]:
                continue
            if one["index"] not in serving:
                plan.warnings.append(
                    f"{one['name']} of {host} has no release yet that passed its gate: if the new one fails, it stays "
                    "stopped and drained."
                )
            elif not settings.accept_no_way_back:
                plan.refusals.append(
                    f"{one['name']} of {host} serves, but none of its releases on disk has passed a gate, so a failure "
                    "could not be rolled back. playbooks/smoke.yml gates what runs; if you go on without a way back: "
                    "-e rollout_accept_no_way_back=true."
                )


def _refuse_parts(plan: RolloutPlan, fleet: t.Mapping[str, HostState]) -> None:
    """An instance that spans hosts is changed on all of them or on none."""
    for host, planned in plan.hosts.items():
        for one in planned["instances"]:
            nodes = fleet[host].spans.get(one["index"], ())
            missing = [node for node in nodes if node not in fleet or node in plan.left_out]
            if missing:
                plan.refusals.append(
                    f"{one['name']} of {host} spans {', '.join(nodes)}, and this run leaves {', '.join(missing)} out. "
                    f"Name all of them, -l {','.join(nodes)}, and undrain those that were drained by hand."
                )


def downtime(plan: RolloutPlan, serving: t.Mapping[str, list[capacity.InstanceLoad]]) -> str:
    """What the operator must accept where no other host serves while a wave is out; empty where one does.

    Args:
        plan: the plan.
        serving: the whole fleet's instances that serve, by host.
    """
    out = first_out(plan)
    left = capacity.room(serving, out, 1.0)
    if not left.is_downtime:
        return ""
    seconds = [plan.hosts[host]["expected_seconds"] for host in out if plan.hosts[host]["expected_seconds"]]
    how_long = f"about {max(seconds):.0f} seconds" if seconds else "as long as an engine takes to start"
    return (
        f"Nothing else serves while {' and '.join(left.out)} is changed: this means downtime of {how_long}. "
        "Add a host or an instance first, or accept it: -e rollout_accept_downtime=true."
    )


def _out_of_reach(summary: t.Mapping[str, t.Any]) -> str:
    """Why a host takes no part, whatever differs there; empty where it does."""
    if OPERATOR in drained_by(summary):
        marks = summary.get("marks") or [summary]
        return _drained_by_hand(next(mark for mark in marks if mark.get("by") == OPERATOR))
    notice = leaving(summary)
    return announced_there(notice) if notice else ""


def announced_there(notice: str) -> str:
    """Why a host that AWS announces something for takes no part."""
    return (
        f"AWS announces: {notice}; the host drains itself, and is back when that is over (playbooks/undrain.yml "
        "overrides it)"
    )


def first_out(plan: RolloutPlan) -> dict[str, list[int]]:
    """The instances that the first wave takes out: when a later one is out, the first one serves."""
    return {host: [one["index"] for one in plan.hosts[host]["instances"]] for host in (plan.waves or [[]])[0]}


def _drained_by_hand(mark: t.Mapping[str, t.Any]) -> str:
    reason = f" ({mark['reason']})" if mark.get("reason") else ""
    return f"an operator has drained it{reason}; playbooks/undrain.yml puts it back"


def _held(held: t.Mapping[str, str]) -> str:
    return f"its edge is held since {held['since']} ({held['why']}); site.yml or undrain.yml confirms its keys"


def _no_release(verb: str, host: str, problem: str) -> str:
    advice = {
        ROLLBACK: "Leave it out with -l, or deploy the version that you want with site.yml.",
        ROLLING_RESTART: "Deploy it first: site.yml.",
    }
    return f"{host}: {problem}. {advice.get(verb, '')}".strip()


def _moment(text: str) -> float:
    try:
        return times.seconds(text)
    except ValueError:
        return 0.0
