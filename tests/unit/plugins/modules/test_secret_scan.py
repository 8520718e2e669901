from __future__ import annotations

import gzip
import json
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint, new_key, sha256

from tests.unit.conftest import Result, RunModule

KEY, RETIRED_KEY = new_key(), new_key()
HASHES = [
    {"name": "team-a", "sha256": sha256(KEY)},
    {"name": "team-b", "sha256": sha256(RETIRED_KEY), "state": "retired"},
]

Scan = t.Callable[..., Result]


@pytest.fixture
def scan(run_module: RunModule) -> Scan:
    def run(check: bool = False, **arguments: t.Any) -> Result:
        result = run_module("secret_scan", {"host": "gpu-1", "hashes": HASHES, **arguments}, check=check)
        assert not [key for key in (KEY, RETIRED_KEY) if key in json.dumps(result)]
        return result

    return run


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a program of that name writes; what it is asked stands in ``asked`` beside it."""
    export = tmp_path / "export"
    program = tmp_path / "bin" / "journalctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncat "{export}"\necho "$*" > "{tmp_path}/asked"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return export


def test_every_kind_of_place_is_searched(scan: Scan, tmp_path: Path, journalctl: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "app.env").write_text(f"KEY={KEY}\n")
    (tree / "app.env").chmod(0o644)
    (tree / "app.log.1.gz").write_bytes(gzip.compress(RETIRED_KEY.encode()))
    (tree / "app.log.1.gz").chmod(0o600)
    journalctl.write_text(f"MESSAGE=refused {KEY}\n_SYSTEMD_UNIT=haproxy.service\n\n")
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"KEY": KEY}
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        result = scan(paths=[str(tree)], processes=True, journal=True, journal_since="-7d")
    assert not result["changed"]
    ours = {"host": "gpu-1", "fingerprint": fingerprint(KEY), "client": "team-a", "state": "live", "count": 1}
    old = {**ours, "fingerprint": fingerprint(RETIRED_KEY), "client": "team-b", "state": "retired"}
    file, rotated, journal, process = result["findings"]
    assert file == {**ours, "kind": "file", "where": f"{tree}/app.env", "mode": "0644", "readable_by_others": True}
    assert rotated == {
        **old,
        "kind": "file",
        "where": f"{tree}/app.log.1.gz",
        "mode": "0600",
        "readable_by_others": False,
    }
    assert journal == {**ours, "kind": "journal", "where": "haproxy.service", "mode": "", "readable_by_others": False}
    assert process["where"].startswith(f"environment of pid {child.pid} (python")
    assert {name: process[name] for name in ours} == ours
    searched = result["searched"]
    assert (searched["host"], searched["files"]) == ("gpu-1", 2)
    assert searched["bytes"] == len(f"KEY={KEY}\n") + len(RETIRED_KEY)
    assert searched["processes"] > 1
    assert searched["journal_bytes"] == journalctl.stat().st_size
    assert "--output=export" in (tmp_path / "asked").read_text()
    assert "--since=-7d" in (tmp_path / "asked").read_text()


def test_a_clean_machine_has_no_findings(scan: Scan, tmp_path: Path, journalctl: Path) -> None:
    (tmp_path / "file").write_text(f"{new_key()} {sha256(KEY)} {fingerprint(KEY)}")
    journalctl.write_text("MESSAGE=key sk-…\n\n")
    result = scan(paths=[str(tmp_path)], processes=True, journal=True)
    assert result["findings"] == []
    assert [place for place in result["unread"] if place["kind"] != "process"] == []


def test_nothing_is_searched_that_was_not_asked_for(scan: Scan) -> None:
    assert scan()["searched"] == {"host": "gpu-1", "files": 0, "bytes": 0, "processes": 0, "journal_bytes": 0}


def test_allowed_and_excluded_places_are_not_reported(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("store", "store.bak", "model.safetensors"):
        (tmp_path / name).write_text(KEY)
        (tmp_path / name).chmod(0o600)
    allowed = {"paths": ["~"], "allowed": ["~/store", "~/store.bak"], "exclude": ["*.safetensors"]}
    assert scan(**allowed)["findings"] == []
    (tmp_path / "store.bak").chmod(0o640)
    assert [(one["where"], one["mode"]) for one in scan(**allowed)["findings"]] == [(f"{tmp_path}/store.bak", "0640")]


def test_a_retired_key_that_the_store_still_has_may_stand_in_it(scan: Scan, tmp_path: Path) -> None:
    store = tmp_path / "keys.json"
    store.write_text(RETIRED_KEY)
    store.chmod(0o600)
    place = {"paths": [str(store)], "allowed": [str(store)]}
    assert [one["state"] for one in scan(**place)["findings"]] == ["retired"]
    assert scan(**place, hashes=[{**HASHES[1], "revealable": True}])["findings"] == []


def test_what_is_not_there_is_named_with_the_host(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = scan(paths=[str(tmp_path / "none")], journal=True)
    assert result["left_out"] == [
        {"host": "gpu-1", "where": f"{tmp_path}/none", "reason": "there is no such file or directory"}
    ]
    assert [(place["host"], place["kind"], place["gone"]) for place in result["unread"]] == [
        ("gpu-1", "journal", False)
    ]


def test_check_mode_searches_as_well(scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(KEY)
    assert scan(check=True, paths=[str(tmp_path)]) == scan(paths=[str(tmp_path)])
    assert (tmp_path / "file").read_text() == KEY


def test_a_search_for_nothing_is_refused(scan: Scan) -> None:
    result = scan(hashes=[], paths=["/etc"])
    assert result["failed"]
    assert "the search would prove nothing" in result["msg"]


def test_a_wrong_hash_is_refused(scan: Scan) -> None:
    assert "never the key" in scan(hashes=[{"name": "team-a", "sha256": "AB" * 32}])["msg"]
