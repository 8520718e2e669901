"""After all other tests: no key is left anywhere, and a leaked one would be found."""

from __future__ import annotations

import json
import re
import shlex
import typing as t
from pathlib import Path

import pytest

from lab import state
from tests.e2e.conftest import LAB, Fleet
from tests.project import Run

CHECK = "playbooks/check_secrets.yml"
ROTATE = "playbooks/rotate_keys.yml"
HOST = "inference-1"

#: Commands that leak a key in a place of each kind, a pattern for its line in the report, and the command that removes
#: it.
LEAKS = {
    "a file that everybody can read": (
        "echo export OPENAI_API_KEY={key} > /etc/profile.d/leak.sh; chmod 644 /etc/profile.d/leak.sh",
        "/etc/profile.d/leak.sh",
        "rm /etc/profile.d/leak.sh",
    ),
    "an editor's backup": (
        "echo '# {key}' > '/etc/haproxy/haproxy.cfg~'",
        "/etc/haproxy/haproxy.cfg~",
        "rm '/etc/haproxy/haproxy.cfg~'",
    ),
    "a unit file": (
        "printf '[Service]\\nEnvironment=KEY={key}\\nExecStart=/bin/true\\n' > /etc/systemd/system/leak.service",
        "/etc/systemd/system/leak.service",
        "rm /etc/systemd/system/leak.service",
    ),
    "an engine's cache": (
        'echo \'{{"env": {{"KEY": "{key}"}}}}\' > /var/cache/inference/cache_key_factors.json',
        "/var/cache/inference/cache_key_factors.json",
        "rm /var/cache/inference/cache_key_factors.json",
    ),
    "a log that was rotated": (
        "echo GET /v1/models?key={key} | gzip > /var/log/old.log.2.gz",
        "/var/log/old.log.2.gz",
        "rm /var/log/old.log.2.gz",
    ),
    "a process's environment": (
        "systemd-run --quiet --unit leak-environment --setenv KEY={key} sleep 3600",
        "environment of pid",
        "systemctl stop leak-environment",
    ),
    "a process's arguments": (
        "systemd-run --quiet --unit leak-arguments bash -c 'sleep 3600; : {key}'",
        "arguments of pid",
        "systemctl stop leak-arguments",
    ),
    "the journal": (
        "echo the key is {key} | systemd-cat --identifier leak",
        r"journal +(\S+, )?leak ",
        "journalctl --quiet --rotate --vacuum-time=1s",
    ),
}


@pytest.fixture
def key(demo: Run) -> str:
    document = json.loads((state.require(LAB).directory / "keys.json").read_text())
    return str(document["clients"]["demo"]["current"]["key"])


def found(run: Run) -> list[str]:
    """The lines of the table of findings."""
    lines = run.output.partition("TASK [Show where keys are]")[2].partition("TASK [")[0].splitlines()
    return [line for line in lines if "sk-…" in line]


def test_no_key_is_where_it_must_not_be(fleet: Fleet, demo: Run, key: str, tmp_path: Path) -> None:
    rotated = fleet.run("ansible-playbook", "-vvv", ROTATE, "-e", "client=gate")
    assert rotated.code == 0
    (tmp_path / "ansible.log").write_text(rotated.output)
    clean = fleet.playbook(CHECK, "-e", f"check_secrets_paths={tmp_path}")
    assert clean.code == 0, clean.output
    assert found(clean) == []
    assert "No key was found where it must not be" in clean.text
    # The search of that output can fail.
    (tmp_path / "ansible.log").write_text(f"{rotated.output}\n{key}\n")
    leaky = fleet.playbook(CHECK, "-e", f"check_secrets_paths={tmp_path}")
    assert leaky.code != 0
    (line,) = found(leaky)
    assert line.split()[0] == "controller"
    assert str(tmp_path / "ansible.log") in line
    assert "demo" in line
    assert key not in leaky.output


@pytest.fixture
def planted(fleet: Fleet, key: str) -> t.Iterator[None]:
    for plant, _where, _remove in LEAKS.values():
        fleet.on(HOST, plant.format(key=key))
    yield
    for _plant, _where, remove in LEAKS.values():
        fleet.on(HOST, remove)


def test_a_planted_key_is_found_in_each_kind_of_place(fleet: Fleet, key: str, planted: None) -> None:
    leaky = fleet.playbook(CHECK)
    assert leaky.code != 0
    lines = found(leaky)
    assert all(line.split()[0] == HOST for line in lines), lines
    missed = [
        kind for kind, (_plant, where, _remove) in LEAKS.items() if not any(re.search(where, line) for line in lines)
    ]
    assert missed == [], lines
    assert key not in leaky.output
    assert f"rotate_keys.yml -e client={shlex.quote('demo')} -e compromised=true" in leaky.text
