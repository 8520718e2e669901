"""The variables of a whole fleet, validated by a playbook as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def play(
    tmp_path: Path, hosts: dict[str, t.Any], gateways: dict[str, t.Any], playbook: str, *words: str
) -> tuple[int, str]:
    groups = {
        "inference": {"hosts": hosts},
        "gateway": {"hosts": gateways},
        "ring_stable": {"hosts": dict.fromkeys(hosts)},
    }
    # Nothing may be contacted: a connection would be an error of its own.
    variables = {"ansible_ssh_common_args": "-o ProxyCommand=false", "fleet_key_store": str(tmp_path / "keys.json")}
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps({"all": {"vars": variables, "children": groups}}))
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(path), f"playbooks/{playbook}.yml", *words]
    # A host that cannot be reached is not tried again.
    environment = {**os.environ, "ANSIBLE_SSH_RETRIES": "0"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_every_problem_of_every_host_is_named_before_anything(tmp_path: Path) -> None:
    status, output = play(
        tmp_path,
        {
            "gpu-1": {"edge_port": "80o0", "vllm_max_modellen": 4096},
            "gpu-2": {"edge_port": "80o0", "engine_start_timeout": "20 minutes", "gpu_driver_orphan_mib": "1 gig"},
        },
        {"gw": {"litellm_timeout": "ten", "gateway_store_memory": "512 MegaBytes", "litellm_retries": "three"}},
        "site",
    )
    assert status != 0
    assert "Check variables and hosts" not in output
    for line in (
        "edge_port is '80o0': it must be a whole number. On gpu-1, gpu-2.",
        "vllm_max_modellen is read by nothing; did you mean vllm_max_model_len? On gpu-1.",
        "engine_start_timeout is '20 minutes': a time is a number of seconds",
        "gpu_driver_orphan_mib is '1 gig': a size is a number of MiB",
        "litellm_timeout is 'ten': a time is a number of seconds",
        "gateway_store_memory is '512 MegaBytes': a size",
        "litellm_retries is 'three': it must be a whole number. On gw.",
    ):
        assert line in output


def test_units_templates_and_names_of_ones_own_are_taken(tmp_path: Path) -> None:
    variables = {
        "edge_queue_timeout": "1m",
        "edge_max_body_bytes": "20MiB",
        "engine_start_timeout": "{{ '30m' if 'gateway' in group_names else '20m' }}",
        "edge_lame_duck": "{{ edge_port_that_is_undefined }}",
        "model_bucket": "weights",
        "model_s3_url": "s3://{{ model_bucket }}/qwen",
        "fleet_instance_type": "g6e.xlarge",
    }
    words = ("--check", "-e", "edge_queue_limit=5")
    status, output = play(tmp_path, {"gpu-1": variables}, {}, "site", *words)
    assert "TASK [check_host | Check system, ports and disk]" in output
    assert status != 0  # the host cannot be reached


def test_numbers_of_the_edge_are_checked_before_a_host_is_asked(tmp_path: Path) -> None:
    host = {"gpu-1": {"fleet_instance_type": "g6e.xlarge"}}
    _status, output = play(tmp_path, host, {}, "site", "--check", "-e", "edge_queue_limit=0")
    assert "These variables have to be at least 1: edge_queue_limit." in output
    assert "TASK [check_host | Check system, ports and disk]" not in output


def test_a_run_is_not_stopped_by_variables_that_it_does_not_use(tmp_path: Path) -> None:
    _status, output = play(tmp_path, {"gpu-1": {"vllm_max_model_len": "long"}}, {}, "drain", "-l", "gpu-1")
    assert "TASK [Take it out of service]" in output
    _status, output = play(tmp_path, {"gpu-1": {"edge_drain_timeout": "long"}}, {}, "drain", "-l", "gpu-1")
    assert "edge_drain_timeout is 'long': a time is" in output
    assert "TASK [Take it out of service]" not in output


def test_a_role_that_there_is_not_is_named_with_its_host(tmp_path: Path) -> None:
    source = tmp_path / "odd.json"
    source.write_text(json.dumps({"all": {"hosts": {"odd": {"fleet_role": "inferense"}}}}))
    status, output = play(tmp_path, {"gpu-1": {}}, {}, "site", "-i", str(source))
    assert status != 0
    assert "Its tag inference:role is 'inferense', valid are inference, gateway" in output
    assert "On odd." in output


def measured_profile(tmp_path: Path, **changes: str) -> None:
    """A measured profile beside the group vars of the inventory, which Ansible must take neither for hosts nor vars."""
    part = {
        "version": "0.32.0",
        "model": "Qwen/Qwen3-VL-8B-Instruct",
        "gpu": "L40S",
        "base": "balanced",
        "tune_for": "interactive",
        "run": "1",
        "at": "2026-11-30T10:42:00Z",
        "host": "gpu-1",
        "settings": [{"name": "max_num_seqs", "value": 64, "why": "Run 1."}],
        **changes,
    }
    folder = tmp_path / "group_vars" / "engine_profiles"
    folder.mkdir(parents=True)
    document = {"schema": 1, "profile": "measured-l40s-interactive", "engines": {"vllm": part}}
    (folder / "measured-l40s-interactive.yml").write_text(json.dumps(document))


def test_an_unknown_profile_is_refused_with_the_measured_ones_as_well(tmp_path: Path) -> None:
    measured_profile(tmp_path)
    status, output = play(tmp_path, {"gpu-1": {"engine_profile": "fast"}}, {}, "site", "--check")
    assert status != 0
    assert "Check variables and hosts" not in output
    assert "engine_profile is 'fast', which is no profile. Valid are: balanced, interactive, throughput" in output
    assert "engine_profiles: measured-l40s-interactive. On gpu-1." in output


def test_a_measured_profile_is_taken_where_it_belongs_and_refused_elsewhere(tmp_path: Path) -> None:
    measured_profile(tmp_path)
    host = {"fleet_instance_type": "g6e.xlarge", "engine_profile": "measured-l40s-interactive"}
    _status, output = play(tmp_path, {"gpu-1": host}, {}, "site", "--check")
    assert "TASK [check_host | Check system, ports and disk]" in output
    words = ("--check", "-e", "fleet_model=Qwen/Qwen3-8B")
    _status, output = play(tmp_path, {"gpu-1": {**host, "fleet_instance_type": "g6.xlarge"}}, {}, "site", *words)
    assert "was measured on L40S, and this host has L4 and with Qwen/Qwen3-VL-8B-Instruct, and this host" in output
    assert "TASK [check_host | Check system, ports and disk]" not in output
    _status, output = play(tmp_path, {"gpu-1": host}, {}, "site", "--check", "-e", "vllm_version=0.31.0")
    assert "was measured with vllm 0.32.0, and 0.31.0 runs here: its figures may not hold" in output
    path = tmp_path / "group_vars" / "engine_profiles" / "measured-l40s-interactive.yml"
    path.write_text("schema: 1\n")
    status, output = play(tmp_path, {"gpu-1": host}, {}, "site", "--check")
    assert status != 0
    assert "measured-l40s-interactive.yml is not valid: it says that it is the profile None." in output
    assert "Check variables and hosts" not in output
