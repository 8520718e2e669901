"""playbooks/verify_gpu.yml as a user runs it, on hosts that are this machine, and an unreachable one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    # Port 1 of the loopback device refuses at once.
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {
        "fit": {"fleet_accelerator": "cpu"},
        "bare": {"fleet_instance_type": "g6e.xlarge", "gpu_driver_nvidia_smi": str(tmp_path / "no-such-program")},
        "mistaken": {"fleet_accelerator": "tpu"},
        "gone": gone,
    }
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps({"all": {"vars": variables, "children": {"inference": {"hosts": hosts}}}}))
    return path


def play(inventory: Path, *arguments: str) -> tuple[int, str]:
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), "playbooks/verify_gpu.yml", *arguments]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_all_hosts_are_in_the_table_and_the_unfit_fail_it(inventory: Path) -> None:
    status, output = play(inventory)
    assert status == 2
    table = output.split("TASK [Show all hosts]")[1].split("TASK [")[0]
    rows = table.partition("\n")[2].partition("ok: [")[0].splitlines()
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in rows}
    assert lines.pop("host") == "verdict driver gpus reason"
    assert list(lines) == ["fit", "bare", "mistaken", "gone"]
    assert lines["fit"] == "ok - not needed (cpu) -"
    assert lines["bare"].startswith("failed - no GPU driver: found no nvidia-smi")
    assert lines["mistaken"].startswith("error - - Validation of arguments failed: value of gpu_driver_accelerator")
    assert lines["gone"].startswith("unreachable - - ")
    end = output.split("TASK [Fail when a host is not fit]")[1]
    for host in ("bare: failed, no GPU", "mistaken: error", "gone: unreachable"):
        assert host in end
    assert "fit: ok" not in end


def test_a_limit_leaves_the_others_out(inventory: Path) -> None:
    status, output = play(inventory, "-l", "fit")
    assert status == 0
    assert "All hosts are fit for their engines." in output
    table = output.split("TASK [Show all hosts]")[1].split("TASK [")[0]
    assert "bare" not in table
    assert "Not reached: bare (beyond --limit), gone (beyond --limit), mistaken (beyond" in " ".join(output.split())


def test_an_inventory_without_hosts_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps({"all": {"children": {"inference": {}}}}))
    status, output = play(path)
    assert status != 0
    assert "has no host in the group inference" in output
