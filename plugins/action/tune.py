# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of a search of settings; documented as module tune."""

from __future__ import annotations

import dataclasses
import json
import os
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import write_atomically
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import Result, plain
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.record import RecordAction, Run
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import records
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.scenarios import title
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.measured import ProfileUse
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import find_settings, profile_settings
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import change as changes
from ansible_collections.inference.fleet.plugins.plugin_utils.tune import profile_file, search, space, table, verdict
from ansible_collections.inference.fleet.plugins.plugin_utils.tune import settings as tuning

CHECKED, PLANNED, NEXT, TRIED, FOUND, RECORDED = "checked", "planned", "next", "tried", "found", "recorded"

#: Below the records of benchmarks.
FOLDER = "tuning"
_MODE = 0o600
#: Outcomes after which the instance runs what it was to run.
_STAYS = (changes.DONE, changes.UNRECORDED)
#: A reason in the journal and below the table; whole in the record.
_SAID = 240
#: A trial gets no less, however little of the budget is left.
_LEAST_SECONDS = 10.0

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "required": True, "choices": [CHECKED, PLANNED, NEXT, TRIED, FOUND, RECORDED]},
    "records": {"type": "path", "required": True},
    "settings": {"type": "dict", "default": {}},
    "profiles": {"type": "str", "default": ""},
    "profile": {"type": "str", "default": "balanced"},
    "gpu": {"type": "str", "default": ""},
    "hardware": {"type": "str", "default": ""},
    "instances": {"type": "list", "elements": "dict", "default": []},
    "checked": {"type": "dict", "default": {}},
    "start_timeout": {"type": "float", "default": 1200},
    "plan": {"type": "dict", "default": {}},
    "trials": {"type": "list", "elements": "dict", "default": []},
    "began": {"type": "float", "default": 0},
    "next": {"type": "dict", "default": {}},
    "tried": {"type": "dict", "default": {}},
    "results": {"type": "list", "elements": "dict", "default": []},
    "broken": {"type": "str", "default": ""},
}


@dataclasses.dataclass(frozen=True)
class _Search:
    """A search as its plan has it, with the trials so far."""

    plan: dict[str, t.Any]
    settings: tuning.TuningSettings
    options: list[space.SearchOption]
    judged: list[verdict.JudgedTrial]

    @property
    def engine(self) -> str:
        return str(self.plan["engine"])

    @property
    def goal(self) -> verdict.TuningGoal:
        return self.settings.goal

    @property
    def budget(self) -> search.TuningBudget:
        return search.TuningBudget(**self.plan["budget"])

    @property
    def winner(self) -> verdict.JudgedTrial | None:
        return search.find_winner(self.options, self.judged, self.goal)


