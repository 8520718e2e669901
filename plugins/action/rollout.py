# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of a rollout; documented as module rollout."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.rollout import claim as rollout_claim
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import Result, plain
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.record import RecordAction, Run
from ansible_collections.inference.fleet.plugins.plugin_utils.aws import alarms as aws_alarms
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import read_look
from ansible_collections.inference.fleet.plugins.plugin_utils.report import files
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import (
    alarms,
    contest,
    evidence,
    lock,
    reach,
    walk,
    waves,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal as rollout_journal
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import outcome as rollout_outcome
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import plan as rollout_plan

STATES = (
    "locked",
    "known",
    "planned",
    "contested",
    "begun",
    "watched",
    "baked",
    "compared",
    "next",
    "turned",
    "ended",
)

#: What two readings of module serving_counters are compared by.
_COUNTED = ("at", "edge", "instances")

_TAKE_OVER = "Wait until it is done. If you are sure that it is dead: -e rollout_take_over=true."

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "required": True, "choices": list(STATES)},
    "records": {"type": "path", "required": True},
    "verb": {"type": "str", "default": rollout_plan.SITE, "choices": list(rollout_plan.VERBS)},
    "waves": {"type": "raw"},
    "resume": {"type": "bool", "default": True},
    "resume_within": {"type": "float", "default": 86400},
    "take_over": {"type": "bool", "default": False},
    "wait": {"type": "float", "default": 0},
    "accept_downtime": {"type": "bool", "default": False},
    "accept_no_way_back": {"type": "bool", "default": False},
    "max_load": {"type": "float", "default": 0.9},
    "max_failures": {"type": "int", "default": 0},
    "when_short": {"type": "str", "default": walk.REFUSE, "choices": list(walk.WHEN_SHORT)},
    "pause": {"type": "float", "default": 0},
    "stop_on_alarms": {"type": "raw"},
    "max_regression": {"type": "raw"},
    "wave": {"type": "int", "default": 0},
    "counters": {"type": "dict"},
    "fleet": {"type": "list", "elements": "str", "default": []},
    "plan": {"type": "dict"},
    "looks": {"type": "int", "default": 0},
    "walking": {"type": "bool", "default": False},
    "balancer": {"type": "dict"},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "message": {"type": "str", "default": ""},
    "traffic": {"type": "dict"},
}


