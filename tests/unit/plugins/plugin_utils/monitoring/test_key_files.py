"""Where monitoring hosts have their key; the defaults are those of role monitoring."""

from __future__ import annotations

from pathlib import Path

import yaml
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import key_files, silences

ROLE = Path(__file__).resolve().parents[5] / "roles" / "monitoring"


def test_the_file_follows_from_the_hosts_variables() -> None:
    variables = {"watch-1": {}, "watch-2": {"monitoring_directory": "/srv/fleet", "monitoring_group": "prom"}}
    assert key_files.key_files(variables, variables) == [
        {"host": "watch-1", "path": "/etc/inference/monitoring/monitoring.key", "group": "prometheus"},
        {"host": "watch-2", "path": "/srv/fleet/monitoring.key", "group": "prom"},
    ]


def test_what_plays_on_other_hosts_assume_is_what_the_role_does() -> None:
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    own = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    assert (defaults["monitoring_directory"], defaults["monitoring_group"]) == (key_files.DIRECTORY, key_files.GROUP)
    (file,) = key_files.key_files(["watch-1"], {"watch-1": {}})
    written = own["__monitoring_key_file"].replace("{{ monitoring_directory }}", defaults["monitoring_directory"])
    assert file["path"] == written
    (place,) = silences.alertmanagers(["watch-1"], {"watch-1": {}})
    assert place["url"] == f"http://127.0.0.1:{defaults['monitoring_alertmanager_port']}"
    written_configs = {
        task["ansible.builtin.copy"]["dest"]
        for task in yaml.safe_load((ROLE / "tasks" / "configure.yml").read_text())
        if "ansible.builtin.copy" in task
    }
    assert silences.CONFIG in written_configs
