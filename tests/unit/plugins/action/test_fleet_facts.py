"""What every host runs, computed in a play as in playbooks."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.digest import collection_digest

ROOT = Path(__file__).resolve().parents[4]
MODEL = "Qwen/Qwen3-VL-8B-Instruct"


def play(
    tmp_path: Path, groups: dict[str, dict[str, t.Any]], *words: str, play_vars: dict[str, t.Any] | None = None
) -> dict[str, t.Any]:
    """The facts that each host finds, by its name."""
    status, output = attempt(tmp_path, groups, "{{ ansible_play_hosts_all }}", *words, play_vars=play_vars)
    assert status == 0, output
    names = [name for hosts in groups.values() for name in hosts]
    return {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in names}


def attempt(
    tmp_path: Path,
    groups: dict[str, dict[str, t.Any]],
    hosts: str,
    *words: str,
    play_vars: dict[str, t.Any] | None = None,
) -> tuple[int, str]:
    inventory = {"all": {"children": {name: {"hosts": members} for name, members in groups.items()}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    facts = {"hosts": hosts}
    tasks = [
        {"inference.fleet.fleet_facts": facts, "register": "fleet_facts", "run_once": True},
        {
            "ansible.builtin.copy": {
                "content": "{{ fleet_facts.hosts[inventory_hostname] | to_json }}",
                "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}.json",
            },
            "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        },
        {
            "ansible.builtin.copy": {"content": "{{ fleet_facts.code }}", "dest": f"{tmp_path}/code"},
            "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        },
    ]
    # Nothing may be contacted: a connection of the first task would fail.
    own = {**(play_vars or {}), "ansible_ssh_common_args": "-o ProxyCommand=false"}
    (tmp_path / "play.yml").write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "vars": own, "tasks": tasks}])
    )
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", f"{tmp_path}/hosts.json", f"{tmp_path}/play.yml"]
    done = subprocess.run([*argv, *words], cwd=ROOT, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_each_host_finds_its_own_facts_after_one_task(tmp_path: Path) -> None:
    found = play(
        tmp_path,
        {
            "inference": {
                "gpu-1": {
                    "fleet_instance_type": "g6e.xlarge",
                    "model_word": "qwen",
                    "fleet_model": "org/{{ model_word }}",
                },
                "gpu-2": {"fleet_instance_type": "{{ 'g6e' ~ '.12xlarge' }}", "fleet_engine_tag": "sglang"},
            },
            "gateway": {"gw-1": {"gateway_models": [{"name": "a", "model": "org/qwen"}]}},
        },
    )
    assert [one["name"] for one in found["gpu-1"]["instances"]] == ["vllm-0"]
    assert found["gpu-1"]["model"] == "org/qwen"
    assert [one["name"] for one in found["gpu-2"]["instances"]] == [f"sglang-{index}" for index in range(4)]
    assert [(one["host"], one["model"]) for one in found["gw-1"]["upstreams"]] == [
        ("gpu-1", "org/qwen"),
        ("gpu-2", MODEL),
    ]
    assert {one["problem"] for one in found.values()} == {""}
    assert (tmp_path / "code").read_text() == collection_digest(ROOT)


def test_the_engine_of_the_run_is_every_hosts(tmp_path: Path) -> None:
    hosts = {"gpu-1": {"fleet_gpu_count": 1, "fleet_engine_tag": "vllm"}, "gpu-2": {"fleet_gpu_count": 1}}
    found = play(tmp_path, {"inference": hosts, "gateway": {"gw-1": {}}}, "-e", "engine=sglang")
    assert [found[name]["engine"] for name in ("gpu-1", "gpu-2")] == ["sglang", "sglang"]
    assert [one["engine"] for one in found["gw-1"]["upstreams"]] == ["sglang", "sglang"]


def test_a_variable_that_is_wrong_is_the_problem_of_its_host_alone(tmp_path: Path) -> None:
    hosts = {
        "gpu-1": {"fleet_gpu_count": 1, "edge_port": "{{ never_set }}"},
        "gpu-2": {"fleet_gpu_count": "{{ 1 | no_such_filter }}"},
    }
    found = play(tmp_path, {"inference": hosts})
    # As in a role: a variable that refers to an undefined one is not set.
    assert (found["gpu-1"]["edge_port"], found["gpu-1"]["problem"]) == (8000, "")
    assert "fleet_gpu_count of gpu-2 cannot be worked out: " in found["gpu-2"]["problem"]
    assert "no_such_filter" in found["gpu-2"]["problem"]
    assert "instances" not in found["gpu-2"]


def test_variables_of_the_play_count_for_the_host_of_the_task(tmp_path: Path) -> None:
    instances = [{"gpus": [0], "served_name": "fast"}]
    found = play(tmp_path, {"inference": {"gpu-1": {"fleet_gpu_count": 1}}}, play_vars={"fleet_instances": instances})
    assert [one["served_name"] for one in found["gpu-1"]["instances"]] == ["fast"]


def test_a_host_that_the_inventory_does_not_have_is_refused(tmp_path: Path) -> None:
    status, output = attempt(tmp_path, {"inference": {"gpu-1": {"fleet_gpu_count": 1}}}, "gpu-1,gpu-9")
    assert status != 0
    assert "hosts names gpu-9, which the inventory does not have." in output
