# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The next hosts of a rollout, or why there are none. Pure: the journal and the fleet's state in, a turn out."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.edge.state import AWS, OPERATOR, drained_by, leaving
from ansible_collections.inference.fleet.plugins.module_utils.rollout.claim import Claim
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer import health
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer import hosts as balancer_hosts
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import BalancerLook
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import capacity, contest, steps
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.alarms import AlarmVerdict
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.evidence import WORSE
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.plan import announced_there

REFUSE = "refuse"
SHRINK = "shrink"
FORCE = "force"
WHEN_SHORT = (REFUSE, SHRINK, FORCE)

DONE = "done"
UNREACHABLE = "unreachable"

#: What to do where a target group would lose its last healthy target.
LAST_ADVICE = (
    "Clients would get 503 from the balancer. Wait until another host is healthy there, take smaller waves "
    "(rollout_waves, or -e rollout_when_short=shrink), or accept the downtime: -e rollout_accept_downtime=true."
)

Events = list[dict[str, t.Any]]


@dataclasses.dataclass(frozen=True)
class WalkPolicy:
    """The limits of the walk; the names are those of role rollout's variables."""

    max_failures: int = 0
    when_short: str = REFUSE
    max_load: float = 0.9
    accept_downtime: bool = False
    pause: float = 0.0


@dataclasses.dataclass(frozen=True)
class FleetState:
    """The fleet now.

    Attributes:
        status: what module fleet_status returned for each host; None for one that did not answer.
        lost: hosts of the run that Ansible has dropped as unreachable.
        rollout_hosts: those of the run, which may run the gate's self-test.
        others: the claims of other rollouts, by host.
        alarms: what CloudWatch's alarms say, where they may stop the rollout.
        balancer: what the target groups say of the hosts.
        balancer_problem: why they could not be read; empty where they could.
        instances: those of each host, with index and port.
    """

    status: t.Mapping[str, dict[str, t.Any] | None]
    lost: t.Collection[str]
    rollout_hosts: t.Collection[str]
    others: t.Mapping[str, Claim] = dataclasses.field(default_factory=dict)
    alarms: AlarmVerdict = dataclasses.field(default_factory=AlarmVerdict)
    balancer: BalancerLook = dataclasses.field(default_factory=BalancerLook)
    balancer_problem: str = ""
    instances: t.Mapping[str, t.Sequence[t.Mapping[str, t.Any]]] = dataclasses.field(default_factory=dict)

    @property
    def serving(self) -> dict[str, list[capacity.InstanceLoad]]:
        """The instances that serve at their edges."""
        return {host: capacity.serving(status) for host, status in self.status.items()}

    @property
    def leaving(self) -> dict[str, str]:
        """The hosts that drain themselves for what AWS announces, and that."""
        said = {host: leaving((status or {}).get("drain") or {}) for host, status in self.status.items()}
        return {host: notice for host, notice in said.items() if notice}

    @property
    def reached(self) -> dict[str, list[capacity.InstanceLoad]]:
        """Those that clients reach: of a host that is not healthy in all its target groups, none."""
        return {host: loads if self.balancer.is_reachable(host) else [] for host, loads in self.serving.items()}

    def last_ones(self, out: t.Mapping[str, t.Collection[int]]) -> list[str]:
        """What taking these instances out would leave without a healthy target, as sentences."""
        gone = [
            one
            for host, indexes in out.items()
            for one in balancer_hosts.leaving(
                self.balancer, host, self.status.get(host), self.instances.get(host, ()), indexes
            )
        ]
        return health.last_ones(self.balancer, gone)