class TuningRun(Run):
    """One method for each state."""

    def checked(self) -> Result:
        """Validate the settings, before any host is asked."""
        settings = tuning.read_settings(self._arguments["settings"])
        host = self._hosts[0]
        instance = tuning.choose_instance(self._arguments["instances"], settings, host)
        engine, hardware = str(instance["engine"]), self._arguments["hardware"]
        directory, profile = self._arguments["profiles"], self._arguments["profile"]
        name = settings.profile or profile_file.default_name(hardware or self._arguments["gpu"], settings.goal.name)
        profile_file.check_place(directory, name)
        records.check_room(self._records)
        use = ProfileUse(directory=directory, gpu=hardware)
        baseline = find_settings(profile, engine, self._arguments["gpu"], use).values
        options = space.search_space(engine, baseline, settings.lossy)
        return {
            "instance": instance,
            "engine": engine,
            "scenario": settings.goal.scenario,
            "repeats": settings.repeats,
            "name": name,
            "hardware": hardware or self._arguments["gpu"],
            "gpu": self._arguments["gpu"],
            "profile": profile,
            "base": profile_file.base_of(profile, directory, engine),
            "baseline": baseline,
            "probes": space.probes(options),
        }

    def planned(self) -> Result:
        """Decide what is searched, before anything is touched."""
        settings = tuning.read_settings(self._arguments["settings"])
        checked, host = self._arguments["checked"], self._hosts[0]
        kept = plain(self._of(host, "tune_kept"))["instances"][0]
        wanted = plain(self._of(host, "engine_trials_staged"))[0]
        name = checked["instance"]["name"]
        options = space.search_space(checked["engine"], checked["baseline"], settings.lossy)
        without = space.without_effect(options, plain(self._of(host, "engine_described", [])))
        options = [option for option in options if option.name not in without]
        claim = (plain(self._of(host, "rollout_status")) or {}).get("rollout") or {}
        last_start = float((claim.get("seconds") or {}).get(name) or 0)
        budget = tuning.estimate(settings, last_start)
        variables = [f"{checked['engine']}_{one}" for one in without]
        set_here = (
            f"Not varied, because the variable is set for {host} and precedes every profile: {', '.join(variables)}."
            if without
            else ""
        )
        problems = [kept["problem"]] if kept["problem"] else []
        if not problems and kept["release"] != wanted["release"]:
            problems.append(
                f"{name} has {kept['release']}, and the variables of {host} say {wanted['release']}: run site.yml -l "
                f"{host} first, so that what is compared differs in what is tried alone."
            )
        if not problems and kept["good"] != kept["release"]:
            problems.append(f"{kept['release']} of {name} has not passed the gate; site.yml -l {host} gates it.")
        if not options:
            problems.append(f"There is nothing to vary on {name}. {set_here}".strip())
        problems += filter(None, [tuning.budget_problem(settings, budget, last_start)])
        if problems:
            raise FleetError(f"Nothing was touched. {' '.join(problems)}")
        return {
            **{key: checked[key] for key in ("engine", "instance", "name", "hardware", "gpu", "profile", "base")},
            "run": plain(self._of(host, "benchmark_planned"))["run"],
            "host": host,
            "settings": self._arguments["settings"],
            "profiles": self._arguments["profiles"] or "",
            "baseline": checked["baseline"],
            "without": without,
            "release": kept["release"],
            "served": plain(self._of(host, "benchmark_checked"))["instances"][name],
            "budget": dataclasses.asdict(budget),
            "start_timeout": self._arguments["start_timeout"],
            "turns": tuning.count_turns(options),
            "lines": self._lines(settings, checked, options, set_here),
        }

    def next(self) -> Result:
        """Decide what is tried next."""
        found = self._search()
        spent = time.time() - self._arguments["began"]
        number = len(found.judged)
        state = search.replay(found.options, found.judged, found.goal)
        start, measuring = found.budget.expected(found.judged)
        back = found.budget.way_back(spent, found.judged)
        ended = ""
        if found.judged and (found.judged[0].figure is None or found.judged[0].problem):
            ended = f"The search ends: the baseline has no figures ({found.judged[0].problem})."
        elif state.further is None:
            ended = "The search ends: everything that it looks at was tried."
        elif number and not found.budget.holds_another(spent, found.judged):
            ended = (
                f"The search ends: after {spent / 60:.1f} of {found.budget.seconds / 60:g} minutes another trial of "
                f"about {start + measuring:.0f} s would not fit, with {back:.0f} s for the way back."
            )
        if ended:
            return {"finished": True, "said": ended}
        changes_ = state.further or {}
        left = max(0.0, found.budget.seconds - spent - back)
        repeats = found.settings.repeats
        return {
            "finished": False,
            "number": number,
            "name": f"trial-{number}",
            "changes": changes_,
            "at": time.time(),
            "said": f"Trial {number}: {space.described(found.engine, changes_)}.",
            # What hangs is broken off in time for the way back; what is slow, too.
            "start_timeout": max(_LEAST_SECONDS, min(float(found.plan["start_timeout"]), left)),
            "measuring_timeout": max(_LEAST_SECONDS, left - start - measuring * (repeats - 1) / repeats),
        }

    def tried(self) -> Result:
        """Add a trial to the others."""
        wanted, tried = self._arguments["next"], self._arguments["tried"]
        now, measuring = time.time(), float(tried.get("measuring") or 0)
        results = self._arguments["results"]
        done = bool(tried.get("done")) and bool(results)
        trial = verdict.Trial(
            number=wanted["number"],
            changes=wanted["changes"],
            outcome=verdict.MEASURED if done else str(tried.get("step") or "measure"),
            problem="" if done else str(tried.get("problem") or "nothing was measured"),
            measured=results[0] if done else {},
            seconds=round(now - self._arguments["began"], 1),
            measuring_seconds=round(now - measuring, 1) if measuring else 0.0,
            release=str(tried.get("release") or ""),
        )
        trials = [*self._arguments["trials"], dataclasses.asdict(trial)]
        found = self._search(trials)
        last = found.judged[-1]
        said = table.verdict(found.judged[0], last, found.goal, _SAID)
        return {"trials": trials, "said": f"Trial {trial.number}, after {trial.seconds:.0f} s: {said}."}

    def found(self) -> Result:
        """Find the winner, and the release that the instance is to run."""
        found = self._search()
        winner = found.winner
        keeps = winner.trial.release if winner and found.settings.keep else found.plan["release"]
        said = table.won(found.engine, found.judged[0], winner, found.goal) if winner else _nothing(found)
        return {"winner": winner.trial.number if winner else None, "keeps": keeps, "said": said}

    def recorded(self) -> Result:
        """Keep what was tried, and write the profile of what won."""
        found = self._search()
        if not found.judged:
            broken = self._arguments["broken"]
            problem = f"Nothing was measured. {broken}".strip() if broken else ""
            return {"rows": [], "columns": [], "lines": [], "record": "", "profile": "", "problem": problem}
        host = str(found.plan["host"])
        change = plain(self._of(host, "engine_change", {}))
        winner = found.winner
        # It won, and failed when it was to stay.
        fell = bool(winner and found.settings.keep and change.get("outcome") not in _STAYS)
        won = None if fell else winner
        rows, columns = table.rows(found.engine, found.judged, found.goal, won)
        profile = ""
        if won and not self._check:
            profile = self._write_profile(found, won)
        record = "" if self._check else self._write_record(found, won, profile, str(change.get("outcome") or ""))
        lines = [*table.problems(found.engine, found.judged, _SAID), *self._conclusion(found, won, fell, profile, host)]
        lines += [f"record: {record}"] if record else []
        problem = self._arguments["broken"]
        if not problem and (found.judged[0].figure is None or found.judged[0].problem):
            problem = f"the baseline has no figures ({found.judged[0].problem})"
        said = f"The search on {host} broke off: {problem}" if problem else ""
        return {
            "rows": rows,
            "columns": columns,
            "lines": lines,
            "record": record,
            "profile": profile,
            "problem": said,
        }

    def _search(self, trials: list[dict[str, t.Any]] | None = None) -> _Search:
        plan = self._arguments["plan"]
        settings = tuning.read_settings(plan["settings"])
        options = space.search_space(plan["engine"], plan["baseline"], settings.lossy, plan["without"])
        given = self._arguments["trials"] if trials is None else trials
        judged = [verdict.judge(verdict.Trial(**trial), settings.goal, settings.limits) for trial in given]
        return _Search(plan, settings, options, judged)

    @staticmethod
    def _lines(
        settings: tuning.TuningSettings,
        checked: dict[str, t.Any],
        options: t.Sequence[space.SearchOption],
        set_here: str,
    ) -> list[str]:
        limits = ", ".join(f"{limit.title} at most {limit.most:g} s" for limit in settings.limits) or "no limits"
        varied = "; ".join(
            f"{checked['engine']}_{option.name} {', '.join(map(_value, option.values))}" for option in options
        )
        lines = [
            f"Searches on {checked['instance']['name']} for the {settings.goal.said}, {title(settings.goal.scenario)}, "
            f"with {limits}, in {settings.minutes:g} minutes.",
            f"Varies, from the profile {checked['profile']}: {varied}.",
        ]
        return [*lines, *([set_here] if set_here else [])]

    def _conclusion(
        self, found: _Search, won: verdict.JudgedTrial | None, fell: bool, profile: str, host: str
    ) -> list[str]:
        spent = sum(one.trial.seconds for one in found.judged) / 60
        lines = [f"Tried {len(found.judged) - 1} other settings in {spent:.1f} of {found.settings.minutes:g} minutes."]
        if fell:
            return [
                *lines,
                "What was best did not pass when it was to stay, so nothing won and no profile was written.",
            ]
        if not won:
            return [*lines, _nothing(found)]
        lines.append(f"Won: {table.won(found.engine, found.judged[0], won, found.goal)}.")
        if profile:
            lines.append(f"Written: {profile}. To use it: engine_profile: {found.plan['name']}")
        if found.settings.keep:
            lines.append(
                f"{host} keeps it until the next site.yml, which deploys what the variables say: set engine_profile."
            )
        return lines

    def _write_profile(self, found: _Search, won: verdict.JudgedTrial) -> str:
        plan, goal, baseline = found.plan, found.goal, found.judged[0]
        served = plan["served"]
        base = profile_settings(plan["base"], found.engine, plan["gpu"])
        final = {**plan["baseline"], **won.trial.changes}
        settings = {name: value for name, value in final.items() if base.get(name) != value or name not in base}
        gain = table.gain(baseline, won, goal)
        about = {
            "version": served["version"],
            "model": served["model"],
            "revision": served["revision"],
            "gpu": plan["hardware"] or "unknown",
            "base": plan["base"],
            "tune_for": goal.name,
            "run": plan["run"],
            "at": times.now(),
            "host": plan["host"],
            "limits": {limit.variable: limit.most for limit in found.settings.limits},
            "load": won.trial.measured.get("scenario") or {},
            "figures": table.figures_of(baseline, won, goal),
        }
        part = profile_file.make_part(about, settings, f"Run {plan['run']} on {plan['host']}: {gain}.")
        return profile_file.write(plan["profiles"], plan["name"], found.engine, part)

    def _write_record(self, found: _Search, won: verdict.JudgedTrial | None, profile: str, outcome: str) -> str:
        plan = found.plan
        folder = os.path.join(self._records, FOLDER, records.file_name(str(plan["host"])))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, f"{plan['run']}.json")
        document = {
            "schema": 1,
            "id": plan["run"],
            "at": times.now(),
            "host": plan["host"],
            "instance": plan["instance"]["name"],
            **{name: plan["served"].get(name, "") for name in ("engine", "version", "model", "revision", "release")},
            "gpu": plan["hardware"],
            "profile": plan["profile"],
            "settings": plan["settings"],
            "baseline": plan["baseline"],
            "not_varied": plan["without"],
            "budget": plan["budget"],
            "trials": [
                {
                    **dataclasses.asdict(one.trial),
                    "verdict": table.verdict(found.judged[0], one, found.goal),
                    "broken": list(one.broken),
                }
                for one in found.judged
            ],
            "winner": won.trial.number if won else None,
            "written": profile,
            "outcome": outcome,
            "broken_off": self._arguments["broken"],
        }
        write_atomically(path, json.dumps(document, indent=1) + "\n", _MODE)
        records.keep_last(folder, found.settings.keep_records)
        return path


def _nothing(found: _Search) -> str:
    """Why nothing won."""
    if not found.judged or found.judged[0].figure is None or found.judged[0].problem:
        return "Nothing won: there are no figures of the settings as they are."
    if found.judged[0].broken and not any(one.may_win for one in found.judged):
        return f"Nothing won: no settings keep the limits; as it is, {'; '.join(found.judged[0].broken)}."
    return f"Nothing won: of what was tried, nothing has the {found.goal.said} by more than the repeats differ."


def _value(value: t.Any) -> str:
    return "its own" if value is None else str(value)


class ActionModule(RecordAction):
    """See module tune."""

    ARGUMENTS = ARGUMENTS
    RUN = TuningRun
    RECORD = "search"
    ADVICE = "Free the disk, correct the directory's rights, or set benchmark_records or engine_profiles."
