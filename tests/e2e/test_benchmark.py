"""A benchmark as a user runs it, under traffic: the stand-in for the engines, and the real client on the hosts.

With the real engines: test_engines.py, after the switch, when one host has each of them.
"""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from lab import state
from tests.e2e.conftest import Fleet
from tests.e2e.rollouts import Rollout, Traffic, nothing_was_lost
from tests.fakes.standin.lab import StandinLab, inventories
from tests.pages import check_page
from tests.project import Run

pytestmark = pytest.mark.long

BENCHMARK = "playbooks/benchmark.yml"
#: One small load: each start of the client takes seconds.
SMALL = [
    "-e",
    json.dumps(
        {
            "benchmark_scenarios": ["at_2"],
            "benchmark_repeats": 1,
            "benchmark_requests": 2,
            "benchmark_prompt_tokens": 48,
            "benchmark_output_tokens": 16,
        }
    ),
]


@pytest.fixture(scope="module")
def fleet() -> t.Iterator[Fleet]:
    with StandinLab("bench", "10.229.0.0/24", hosts=2) as lab:
        deployed = lab.site()
        assert deployed.code == 0, deployed.output
        made = Fleet(lab.environment, inventories())
        made.read_environment()
        yield made


def measure(fleet: Fleet, *words: str) -> Run:
    return fleet.playbook(BENCHMARK, *SMALL, *words)


def drain_of(fleet: Fleet, host: str) -> t.Any:
    return json.loads(fleet.on(host, "cat /var/lib/inference/drain.json 2>/dev/null || echo null"))


def clients_of(fleet: Fleet) -> str:
    """The processes of the client on the hosts."""
    return "".join(fleet.on(host, "pgrep -f '[b]in/aiperf'; true") for host in ("inference-1", "inference-2"))


def test_a_controller_that_is_killed_leaves_a_host_that_the_next_run_puts_back(fleet: Fleet, tmp_path: Path) -> None:
    clients = Traffic(fleet.environment, tmp_path / "traffic.json", 2, 4)
    run = Rollout(fleet.environment, tmp_path, *fleet.inventory, BENCHMARK, "-l", "inference-1", *SMALL)
    run.wait_for("step", host="inference-1", step="measure")
    run.kill()
    assert drain_of(fleet, "inference-1")["by"] == "rollout"
    assert fleet.health("inference-1") == "503"
    assert "benchmark" in fleet.playbook("playbooks/status.yml").text
    again = measure(fleet, "-l", "inference-1")
    assert again.code == 0, again.output
    assert drain_of(fleet, "inference-1") is None
    assert fleet.health("inference-1") == "200"
    assert clients_of(fleet) == ""
    assert nothing_was_lost(clients.stop())


def test_site_puts_back_what_a_killed_benchmark_left_drained(fleet: Fleet, tmp_path: Path) -> None:
    process = fleet.process("inference-1")
    run = Rollout(fleet.environment, tmp_path, *fleet.inventory, BENCHMARK, "-l", "inference-1", *SMALL)
    run.wait_for("step", host="inference-1", step="measure")
    run.kill()
    assert fleet.health("inference-1") == "503"
    converged = fleet.playbook("site.yml", "-e", "engine=vllm")
    assert converged.code == 0, converged.output
    assert drain_of(fleet, "inference-1") is None
    assert fleet.health("inference-1") == "200"
    assert fleet.process("inference-1") == process


