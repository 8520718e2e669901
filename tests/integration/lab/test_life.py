"""A lab starts, survives a kill, and is removed without a trace."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.lab.conftest import ROOT, Machine, gone, traces

SUBNET = "10.216.0.0/24"


def test_up_twice_then_down_leaves_nothing(machine: Machine) -> None:
    machine("up", "--subnet", SUBNET)
    assert len(traces(machine.name)["interfaces"]) == 3
    before = machine("status")
    again = machine("up")
    # The same processes: nothing was restarted.
    assert [line for line in machine("status").splitlines() if "pid" in line] == [
        line for line in before.splitlines() if "pid" in line
    ]
    assert "launched" not in again
    machine("down")
    assert gone(machine), traces(machine.name)


@pytest.mark.parametrize("delay", [0.4, 0.9, 1.5, 2.5])
def test_killed_anywhere_up_repairs_and_down_cleans(machine: Machine, delay: float) -> None:
    killed = machine.start("up", "--subnet", SUBNET)
    time.sleep(delay)
    killed.kill()
    killed.communicate()
    machine("up", "--subnet", SUBNET)
    assert machine("status").count(" running ") == 2
    assert machine.ansible("inference", "-m", "ping").count("pong") == 2
    keepers = [line for line in traces(machine.name)["processes"] if line.startswith("systemd-nspawn")]
    assert len(keepers) == 2

    killed = machine.start("down")
    time.sleep(delay / 3)
    killed.kill()
    killed.communicate()
    machine("down")
    assert gone(machine), traces(machine.name)


def test_killed_and_taken_down_at_once_leaves_nothing(machine: Machine) -> None:
    killed = machine.start("up", "--subnet", SUBNET)
    time.sleep(1.2)
    killed.kill()
    killed.communicate()
    machine("down")
    assert gone(machine), traces(machine.name)


def test_a_second_lab_beside_the_first(machine: Machine, running: Machine, tmp_path: Path) -> None:
    machine("up", "--subnet", SUBNET, "--hosts", "1")
    first, second = (one.ansible("inference", "-m", "command", "-a", "hostname -I") for one in (running, machine))
    assert "10.216.1.11" in first
    assert "10.216.0.11" in second
    assert "10.216.1." not in second
    machine("down")
    assert gone(machine)
    assert running.ansible("inference", "-m", "ping").count("pong") == 2


def test_a_network_in_use_is_refused(machine: Machine, running: Machine) -> None:
    said = machine("up", "--subnet", "10.216.1.0/25", fails=True)
    assert "overlaps 10.216.1.0/24" in said
    machine("add", "--subnet", SUBNET, "only")


def test_the_fleet_grows_and_shrinks(machine: Machine) -> None:
    machine("up", "--subnet", SUBNET, "--hosts", "3")
    assert machine.ansible("inference", "-m", "ping").count("pong") == 3
    machine("up", "--hosts", "1")
    assert machine.ansible("inference", "--list-hosts").split()[-1:] == ["inference-1"]
    assert len(traces(machine.name)["interfaces"]) == 2
    machine("down")


def test_down_without_a_lab_is_fine(machine: Machine) -> None:
    assert "nothing to take down" in machine("down")
    assert not machine.state.exists()


def test_a_bare_lab_is_hosts_only(machine: Machine) -> None:
    machine("add", "--subnet", SUBNET, "only")
    status = machine("status")
    assert "ec2" not in status
    assert machine.ssh("only", "hostname") == "only"
    machine("remove", "--last", "only")
    assert gone(machine)


def test_forwarding_is_left_on_for_the_other_lab(machine: Machine, running: Machine) -> None:
    machine("add", "--subnet", SUBNET, "only")
    machine("down")
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    assert os.path.exists("/run/netns")


def test_the_last_lab_puts_the_machine_back(tmp_path: Path) -> None:
    """In its own network and mount name spaces, without other labs."""
    steps = f"""
set -eu
mount -t tmpfs tmpfs /run
mkdir /run/mount
ip link set lo up
export INFERENCE_FLEET_STATE={tmp_path}/state
before=$(ls -A /run; cat /proc/sys/net/ipv4/ip_forward; ip -brief link; nft list ruleset; cat /proc/self/mountinfo)
{sys.executable} -m lab add --name lonely --subnet {SUBNET} only
test "$(cat /proc/sys/net/ipv4/ip_forward)" = 1
{sys.executable} -m lab down --name lonely
rm -rf /run/systemd
after=$(ls -A /run; cat /proc/sys/net/ipv4/ip_forward; ip -brief link; nft list ruleset; cat /proc/self/mountinfo)
test "$before" = "$after"
test ! -e {tmp_path}/state
"""
    result = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", steps], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
