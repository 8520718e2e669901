"""Whatever works on the fleet names the hosts that it does not reach."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
#: Playbooks that say it in another way, or are about the hosts of --limit alone.
OTHERWISE = {
    "balancer": "asks no host",
    "benchmark": "demands --limit",
    "drain": "demands --limit",
    "undrain": "demands --limit",
    "tune": "demands --limit, for one host",
    "join": "demands --limit, for one host",
    "leave": "demands --limit, for one host",
    "rotate_keys": "role keys names them with the outcome, and does not count dead keys as proven",
    "status": "has a row for each",
}


def on_the_fleet() -> list[str]:
    """The playbooks on inference hosts and gateways."""
    found = []
    for path in sorted(PLAYBOOKS.glob("*.yml")):
        groups = re.search(r"begin_groups: \[(.*)\]", path.read_text())
        if groups and {"inference", "gateway"} & set(groups[1].split(", ")):
            found.append(path.stem)
    return found


@pytest.mark.parametrize("name", [name for name in on_the_fleet() if name != "store_restore"])
def test_hosts_that_are_not_reached_are_named(name: str) -> None:
    text = (PLAYBOOKS / f"{name}.yml").read_text()
    if name in OTHERWISE:
        words = {
            "asks no host": "Changes nothing, asks no host",
            "demands --limit": "ansible_limit|one_host",
            "role keys": "tasks_from: rotate",
            "has a row": "beyond",
        }
        expected = next(word for reason, word in words.items() if OTHERWISE[name].startswith(reason))
        assert re.search(expected, text)
    else:
        assert "include_tasks: tasks/beyond.yml" in text


def test_a_rotation_names_them_with_their_state() -> None:
    role = PLAYBOOKS.parent / "roles" / "keys"
    assert "__keys_unproven_said" in (role / "tasks" / "complete.yml").read_text()
    variables = yaml.safe_load((role / "vars" / "main.yml").read_text())
    assert "map(attribute='state')" in variables["__keys_unproven_said"]