class Rollout(Run):
    """One method for each state: what it reads from the run's hosts, and what it writes to the record."""

    def __init__(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any], check: bool) -> None:
        super().__init__(arguments, task_vars, check)
        self._who = lock.person()
        self._controller = f"{socket.gethostname()}:{self._records}"

    def locked(self) -> Result:
        """Lock out every other run on this controller; validate the settings first."""
        waves.check_waves(self._arguments["waves"])
        evidence.check_limit(self._arguments["max_regression"])
        # An alarm that cannot be read ends the run here, and not after an hour of preparation.
        self._look_at_alarms(self._arguments["verb"])
        if self._check:
            holder = lock.current(self._records)
            return {"held_by": dataclasses.asdict(holder) if holder else None, "controller": self._controller}
        take_over, wait = self._arguments["take_over"], self._arguments["wait"]
        left_behind = lock.acquire_patiently(self._records, self._holder(), take_over, wait)
        left = dataclasses.asdict(left_behind) if left_behind else None
        return {"held_by": None, "left_behind": left, "controller": self._controller}

    def known(self) -> Result:
        """Who changes the fleet from this controller now, if any, and how rollouts name this controller."""
        holder = lock.current(self._records)
        return {"held_by": dataclasses.asdict(holder) if holder else None, "controller": self._controller}

    def planned(self) -> Result:
        """Compute what the rollout would do."""
        now = time.time()
        settings = rollout_plan.RolloutSettings(
            **{name: self._arguments[name] for name in ("verb", "waves", "resume", "resume_within", "max_load")},
            **{name: self._arguments[name] for name in ("accept_downtime", "accept_no_way_back")},
        )
        canary = self._vars.get("groups", {}).get("ring_canary", [])
        plan = rollout_plan.make(settings, {host: self._facts(host) for host in self._hosts}, canary, now)
        # A resumed rollout has accepted its conditions at its beginning.
        fleet = self._fleet_state(self._status())
        downtime = "" if settings.accept_downtime else rollout_plan.downtime(plan, fleet.reached)
        if downtime:
            # The forecast does not register what an earlier run left out, which may be all that is missing.
            forecast = self._check and not rollout_plan.downtime(plan, fleet.serving)
            (plan.warnings if forecast else plan.refusals).append(downtime)
        against_groups = reach.refused_by_groups(plan, fleet, settings.accept_downtime or bool(downtime))
        (plan.warnings if self._check else plan.refusals).extend(against_groups)
        plan.warnings += reach.not_reached(fleet)
        look = self._look_at_alarms(settings.verb) if plan.hosts else alarms.AlarmVerdict()
        plan.warnings += look.notes
        if look.stop:
            # The alarm may be over when the forecast is carried out.
            (plan.warnings if self._check else plan.refusals).append(look.stop)
        against = contest.others(self._claims(), self._controller)
        if against and plan.hosts and not self._arguments["take_over"]:
            said = f"{contest.refusal(against)} {_TAKE_OVER}"
            # The forecast holds all the same.
            (plan.warnings if self._check else plan.refusals).append(said)
        resumed = bool(plan.id)
        plan.id = plan.id or f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{settings.verb}"
        shrinking = self._arguments["when_short"] == walk.SHRINK
        return {
            "changed": self._check and bool(plan.hosts),
            "plan": {
                **dataclasses.asdict(plan),
                "verb": settings.verb,
                "resumed": resumed,
                "since": times.moment(now),
                "who": self._who,
                "controller": self._controller,
                "targets": plan.targets,
                "taken_over": {
                    host: {"id": claim.id, "controller": claim.controller}
                    for host, claim in against.items()
                    if self._arguments["take_over"]
                },
                "expected_seconds": rollout_plan.expected_seconds(plan),
                # An upper bound: the waves, or the hosts one by one, the gate's self-test, and the end.
                "turns": (len(plan.hosts) if shrinking else len(plan.waves)) + 2,
                "rows": self._rows(plan),
            },
        }

    def contested(self) -> Result:
        """Check whether another rollout holds hosts of this tier, after this one's are claimed; look again where that
        one must give way.
        """
        asked = {host: plain(self._of(host, "rollout_claimed", {})).get("refused") for host in self._plan["hosts"]}
        refused = {host: claim for host, one in asked.items() if one and (claim := rollout_claim.parse(one))}
        walking = self._arguments["walking"]
        against = {} if refused and not walking else self._others()
        looks = contest.LOOKS_WALKING if walking else contest.LOOKS_ASKING
        gives_way = bool(refused) or contest.gives_way(self._claims(), self._controller, against)
        if against and (walking or not gives_way) and self._arguments["looks"] < looks:
            time.sleep(contest.PAUSE)
            return {"refused": "", "again": True, "looks": self._arguments["looks"] + 1}
        # Once it walks, the next turn decides: the reason for a stop is in its journal.
        said = "" if walking else contest.refusal(refused or against)
        return {"refused": f"{said} Nothing was touched. {_TAKE_OVER}" if said else "", "again": False, "looks": 0}

    def begun(self) -> Result:
        """Open the record, or continue it; the hosts belong to this rollout."""
        plan = self._plan
        journal = self._journal
        offset = rollout_journal.size(journal)
        os.makedirs(os.path.dirname(journal), mode=0o700, exist_ok=True)
        shared = {"who": self._who, "controller": self._controller, "pid": self._pid}
        shared |= {name: plan[name] for name in ("waves", "hosts", "left_out", "warnings")}
        limits = ("max_failures", "when_short", "max_load", "stop_on_alarms")
        settings = ("waves", *limits, "pause", "max_regression", "accept_downtime", "take_over")
        if offset:
            rollout_journal.append(journal, "resume", done=plan["done"], **shared)
        else:
            variables = {f"rollout_{name}": plain(self._arguments[name]) for name in settings}
            fields = {"id": plan["id"], "verb": plan["verb"], "variables": variables}
            rollout_journal.append(journal, "begin", **fields, **shared)
        return {"journal": journal, "journal_offset": offset, "pid": self._pid}

    def watched(self) -> Result:
        """Whether there is a wave to compare: one that has just ended, and is followed by others."""
        events = rollout_journal.read(self._journal)
        wave = walk.wave_to_bake(events) if self._arguments["pause"] > 0 else 0
        limit = evidence.check_limit(self._arguments["max_regression"])
        # A rollback is the way out of a release that is worse.
        compares = limit is not None and self._plan["verb"] != rollout_plan.ROLLBACK
        return {"wave": wave if wave and compares and walk.wave_hosts(events, wave) else 0}

    def baked(self) -> Result:
        """Watch a wave that has just ended, for the configured pause."""
        counters = self._counters()
        events = rollout_journal.read(self._journal)
        seconds = self._arguments["pause"]
        wave = walk.wave_to_bake(events) if seconds > 0 else 0
        if wave:
            rollout_journal.append(self._journal, "pause", wave=wave, seconds=seconds)
            time.sleep(seconds)
        return {"wave": wave, "counters": counters}

    def compared(self) -> Result:
        """Compare the wave that was watched with the untouched hosts, and record it."""
        events, wave = rollout_journal.read(self._journal), self._arguments["wave"]
        limit = evidence.check_limit(self._arguments["max_regression"])
        if not wave or limit is None:
            return {"verdict": "", "text": ""}
        before, after, status = self._arguments["counters"] or {}, self._counters(), self._status()

        def read(hosts: t.Iterable[str]) -> list[evidence.HostCounters]:
            return [
                evidence.HostCounters(host, self._kind(host, status[host]), before.get(host), after.get(host))
                for host in hosts
            ]

        serving = [host for host, loads in self._fleet_state(status).serving.items() if loads]
        found = evidence.compare(read(walk.wave_hosts(events, wave)), read(walk.untouched(events, serving)), limit)
        rollout_journal.append(self._journal, "evidence", wave=wave, limit=limit, **found)
        return {"verdict": found["verdict"], "text": found["text"]}

    def next(self) -> Result:
        """Decide which hosts are changed now."""
        names = ("max_failures", "when_short", "max_load", "accept_downtime", "pause")
        policy = walk.WalkPolicy(**{name: self._arguments[name] for name in names})
        status = self._status()
        rollout_journal.append(self._journal, "load", hosts={host: _load(one) for host, one in status.items()})
        try:
            look = self._look_at_alarms(self._plan["verb"])
        except FleetError as error:
            look = alarms.unreadable(error.message)
        fleet = dataclasses.replace(self._fleet_state(status), others=self._others(), alarms=look)
        turn = walk.next_turn(rollout_journal.read(self._journal), fleet, policy)
        for event, fields in turn.news:
            rollout_journal.append(self._journal, event, **fields)
        return {name: value for name, value in dataclasses.asdict(turn).items() if name != "news"}

    def turned(self) -> Result:
        """Record how the turn went on each of its hosts."""
        look = self._arguments["balancer"] or {}
        registered = read_look(look.get("look"))
        problem = str(look.get("problem") or "")
        for host in self._arguments["hosts"]:
            if host in self._lost:
                # The next turn says where they were lost.
                continue
            change = plain(self._of(host, "engine_change", {}))
            outcome, message = rollout_outcome.judge(
                rollout_outcome.HostTurn(
                    host=host,
                    outcome=str(change.get("outcome") or ""),
                    message=str(change.get("message") or ""),
                    problem=str((look.get("problems") or {}).get(host) or problem),
                    missing=[one.group.name for one in registered.missing([host])],
                    held_by=str(change.get("held_by") or ""),
                )
            )
            rollout_journal.append(self._journal, "outcome", host=host, outcome=outcome, message=message)
        return {}

    def ended(self) -> Result:
        """Close the record and release the lock; fail if the rollout failed."""
        message = self._arguments["message"] or self._unproved()
        page = ""
        if not self._check:
            if self._arguments["plan"] and self._plan["hosts"]:
                directory = os.path.dirname(self._journal)
                if self._arguments["traffic"]:
                    rollout_journal.append(self._journal, "traffic", report=plain(self._arguments["traffic"]))
                outcome = "stopped" if message else "finished"
                rollout_journal.append(self._journal, "end", outcome=outcome, message=message)
                files.write(directory, alive=True)
                page = os.path.join(directory, "index.html")
            lock.release(self._records, self._holder())
        return {"failed": bool(message), "msg": message or "Every host that takes part answers.", "page": page}

    def _unproved(self) -> str:
        """The hosts that did not pass the final gate."""
        lost = [f"{host} does not answer." for host in self._hosts if host in self._lost]
        reports = {host: plain(self._of(host, "rollout_proof", "")) for host in self._hosts if host not in self._lost}
        failed = [f"{host}: {report}" for host, report in reports.items() if report]
        if not lost and not failed:
            return ""
        return (
            f"Not every host answers at the end: {' '.join(lost + failed)} "
            "Fix the cause, then run the same command again."
        )

    @property
    def _plan(self) -> dict[str, t.Any]:
        return t.cast(dict[str, t.Any], plain(self._arguments["plan"]))

    @property
    def _journal(self) -> str:
        return os.path.join(self._records, self._plan["id"], rollout_journal.NAME)

    def _status(self) -> dict[str, dict[str, t.Any] | None]:
        """The fleet at the last look: the run's hosts, and those beyond --limit."""
        status = {host: self._answered(plain(self._of(host, "rollout_status"))) for host in self._hosts}
        beyond = plain(self._vars.get("rollout_status_beyond") or {}).get("results", [])
        return {**{one["__rollout_host"]: self._answered(one) for one in beyond}, **status}

    def _counters(self) -> dict[str, dict[str, t.Any]]:
        """The last reading of what each host has counted."""
        found = {host: plain(self._of(host, "rollout_counters", {})) for host in self._hosts}
        beyond = plain(self._vars.get("rollout_counters_beyond") or {}).get("results", [])
        read = {**{one["__rollout_host"]: one for one in beyond}, **found}
        return {
            host: {name: one[name] for name in _COUNTED}
            for host, one in read.items()
            # Of a host that was lost, it is an earlier reading.
            if "edge" in one and host not in self._lost
        }

    def _kind(self, host: str, status: dict[str, t.Any] | None) -> str:
        """What a host has in common with those that it is compared with."""
        instances = (status or {}).get("instances", [])
        # Not the served name: clients' name for it stays when the model changes.
        models = sorted({str(one.get("model") or "") for one in instances})
        hardware = str(self._of(host, "fleet_instance_type", "") or "")
        return " on ".join(filter(None, (", ".join(models), hardware)))

    def _fleet_state(self, status: dict[str, dict[str, t.Any] | None]) -> walk.FleetState:
        look = self._arguments["balancer"] or {}
        return walk.FleetState(
            status,
            self._lost,
            self._hosts,
            balancer=read_look(look.get("look")),
            balancer_problem=str(look.get("problem") or ""),
            instances={host: plain(self._of(host, "rollout_facts", {})).get("instances", []) for host in self._hosts},
        )

    def _look_at_alarms(self, verb: str) -> alarms.AlarmVerdict:
        """What the alarms say now.

        Raises:
            FleetError: they cannot be read, or one does not exist.
        """
        names = alarms.check_names(self._arguments["stop_on_alarms"])
        # A rollback is the way out of a release that raises alarms.
        if not names or verb == rollout_plan.ROLLBACK:
            return alarms.AlarmVerdict()
        own = [{"fleet_region": self._of(host, "fleet_region")} for host in {*self._hosts, *self._arguments["fleet"]}]
        regions = aws_alarms.regions_of(own)
        found = aws_alarms.read_alarms(names, regions)
        gone = alarms.missing(names, found, regions)
        if gone:
            raise FleetError(f"{gone} Correct {alarms.VARIABLE}, or make the alarm.")
        return alarms.judge(found)

    def _claims(self) -> dict[str, rollout_claim.Claim | None]:
        """The rollout that each reachable host of this tier is in."""
        return {host: rollout_claim.parse((status or {}).get("rollout")) for host, status in self._status().items()}

    def _others(self) -> dict[str, rollout_claim.Claim]:
        """The claims of other rollouts, except those that this one took over."""
        dead = {(one["id"], one["controller"]) for one in self._plan["taken_over"].values()}
        return contest.others(self._claims(), self._controller, dead)

    @staticmethod
    def _answered(status: t.Any) -> dict[str, t.Any] | None:
        return status if status and "instances" in status else None

    def _facts(self, host: str) -> rollout_plan.HostState:
        facts = plain(self._of(host, "rollout_facts", {}))
        status = self._answered(plain(self._of(host, "rollout_status")))
        names = {int(one["index"]): one["name"] for one in facts.get("instances", [])}
        claim = rollout_claim.parse((status or {}).get("rollout"))
        spans = {int(one["index"]): one["span"]["nodes"] for one in facts.get("instances", []) if one.get("span")}
        return rollout_plan.HostState(facts.get("staged", []), names, status, claim, spans)

    def _holder(self) -> lock.LockHolder:
        since = times.now()
        return lock.holder_of(self._pid, self._who, self._arguments["verb"], since)

    @staticmethod
    def _rows(plan: rollout_plan.RolloutPlan) -> list[dict[str, t.Any]]:
        """The plan's lines for a person, one for each instance."""
        rows = []
        for host, planned in sorted(plan.hosts.items(), key=lambda item: item[1]["wave"]):
            for number, one in enumerate(planned["instances"]):
                seconds = planned["expected_seconds"]
                minutes = "unknown" if seconds is None else f"{seconds / 60:.1f}"
                last = {"minutes": minutes if number == 0 else ""}
                row = {"wave": planned["wave"], "host": host, "instance": one["name"], "action": one["action"]}
                rows.append({**row, "why": one["reason"], **last})
        return rows + [
            {"wave": "-", "host": name, "action": "left out", "why": why} for name, why in plan.left_out.items()
        ]


class ActionModule(RecordAction):
    """See module rollout."""

    ARGUMENTS = ARGUMENTS
    RUN = Rollout
    RECORD = "rollout"
    ADVICE = "Free the disk, correct the directory's rights, or set rollout_records."


def _load(status: dict[str, t.Any] | None) -> dict[str, t.Any]:
    if status is None:
        return {"health": None, "running": 0, "waiting": 0, "limit": 0, "responses": None}
    instances = status["instances"]
    summed = {name: sum(one[name] or 0 for one in instances) for name in ("running", "waiting", "limit")}
    return {"health": status["edge"]["health"], **summed, "responses": status["edge"]["responses"]}