def test_two_hosts_stand_side_by_side_and_compare_with_the_run_before(fleet: Fleet, tmp_path: Path) -> None:
    clients = Traffic(fleet.environment, tmp_path / "traffic.json", 2, 4)
    run = measure(fleet, "-l", "inference-1,inference-2")
    assert run.code == 0, run.output
    assert nothing_was_lost(clients.stop())
    assert "inference-1 vllm-0 0.32.0+fake" in run.output
    assert "inference-2 vllm-0 0.32.0+fake" in run.output
    assert "second against first" in run.output
    # One repeat shows no spread.
    assert "not known" in run.output
    records = state.require(fleet.name).directory / "benchmarks"
    page = sorted((records / "pages").glob("*.html"))[-1]
    assert "tokens/s" in check_page(page.read_text()).text
    folders = [folder for host in ("inference-1", "inference-2") for folder in (records / host).iterdir()]
    newest = [sorted(folder.glob("*.json"))[-1] for folder in folders if not folder.name.endswith("_live")]
    measured = [json.loads(path.read_text())["measured"]["at_2"] for path in newest]
    assert [(one["requests"], one["failed"]) for one in measured] == [(4, 0), (4, 0)]
    assert all(one["repeats"][0]["tokens_per_second"] > 0 for one in measured)


def test_beside_traffic_nothing_is_drained(fleet: Fleet, tmp_path: Path) -> None:
    clients = Traffic(fleet.environment, tmp_path / "traffic.json", 1, 2)
    run = measure(fleet, "-l", "inference-1", "-e", "benchmark_live=true", "-e", "benchmark_live_concurrency=2")
    assert run.code == 0, run.output
    assert "Drain" not in run.output
    assert "inference-1 edge" in run.output
    assert nothing_was_lost(clients.stop())
    over = measure(fleet, "-l", "inference-1", "-e", "benchmark_live=true", "-e", "benchmark_live_concurrency=1")
    assert "2 at once are more than benchmark_live_concurrency (1)" in over.text


def test_what_must_not_begin_is_refused_and_touches_nothing(fleet: Fleet) -> None:
    before = [fleet.process(host) for host in ("inference-1", "inference-2")]
    for words, said in (
        ([], "Say which hosts: -l HOST."),
        (["-l", "inference-1", "-e", "benchmark_scenarios=at_0"], "the number of requests at once starts at 1"),
        (["-l", "inference-1", "-e", "benchmark_scenarios=nonsense"], "Valid are at_1, at_8"),
        (["-l", "inference-1", "-e", "benchmark_scenarios=document"], "document cannot be measured: it needs 10"),
        (
            ["-l", "inference-1", "-e", "benchmark_live=true", "-e", "benchmark_live_concurrency=0"],
            "_concurrency is '0'",
        ),
        (["-l", "inference-1", "-e", "benchmark_records=/proc/none"], "the results cannot be written to /proc/none"),
    ):
        run = measure(fleet, *words)
        assert run.code != 0, run.output
        assert said in run.text, run.output
    drained = fleet.playbook("playbooks/drain.yml", "-l", "inference-2", "-e", "reason=fan")
    assert drained.code == 0, drained.output
    last = measure(fleet, "-l", "inference-1")
    assert "Nothing else serves while vllm-0 of inference-1 is changed" in last.text
    theirs = measure(fleet, "-l", "inference-2")
    assert "inference-2: an operator has drained it (fan); playbooks/undrain.yml puts it back." in theirs.text
    assert fleet.playbook("playbooks/undrain.yml", "-l", "inference-2").code == 0
    assert [fleet.process(host) for host in ("inference-1", "inference-2")] == before
    assert fleet.health("inference-1") == "200"


def test_a_host_keeps_the_engine_that_its_variables_do_not_name(fleet: Fleet) -> None:
    """As after ``site.yml -l HOST -e engine=sglang``: whatever follows has to ask the engine that is there."""
    changed = fleet.playbook("site.yml", "-l", "inference-2", "-e", "engine=sglang")
    assert changed.code == 0, changed.output
    run = measure(fleet, "-l", "inference-1,inference-2")
    assert run.code == 0, run.output
    assert "inference-2 sglang-0 0.5.23+fake" in run.output
    restarted = fleet.playbook("playbooks/rolling_restart.yml", "-l", "inference-2")
    assert restarted.code == 0, restarted.output
    assert fleet.process("inference-2", "sglang@0.service") != "0"
    assert fleet.process("inference-2") == "0"
    assert fleet.health("inference-2") == "200"