@dataclasses.dataclass
class Turn:
    """The next turn.

    Attributes:
        wave: number of the wave, from 1; 0 when there is none.
        waves: how many there are.
        hosts: to change now.
        left_out: those of the plan that drain themselves for what AWS announces, and with them those that share an
            instance.
        instances: for each of them, the indexes of the instances that are changed.
        self_test: the host on which the gate shows that it can fail; empty when it has, or no host can.
        finished: whether nothing is left to do.
        stop: why the rollout ends here; empty when it does not.
        news: events to write into the journal first, as names and fields.
        load: the fleet's load and limits, while a turn's hosts are out.
    """

    wave: int = 0
    waves: int = 0
    hosts: list[str] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)
    instances: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    self_test: str = ""
    finished: bool = False
    stop: str = ""
    news: list[tuple[str, dict[str, t.Any]]] = dataclasses.field(default_factory=list)
    load: dict[str, int] = dataclasses.field(default_factory=dict)


def this_run(events: Events) -> Events:
    """The events since the last begin or resume of the rollout."""
    starts = [number for number, event in enumerate(events) if event["event"] in ("begin", "resume")]
    return events[starts[-1] :] if starts else []


def outcomes(events: Events) -> dict[str, dict[str, t.Any]]:
    """The last outcome of each host in this run."""
    return {event["host"]: event for event in this_run(events) if event["event"] == "outcome"}


def wave_to_bake(events: Events) -> int:
    """The wave that has just ended and has not been watched yet; 0 where there is none."""
    run = this_run(events)
    baked = {event["wave"] for event in run if event["event"] == "pause"}
    turns = [event["wave"] for event in run if event["event"] == "turn"]
    had = outcomes(events)
    for number in sorted(set(turns), reverse=True):
        if number not in baked and all(host in had for host in run[0]["waves"][number - 1]):
            return int(number)
    return 0


def next_turn(events: Events, fleet: FleetState, policy: WalkPolicy) -> Turn:
    """The next turn."""
    run = this_run(events)
    planned: list[list[str]] = run[0]["waves"]
    had = outcomes(events)
    turn = Turn(waves=len(planned))
    leaves = _leaving(run, fleet)
    turn.news += [news for host in sorted(leaves) for news in _left(run, host, leaves[host])]
    turn.left_out = sorted(set(leaves) & {host for wave in planned for host in wave} - set(had))
    gone = {host: why for host, why in _gone(run, fleet, had).items() if host not in leaves}
    turn.news += [("outcome", {"host": host, "outcome": UNREACHABLE, "message": why}) for host, why in gone.items()]
    failed = {host: event["message"] for host, event in had.items() if event["outcome"] != DONE} | gone
    failed |= _fallen(fleet, had, {*failed, *leaves})
    if len(failed) > policy.max_failures:
        turn.stop = _stopped(failed, planned, had, policy)
        return turn
    if fleet.others:
        turn.stop = (
            f"The rollout stops here. {contest.refusal(fleet.others)} Two rollouts at once could take out every host. "
            f"{_rest(planned, had, failed)}Run the same command again when the other one is done: it goes on where "
            "this ended."
        )
        return turn
    turn.self_test = _self_test(run, fleet, failed)
    left = [[host for host in wave if host not in {*had, *failed, *turn.left_out}] for wave in planned]
    number = next((number for number, wave in enumerate(left, 1) if wave), 0)
    if not number:
        turn.finished = not turn.self_test
        return turn
    turn.wave = number
    known = {event.get("text") for event in run} | set(run[0].get("warnings", ()))
    turn.news += [_decision(note) for note in fleet.alarms.notes if note not in known]
    if fleet.alarms.stop:
        turn.stop = (
            f"The rollout stops before wave {number} of {turn.waves} ({', '.join(left[number - 1])}); nothing of it "
            f"was touched, and the fleet keeps serving. {fleet.alarms.stop} The same command goes on from here."
        )
        return turn
    if fleet.balancer_problem:
        turn.stop = (
            f"The rollout stops before wave {number} of {turn.waves} ({', '.join(left[number - 1])}); nothing of it "
            f"was touched, and the fleet keeps serving. The target groups cannot be read: {fleet.balancer_problem} The "
            "same command goes on from here."
        )
        return turn
    worse = next((event for event in run if event["event"] == "evidence" and event.get("verdict") == WORSE), None)
    if worse:
        turn.stop = (
            f"The rollout stops before wave {number} of {turn.waves} ({', '.join(left[number - 1])}); nothing of it "
            f"was touched, and the fleet keeps serving. {worse['text']} Find the cause, or go back with "
            "playbooks/rollback.yml; if the difference is expected, the same command goes on from here."
        )
        return turn
    _choose(turn, left[number - 1], run[0]["hosts"], fleet, policy)
    return turn


