"""The controller's side of a benchmark: what is refused before anything is touched, and what is kept."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.inference.fleet.plugins.action.benchmark import ActionModule

from tests.pages import check_page
from tests.unit.plugins.plugin_utils.benchmark.benchmarks import measured

Result = dict[str, t.Any]

SERVED = {
    "engine": "vllm",
    "version": "0.32.0",
    "model": "Qwen/Qwen3-VL-8B-Instruct",
    "revision": "main",
    "release": "vllm-1",
    "tokenizer": "/m",
    "served_name": "qwen",
    "context": 32768,
}


def host(**more: t.Any) -> Result:
    return {
        "benchmark_checked": {"instances": {"vllm-0": SERVED}, "problems": []},
        "benchmark_instances_seen": [{"name": "vllm-0", "index": 0, "gpus": [0]}],
        "benchmark_profile_seen": "balanced",
        "fleet_instance_type": "g6e.xlarge",
        "fleet_hourly_price": 1.8,
        **more,
    }


class Run:
    def __init__(self, records: Path) -> None:
        self.records = records
        self.hosts: dict[str, Result] = {"gpu-1": host(), "gpu-2": host()}
        self.lost: set[str] = set()

    def ask(self, state: str, *, check: bool = False, **arguments: t.Any) -> Result:
        args = {"state": state, "records": str(self.records), **arguments}
        task = mock.Mock(args=args, async_val=0, check_mode=check, action="inference.fleet.benchmark")
        action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
        variables = {
            "hostvars": self.hosts,
            "ansible_play_hosts_all": list(self.hosts),
            "ansible_play_hosts": [name for name in self.hosts if name not in self.lost],
        }
        return action.run(task_vars=variables)

    def measure(self, *rates: float, **plan: t.Any) -> Result:
        planned = {**self.ask("planned"), **plan}
        for number, name in enumerate(self.hosts, 1):
            own = [rate * number for rate in rates]
            self.hosts[name]["benchmark_results"] = {"vllm-0": [measured("at_64", "tokens_per_second", *own)]}
        return self.ask("recorded", plan=planned)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "records")


def test_each_instance_gets_what_it_can_take(run: Run) -> None:
    run.hosts["gpu-2"]["benchmark_checked"] = {"instances": {"vllm-0": {**SERVED, "context": 4096}}, "problems": []}
    planned = run.ask("planned")
    assert not planned.get("failed")
    names = {name: [one["name"] for one in own["vllm-0"]["scenarios"]] for name, own in planned["hosts"].items()}
    assert "document" in names["gpu-1"]
    assert "document" not in names["gpu-2"]
    assert planned["lines"] == [
        "gpu-2 vllm-0, not measured: a document, asked again (it needs 10459 tokens, and the context is 4096)"
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scenarios": ["nonsense"]}, "'nonsense'. Valid are"),
        ({"scenarios": ["at_0"]}, "starts at 1"),
        ({"live_concurrency": 0}, "benchmark_live_concurrency is 0"),
    ],
)
def test_bad_settings_are_refused_before_anything(run: Run, settings: Result, said: str) -> None:
    refused = run.ask("planned", settings=settings)
    assert refused["failed"]
    assert said in refused["msg"]
    assert not run.records.exists()


def test_a_document_that_does_not_fit_is_refused_with_host_and_instance(run: Run) -> None:
    run.hosts["gpu-2"]["benchmark_checked"] = {"instances": {"vllm-0": {**SERVED, "context": 4096}}, "problems": []}
    refused = run.ask("planned", settings={"scenarios": ["document"]})
    assert refused["msg"].startswith("Nothing was touched. gpu-2 vllm-0: document cannot be measured: it needs 10459")


def test_what_a_host_says_against_it_is_named(run: Run) -> None:
    run.hosts["gpu-2"]["benchmark_checked"] = {"instances": {}, "problems": ["an operator has drained it (fan)."]}
    assert "gpu-2: an operator has drained it (fan)." in run.ask("planned")["msg"]
    run.lost = {"gpu-1"}
    assert "gpu-1 does not answer." in run.ask("planned")["msg"]


def test_no_room_for_results_is_refused(run: Run) -> None:
    run.records.write_text("a file")
    refused = run.ask("planned")
    assert refused["failed"]
    assert "the results cannot be written" in refused["msg"]


def test_figures_are_kept_compared_and_shown(run: Run) -> None:
    first = run.measure(1000, 1010, 990, run="20261130T100000Z")
    assert [column["title"] for column in first["columns"]] == [
        "load", "figure", "gpu-1 vllm-0 0.32.0", "gpu-2 vllm-0 0.32.0", "second against first",
    ]  # fmt: skip
    row = first["rows"][0]
    assert (row["value0"], row["value1"], row["against"]) == ("1000 ±10", "2000 ±20", "+100% better")
    assert [line["value0"] for line in first["rows"] if line["figure"] == "$ for a million tokens"] == ["0.50"]
    check_page(Path(first["page"]).read_text())
    kept = [json.loads(path.read_text()) for path in run.records.rglob("*.json")]
    assert sorted(one["host"] for one in kept) == ["gpu-1", "gpu-2"]
    assert {one["profile"] for one in kept} == {"balanced"}

    second = run.measure(500, 501, 499, run="20261130T110000Z")
    assert second["rows"][0]["change0"] == "-50% worse"
    assert second["unmeasured"] == []


def test_a_scenario_without_figures_is_named(run: Run) -> None:
    planned = run.ask("planned")
    run.hosts["gpu-1"]["benchmark_results"] = {"vllm-0": [measured("picture", requests=4, failed=4, problem="400: no")]}
    recorded = run.ask("recorded", plan=planned)
    assert recorded["unmeasured"] == ["gpu-1 vllm-0: one picture: 400: no"]


def test_a_run_that_measured_nothing_keeps_nothing(run: Run) -> None:
    recorded = run.ask("recorded", plan=run.ask("planned"))
    assert (recorded["rows"], recorded["page"]) == ([], "")
    assert not list(run.records.rglob("*.json"))


def test_check_mode_writes_nothing(run: Run) -> None:
    planned = run.ask("planned")
    run.hosts["gpu-1"]["benchmark_results"] = {"vllm-0": [measured("at_64", "tokens_per_second", 1.0)]}
    assert run.ask("recorded", check=True, plan=planned)["page"] == ""
    assert not list(run.records.rglob("*.json"))
