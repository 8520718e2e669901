"""A new key of the client monitoring, brought by role keys while both keys are valid: no scrape fails."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

from ansible_collections.inference.fleet.plugins.modules import api_key

from tests.integration.edge.conftest import KEY, eventually, free_port
from tests.integration.monitoring.stack import KEY_FILE, MONITORING, WATCH, Place
from tests.project import ROOT, Run, run

CLIENT = {"name": "monitoring"}


def key_of(store: Path) -> str:
    """The key that a store of its own has for the client monitoring."""
    given = {name: argument.get("default") for name, argument in api_key.ARGUMENTS.items()} | {"path": str(store)}
    api_key.run({**given, "state": "present", "clients": [CLIENT]}, False, False)
    return str(api_key.run({**given, "state": "read", "clients": [CLIENT], "reveal": True}, False, False)["key"])


def bring_key(place: Place, directory: Path, store: Path) -> Run:
    """What a rotation does between its test and the end of the old key. Of two monitoring hosts one is away."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    watching = {
        WATCH: {**local, "monitoring_directory": str(place.directory), "monitoring_group": "root"},
        "watch-away": {"ansible_host": "127.0.0.1", "ansible_port": free_port()},
    }
    groups = {"inference": {"hosts": {"gpu-1": local}}, "monitoring": {"hosts": watching}}
    (directory / "inventory.yml").write_text(json.dumps({"all": {"children": groups}}))
    variables = {
        "keys_store": str(store),
        "keys_metrics_files": "{{ groups['monitoring'] | inference.fleet.metrics_key_files(hostvars) }}",
    }
    role = {"name": "inference.fleet.keys", "tasks_from": "move_metrics"}
    tasks = [{"ansible.builtin.include_role": role, "vars": variables}]
    (directory / "play.yml").write_text(json.dumps([{"hosts": "inference", "gather_facts": False, "tasks": tasks}]))
    environment = {**os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}
    words = ("-i", str(directory / "inventory.yml"), str(directory / "play.yml"))
    return run("ansible-playbook", *words, environment=environment)


def test_no_scrape_fails_while_the_key_is_rotated(place: Place, tmp_path: Path) -> None:
    scraped = 'up{job=~"edge|engine"}'
    eventually(lambda: place.values(scraped) == [1.0] * 3, 60)
    store, file, began = tmp_path / "keys.json", place.directory / KEY_FILE, time.time()
    rotated = key_of(store)
    place.edge.set_keys({KEY: "team-a", MONITORING: "monitoring", rotated: "monitoring"})
    done = bring_key(place, tmp_path, store)
    assert (done.code, done.recap["gpu-1"]["failed"], done.recap["gpu-1"]["unreachable"]) == (0, 0, 0)
    assert "watch-away could not be brought the new key of monitoring" in done.text
    assert file.read_text() == rotated
    assert rotated not in done.output
    assert file.stat().st_mode & 0o777 == 0o640

    place.edge.set_keys({KEY: "team-a", rotated: "monitoring"})
    retired = time.time()
    assert place.edge.status("/v1/models", MONITORING) == 401
    eventually(lambda: min(place.values(f"timestamp({scraped})")) > retired, 60)
    assert place.values(f"min_over_time({scraped}[{math.ceil(time.time() - began)}s])") == [1.0] * 3
