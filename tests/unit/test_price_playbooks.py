"""The prices in playbooks/status.yml and playbooks/plan.yml, on hosts that do not answer: prices need no host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.table import load

ROOT = Path(__file__).parents[2]
ONE, FOUR = (load()["us-east-1"].prices[kind] for kind in ("g6e.xlarge", "g6e.12xlarge"))


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    # Port 1 of the loopback device refuses at once.
    east = {"fleet_region": "us-east-1", "fleet_purchase": "on-demand"}
    hosts = {
        "gpu-1": {**east, "fleet_instance_type": "g6e.xlarge"},
        "gpu-2": {**east, "fleet_instance_type": "g6e.12xlarge"},
        "gpu-3": {**east, "fleet_instance_type": "g6e.xlarge", "fleet_purchase": "spot"},
        "gpu-4": {"fleet_instance_type": "g6e.xlarge", "fleet_hourly_price": "{{ 0.5 + 0.2 }}"},
    }
    children = {
        "inference": {"hosts": hosts},
        "ring_stable": {"hosts": {host: {} for host in hosts}},
        "gateway": {},
        "not_running": {"hosts": {"gpu-9": {"fleet_role": "inference", "fleet_state": "stopped", **hosts["gpu-1"]}}},
    }
    variables = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps({"all": {"vars": variables, "children": children}}))
    return path


def play(inventory: Path, playbook: str, *arguments: str) -> list[str]:
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), f"playbooks/{playbook}", *arguments]
    environment = {**os.environ, "ANSIBLE_SSH_RETRIES": "0"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines()


def prices(lines: list[str]) -> dict[str, str]:
    """The last column of the table that has one for the price."""
    head = next(index for index, line in enumerate(lines) if line.startswith("host ") and "$/h" in line)
    end = lines[head].index("$/h") + len("$/h")
    rows = [line for line in lines[head + 1 : head + 9] if line.split()[:1] and line.split()[0] in (*"345", *HOSTS)]
    return {line.split()[0]: line[:end].split("  ")[-1].strip() for line in rows}


HOSTS = ("gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-9")


def test_the_status_has_a_price_for_each_host_and_their_sum(inventory: Path) -> None:
    lines = play(inventory, "status.yml")
    assert prices(lines) == {
        "gpu-1": f"{ONE:.3f}",
        "gpu-2": f"{FOUR:.3f}",
        "gpu-3": "unknown",
        "gpu-4": "0.700",
        "gpu-9": "-",
        "4": f"{ONE + FOUR + 0.7:.3f} + 1 unknown",
    }
    assert any(line.startswith("The price of gpu-3 is unknown: it is g6e.xlarge as spot") for line in lines)


def test_the_plan_says_what_would_cost_less(inventory: Path) -> None:
    lines = play(inventory, "plan.yml", "-l", "gpu-1,gpu-2,gpu-3")
    assert prices(lines)["3"] == f"{ONE + FOUR:.3f} + 1 unknown"
    advice = next(line for line in lines if line.startswith("gpu-2: g6e.12xlarge costs"))
    assert f"4 x g6e.xlarge have as many of these GPUs for {4 * ONE:.3f} $/h" in advice
    assert "They can serve the same" in advice
    wide = play(inventory, "plan.yml", "-l", "gpu-2", "-e", "vllm_tensor_parallel_size=4")
    assert any("without tensor parallelism; here vllm-0 has 4 GPUs." in line for line in wide)


def test_a_wrong_price_is_refused_with_what_is_valid(inventory: Path) -> None:
    lines = play(inventory, "plan.yml", "-e", "fleet_hourly_price=cheap")
    said = " ".join(" ".join(lines).split())
    assert "fleet_hourly_price is 'cheap'; it must be US dollars per hour, a number above 0" in said
    assert "Work out what every host runs" not in said
