"""Rollouts without a lost request: whatever happens to them, clients that never retry get their answers.

Each test leaves both hosts serving. The walk itself is tested elsewhere: by the switch of the engine (test_engines),
and with the stand-in by Molecule's scenario rolling_restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import HOSTS, LAB, Fleet, StartTraffic
from tests.e2e.rollouts import Rollout, nothing_was_lost

pytestmark = pytest.mark.long

RESTART = "playbooks/rolling_restart.yml"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def releases(fleet: Fleet) -> list[str]:
    return [fleet.on(host, "basename $(readlink /opt/inference/instances/0/current)") for host in HOSTS]


def processes(fleet: Fleet) -> list[str]:
    return [fleet.process(host) for host in HOSTS]


def test_a_rolling_restart_loses_nothing(fleet: Fleet, traffic: StartTraffic, tmp_path: Path) -> None:
    before = processes(fleet)
    clients = traffic(streams=2, requests_per_second=2)
    done = Rollout(fleet.environment, tmp_path, RESTART).wait()
    assert done.code == 0
    assert nothing_was_lost(clients.stop())
    assert all(old != new for old, new in zip(before, processes(fleet), strict=True))


def test_a_changed_option_is_foreseen_and_loses_nothing(fleet: Fleet, traffic: StartTraffic, tmp_path: Path) -> None:
    option = ("-e", "engine=vllm", "-e", "vllm_max_num_seqs=40")
    before = processes(fleet)
    foreseen = fleet.playbook("site.yml", *option, "--check", "--diff")
    assert foreseen.code == 0
    assert "2 hosts in 2 waves, about" in foreseen.text
    assert "max-num-seqs: 40" in foreseen.output
    assert foreseen.recap["inference-1"]["changed"] > 0
    assert processes(fleet) == before
    clients = traffic()
    done = Rollout(fleet.environment, tmp_path, "site.yml", *option).wait()
    assert done.code == 0
    assert nothing_was_lost(clients.stop())
    assert all(old != new for old, new in zip(before, processes(fleet), strict=True))


def test_a_rollback_needs_no_network_and_loses_nothing(fleet: Fleet, traffic: StartTraffic, tmp_path: Path) -> None:
    before = releases(fleet)
    clients = traffic(streams=2, requests_per_second=2)
    # The hosts reach nothing outside this machine now: no package index, no model hub.
    FORWARDING.write_text("0", encoding="ascii")
    try:
        done = Rollout(fleet.environment, tmp_path, "playbooks/rollback.yml").wait()
        assert done.code == 0
        assert nothing_was_lost(clients.stop())
    finally:
        FORWARDING.write_text("1", encoding="ascii")
    assert all(old != new for old, new in zip(before, releases(fleet), strict=True))
    again = fleet.playbook("playbooks/rollback.yml")
    assert "has no earlier good release" in again.text
    # The variables match the restored release, so there is nothing left to do.
    converged = fleet.playbook("site.yml", "-e", "engine=vllm")
    assert all(counts["changed"] == 0 for counts in converged.recap.values()), converged.output


def test_a_release_that_fails_its_gate_is_rolled_back(fleet: Fleet, traffic: StartTraffic, tmp_path: Path) -> None:
    before = releases(fleet)
    untouched = fleet.process("inference-2")
    clients = traffic(streams=2, requests_per_second=2)
    blind = '{"vllm_limit_mm_per_prompt": {"image": 0, "video": 0}}'
    done = Rollout(fleet.environment, tmp_path, "site.yml", "-e", "engine=vllm", "-e", blind).wait()
    assert done.code != 0
    assert "At most 0 image(s) may be provided in one prompt" in done.text
    assert "It was rolled back to vllm-" in done.text
    assert "Not touched: inference-2" in done.text
    assert nothing_was_lost(clients.stop())
    assert releases(fleet) == before
    assert fleet.process("inference-2") == untouched
    assert [fleet.health(host) for host in HOSTS] == ["200", "200"]


def test_an_engine_that_is_killed_in_its_gate_is_started_again_and_the_next_run_finishes(
    fleet: Fleet, traffic: StartTraffic, tmp_path: Path
) -> None:
    untouched = fleet.process("inference-2")
    clients = traffic(streams=2, requests_per_second=2)
    restart = Rollout(fleet.environment, tmp_path, RESTART)
    restart.wait_for("step", host="inference-1", step="gate")
    fleet.on("inference-1", "systemctl kill --signal=KILL vllm@0.service")
    stopped = restart.wait()
    assert stopped.code != 0
    assert "The rollout stops here, 1 of its hosts failed: inference-1" in stopped.text
    assert nothing_was_lost(clients.stop())
    assert fleet.process("inference-2") == untouched
    assert fleet.health("inference-1") == "200"
    again = fleet.playbook(RESTART)
    assert again.code == 0
    assert "Goes on with" in again.text
    assert fleet.process("inference-2") != untouched


def test_a_host_lost_after_its_drain_costs_no_request(fleet: Fleet, traffic: StartTraffic, tmp_path: Path) -> None:
    untouched = fleet.process("inference-2")
    clients = traffic(streams=2, requests_per_second=2)
    restart = Rollout(fleet.environment, tmp_path, RESTART)
    restart.wait_for("step", host="inference-1", step="stop")
    assert fleet.lab("stop", "--name", LAB, "inference-1", "--crash").code == 0
    try:
        stopped = restart.wait()
        assert stopped.code != 0
        assert "inference-1 does not answer any more" in stopped.text
        assert fleet.process("inference-2") == untouched
        assert nothing_was_lost(clients.stop())
    finally:
        assert fleet.lab("start", "--name", LAB, "inference-1").code == 0
    again = fleet.playbook(RESTART)
    assert again.code == 0
    assert [fleet.health(host) for host in HOSTS] == ["200", "200"]