def untouched(events: Events, hosts: t.Iterable[str]) -> list[str]:
    """Those of ``hosts`` that no run of the rollout has changed or begun to change."""
    touched = {host for event in events if event["event"] == "turn" for host in event["hosts"]}
    touched |= {host for event in events if event["event"] == "resume" for host in event.get("done", ())}
    return [host for host in hosts if host not in touched]


def wave_hosts(events: Events, wave: int) -> list[str]:
    """The hosts of a wave that were changed in this run."""
    had = outcomes(events)
    return [host for host in this_run(events)[0]["waves"][wave - 1] if had.get(host, {}).get("outcome") == DONE]


def _leaving(run: Events, fleet: FleetState) -> dict[str, str]:
    """The run's hosts that AWS announces something for, and why they are left out; they may have ended already."""
    found = {host: announced_there(notice) for host, notice in fleet.leaving.items() if host in fleet.rollout_hosts}
    for event in run:
        host = event.get("leaving")
        if host and host not in found and (host in fleet.lost or fleet.status.get(host) is None):
            found[host] = str(event.get("reason"))
    planned = run[0]["hosts"]
    for host in list(found):
        for other in (planned.get(host) or {}).get("together", ()):
            found.setdefault(other, f"it shares an instance with {host}, and {found[host]}")
    return found


def _left(run: Events, host: str, reason: str) -> list[tuple[str, dict[str, t.Any]]]:
    """The event for a host that is left out; none where the run has it."""
    if any(event.get("leaving") == host and event.get("reason") == reason for event in run):
        return []
    return [("decision", {"text": f"{host} is left out: {reason}.", "leaving": host, "reason": reason})]


