# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of a benchmark; documented as module benchmark."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import Result, plain
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.record import RecordAction, Run
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import records, scenarios, table
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.cost import instance_price
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.page import render_page
from ansible_collections.inference.fleet.plugins.plugin_utils.prices import hourly
from ansible_collections.inference.fleet.plugins.plugin_utils.prices import table as price_table

PLANNED, RECORDED = "planned", "recorded"

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "required": True, "choices": [PLANNED, RECORDED]},
    "records": {"type": "path", "required": True},
    "settings": {"type": "dict", "default": {}},
    "live": {"type": "bool", "default": False},
    "pictures": {"type": "bool", "default": True},
    "plan": {"type": "dict", "default": {}},
}


class BenchmarkRecords(Run):
    """One method for each state."""

    def planned(self) -> Result:
        """Decide what is measured on each instance, before anything is touched."""
        settings = scenarios.read_settings(self._arguments["settings"])
        records.check_room(self._records)
        problems = []
        planned: dict[str, dict[str, t.Any]] = {}
        for host in self._hosts:
            checked = plain(self._of(host, "benchmark_checked", {}))
            if host in self._lost or "instances" not in checked:
                problems.append(f"{host} does not answer.")
                continue
            problems += [f"{host}: {problem}" for problem in checked["problems"]]
            planned[host] = {}
            for name, served in checked["instances"].items():
                pictures, live = self._arguments["pictures"], self._arguments["live"]
                plan = scenarios.plan(settings, int(served["context"]), pictures, live)
                problems += [f"{host} {name}: {problem}" for problem in plan.problems]
                planned[host][name] = {
                    "scenarios": [dataclasses.asdict(load) for load in plan.scenarios],
                    "left_out": plan.left_out,
                }
        if problems:
            raise FleetError(f"Nothing was touched. {' '.join(problems)}")
        return {
            "run": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "hosts": planned,
            "repeats": settings.repeats,
            "lines": [
                f"{host} {name}, not measured: {title}"
                for host, own in planned.items()
                for name, one in own.items()
                for title in [_left(one["left_out"])]
                if title
            ],
        }

    def recorded(self) -> Result:
        """Keep what was measured, compare it, and write the page."""
        settings = scenarios.read_settings(self._arguments["settings"])
        run = str(self._arguments["plan"]["run"])
        made = [record for host in self._hosts for record in self._records_of(host)]
        before = [records.previous(self._records, record) for record in made]
        at = times.now()
        page = ""
        if made and not self._check:
            for record in made:
                records.write(self._records, record, settings.keep)
            page = records.write_page(self._records, run, render_page(run, at, made, before), settings.keep)
        rows, columns = _terminal(made, before)
        failed = [
            f"{table.label(one)}: {scenarios.title(name)}: {measured.get('problem') or 'no reason given'}"
            for one in made
            for name, measured in one["measured"].items()
            if not measured["repeats"]
        ]
        return {"rows": rows, "columns": columns, "notes": table.notes(made), "page": page, "unmeasured": failed}

    def _records_of(self, host: str) -> list[records.BenchmarkRecord]:
        measured = plain(self._of(host, "benchmark_results", {}))
        checked = plain(self._of(host, "benchmark_checked", {})).get("instances", {})
        instances = {one["name"]: one for one in plain(self._of(host, "benchmark_instances_seen", []))}
        plan = self._arguments["plan"]
        planned = plan["hosts"].get(host, {})
        cost = hourly.cost_of(host, self._vars["hostvars"][host], _prices())
        found = []
        for name, results in measured.items():
            gpus = list(instances.get(name, {}).get("gpus") or [])
            price = instance_price(cost.usd, len(gpus), cost.gpus or 0, len(instances))
            # Beside clients' requests the edge is measured, with what its instances have in common.
            served: dict[str, t.Any] = checked.get(name) or next(iter(checked.values()), {})
            own_plan: dict[str, t.Any] = planned.get(name) or next(iter(planned.values()), {})
            found.append(
                {
                    "schema": 1,
                    "id": plan["run"],
                    "at": times.now(),
                    "host": host,
                    "instance": name,
                    **{key: served.get(key, "") for key in ("engine", "version", "model", "revision", "release")},
                    "context": served.get("context", 0),
                    "profile": str(self._of(host, "benchmark_profile_seen", "")),
                    "hardware": cost.type,
                    "gpus": gpus,
                    "live": self._arguments["live"],
                    "usd_per_hour": price,
                    "price_of": cost.source,
                    "price_problem": cost.problem,
                    "left_out": own_plan.get("left_out", {}),
                    "measured": {one["scenario"]["name"]: one for one in results},
                }
            )
        return found


def _left(left_out: t.Mapping[str, str]) -> str:
    return "; ".join(f"{scenarios.title(name)} ({why})" for name, why in left_out.items())


def _prices() -> price_table.PriceTable:
    try:
        return price_table.load()
    except FleetError:
        # The figures count without it.
        return {}


def _terminal(
    made: list[records.BenchmarkRecord], before: list[records.BenchmarkRecord | None]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows and columns for the filter table."""
    columns = [{"key": "load", "title": "load"}, {"key": "figure", "title": "figure"}]
    for number, (record, old) in enumerate(zip(made, before)):
        heading = f"{table.label(record)} {record['version']}"
        columns.append({"key": f"value{number}", "title": heading, "align": "right"})
        if old:
            columns.append({"key": f"change{number}", "title": f"since {times.minute(str(old['at']))}"})
    if len(made) == 2:
        columns.append({"key": "against", "title": "second against first"})
    rows = []
    for row in table.figure_rows(made, before):
        line = {"load": row.scenario, "figure": row.figure, "against": row.against}
        line.update({f"value{number}": value for number, value in enumerate(row.values)})
        line.update({f"change{number}": change for number, change in enumerate(row.changes)})
        rows.append(line)
    for title, values in table.further_rows(made):
        rows.append(
            {"load": "all of it", "figure": title, **{f"value{number}": one for number, one in enumerate(values)}}
        )
    return rows, columns


class ActionModule(RecordAction):
    """See module benchmark."""

    ARGUMENTS = ARGUMENTS
    RUN = BenchmarkRecords
    RECORD = "benchmark"
    ADVICE = "Free the disk, correct the directory's rights, or set benchmark_records."
