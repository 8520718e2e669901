"""Module key_usage where HAProxy does not run; tests/integration/edge has it with a real one."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.modules import key_usage

from tests.fakes.haproxy import FakeHaproxy
from tests.programs import install_edge
from tests.unit.conftest import Result, RunModule

Usage = t.Callable[..., Result]


@pytest.fixture
def places(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        "program": str(install_edge(tmp_path_factory.mktemp("haproxy")) / "key_usage.py"),
        "path": str(tmp_path / "key_usage.json"),
        "map_path": str(tmp_path / "keys.map"),
        "origin_path": str(tmp_path / "keys.origin.json"),
        "socket": str(tmp_path / "admin.sock"),
        "master_socket": str(tmp_path / "master.sock"),
    }


@pytest.fixture
def usage(run_module: RunModule, places: dict[str, str]) -> Usage:
    def run(check: bool = False, **changes: str) -> Result:
        return run_module("key_usage", {**places, **changes}, check=check)

    return run


def write(path: Path, **changes: t.Any) -> None:
    document = {
        "since": 1795000000,
        "saved": 1795374590,
        "closed": True,
        "keys": {"aaaaaaaa": {"last_used": 1795374584, "requests": 12}},
        "counted": {"pid": 7, "requests": {"aaaaaaaa": 12}},
    }
    path.write_text(json.dumps({**document, **changes}))


@pytest.mark.parametrize("check", [False, True])
def test_an_edge_that_was_stopped_is_known_from_its_files(usage: Usage, tmp_path: Path, check: bool) -> None:
    write(tmp_path / "key_usage.json")
    (tmp_path / "keys.map").write_text(f"# title\n{'b' * 64} team-b|600|0|0|\n{'a' * 64} team-a\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = usage(check=check)
    assert not result["changed"]
    assert result["since"] == "2026-11-18T11:06:40Z"
    assert result["usage"] == [{"fingerprint": "sk-…aaaaaaaa", "last_used": "2026-11-22T19:09:44Z", "requests": 12}]
    assert result["accepts"] == ["sk-…aaaaaaaa", "sk-…bbbbbbbb"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_bare_host_has_no_usage(usage: Usage) -> None:
    result = usage()
    assert (result["since"], result["usage"], result["accepts"]) == (None, [], [])


def test_a_damaged_file_is_a_warning(usage: Usage, places: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "key_usage.json").write_text("{")
    result = usage()
    assert result["since"] is None
    # Ansible's own way to carry a warning differs between a module on a host and this process.
    assert "key_usage.json cannot be read" in str(key_usage.run(places)["warnings"])


def test_without_the_program_it_says_what_to_do(usage: Usage, tmp_path: Path) -> None:
    result = usage(program=str(tmp_path / "none.py"))
    assert result["failed"]
    assert "none.py: the edge does not count its keys' use yet. Run playbooks/site.yml." in result["msg"]


def test_a_program_that_fails_is_reported_with_its_reason(usage: Usage, tmp_path: Path) -> None:
    # This stand-in has no table.
    with FakeHaproxy(tmp_path):
        result = usage()
    assert result["failed"]
    assert "HAProxy answered \"Unknown command: 'show table key_usage'\". Look at" in result["msg"]
    assert "systemctl status haproxy" in result["msg"]