def _gone(run: Events, fleet: FleetState, had: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Hosts of the run that are unreachable, and where they were."""
    gone = {}
    for host in fleet.rollout_hosts:
        lost = host in fleet.lost or fleet.status.get(host) is None
        if lost and (host not in had or had[host]["outcome"] == DONE):
            taken = [event["step"] for event in run if event["event"] == "step" and event["host"] == host]
            where = f" in its step {steps.label(taken[-1])}" if taken and host not in had else ""
            gone[host] = (
                f"{host} does not answer any more{where}. Look at the host and its network; a host that is drained "
                "stays so until the same command is run again."
            )
    return gone


def _fallen(fleet: FleetState, had: t.Mapping[str, t.Any], failed: t.Collection[str]) -> dict[str, str]:
    """Hosts that were done but no longer serve."""
    serving = fleet.serving
    drains = {host: (status or {}).get("drain") or {} for host, status in fleet.status.items()}
    held = {host for host, drain in drains.items() if drained_by(drain) & {OPERATOR, AWS}}
    return {
        host: f"{host} came through its gate and serves no longer; playbooks/status.yml shows how it does."
        for host, event in had.items()
        if event["outcome"] == DONE and not serving.get(host) and host not in failed and host not in held
        if _has_requests(fleet.status.get(host))
    } | {
        host: f"{host} came through its gate and is no longer healthy in its target groups "
        f"({health.summarize(fleet.balancer, host)}), so clients do not reach it."
        for host, event in had.items()
        if event["outcome"] == DONE and serving.get(host) and host not in failed and host not in held
        if not fleet.balancer_problem and not fleet.balancer.is_reachable(host)
    }


def _has_requests(status: t.Mapping[str, t.Any] | None) -> bool:
    """Whether requests come to the host; those of an instance that spans hosts come to the first of them."""
    instances = (status or {}).get("instances") or []
    return not instances or any(not one.get("rank") for one in instances)


def _stopped(failed: dict[str, str], planned: list[list[str]], had: t.Mapping[str, t.Any], policy: WalkPolicy) -> str:
    why = " ".join(failed[host] for host in sorted(failed))
    allowed = f" ({policy.max_failures} allowed)" if policy.max_failures else ""
    return (
        f"The rollout stops here, {len(failed)} of its hosts failed{allowed}: {why} {_rest(planned, had, failed)}"
        "Fix the cause, then run the same command again: it resumes here."
    )


def _rest(planned: list[list[str]], had: t.Mapping[str, t.Any], failed: t.Collection[str]) -> str:
    untouched = [host for wave in planned for host in wave if host not in had and host not in failed]
    return f"Not touched: {', '.join(untouched)}. " if untouched else ""


def _self_test(run: Events, fleet: FleetState, failed: t.Collection[str]) -> str:
    if any(event["event"] == "self_test" and event["passed"] for event in run):
        return ""
    serving = fleet.serving
    return next((host for host in fleet.rollout_hosts if serving.get(host) and host not in failed), "")


def _choose(
    turn: Turn, candidates: list[str], hosts: t.Mapping[str, t.Any], fleet: FleetState, policy: WalkPolicy
) -> None:
    """The hosts of the turn: the wave's, or as many of them as the rest of the fleet can spare."""
    out = {host: [one["index"] for one in hosts[host]["instances"]] for host in candidates}
    serving = fleet.reached
    room = capacity.room(serving, out, policy.max_load)
    last = fleet.last_ones(out)
    chosen = candidates
    if room.enough and not last:
        pass
    elif (room.is_downtime or (room.enough and last)) and policy.accept_downtime:
        said = f"nothing else serves than {' and '.join(room.out)}." if room.is_downtime else " ".join(last)
        turn.news.append(_decision(f"Downtime was accepted: {said}"))
    elif policy.when_short == FORCE and not last:
        turn.news.append(_decision(f"{_short(room, policy)} It goes on: rollout_when_short is force."))
    else:
        chosen = []
        if policy.when_short == SHRINK:
            chosen = capacity.fitting(serving, out, policy.max_load, lambda part: not fleet.last_ones(part))
        # Of hosts that share an instance, all or none.
        chosen = [h for h in chosen if not set(hosts[h].get("together", ())) & (set(candidates) - set(chosen))]
        if not chosen:
            before = (
                f"The rollout stops before wave {turn.wave} of {turn.waves} ({', '.join(candidates)}); nothing of it "
                "was touched."
            )
            turn.stop = (
                f"{before} {' '.join(last)} {LAST_ADVICE}"
                if last
                else f"{before} {_short(room, policy)} Wait for a quieter hour, add hosts, take smaller waves "
                "(rollout_waves, or -e rollout_when_short=shrink), or go on all the same: -e rollout_when_short=force."
            )
            return
        room = capacity.room(serving, {host: out[host] for host in chosen}, policy.max_load)
        text = f"{len(chosen)} of {len(candidates)} hosts of wave {turn.wave} go first: the load lets no more be out."
        turn.news.append(_decision(text))
    turn.hosts = chosen
    turn.instances = {host: out[host] for host in chosen}
    turn.load = {**load_of(fleet.status), "limit": room.limit, "left": room.left}
    turn.news.append(("turn", {"wave": turn.wave, "waves": turn.waves, "hosts": chosen, "load": turn.load}))


def load_of(status: t.Mapping[str, dict[str, t.Any] | None]) -> dict[str, int]:
    """The requests in the fleet."""
    instances = [one for host in status.values() if host for one in host["instances"]]
    return {name: sum(one[name] or 0 for one in instances) for name in ("running", "waiting")}


def _decision(text: str) -> tuple[str, dict[str, t.Any]]:
    return "decision", {"text": text}


def _short(room: capacity.Room, policy: WalkPolicy) -> str:
    return (
        f"{room.busy} requests are in the fleet, and without {', '.join(room.out)} the rest works on {room.left} of "
        f"{room.limit} at once, of which rollout_max_load {policy.max_load:g} lets {room.allowed} be used."
    )
