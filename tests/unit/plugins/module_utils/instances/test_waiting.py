"""What a start waits for, in a file that programs of the unit write and modules read."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.instances import waiting

WAIT = waiting.Waiting(waiting.PORT_HELD, "Port 8100 is taken by pid 77 nc", 1000.5)


@pytest.fixture(autouse=True)
def start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOCATION_ID", "4f2e")


def change(directory: Path, **fields: t.Any) -> None:
    path = directory / waiting.NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_is_announced_is_read_until_it_is_withdrawn(tmp_path: Path) -> None:
    assert waiting.read(str(tmp_path), "4f2e") is None
    assert waiting.read(str(tmp_path / "no_such_directory"), "4f2e") is None
    waiting.announce(str(tmp_path), WAIT._replace(what="something else"))
    waiting.announce(str(tmp_path), WAIT)
    assert waiting.read(str(tmp_path), "4f2e") == WAIT
    assert stat.S_IMODE((tmp_path / waiting.NAME).stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == [waiting.NAME], "no temporary file stays"
    waiting.withdraw(str(tmp_path))
    waiting.withdraw(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_file_of_another_start_is_no_wait(tmp_path: Path) -> None:
    waiting.announce(str(tmp_path), WAIT)
    assert waiting.read(str(tmp_path), "another") is None


def test_a_file_of_a_killed_process_is_no_wait(tmp_path: Path) -> None:
    program = (
        f"import os, signal, sys; sys.path.insert(0, {str(Path(waiting.__file__).parent)!r}); import waiting; "
        f"waiting.announce({str(tmp_path)!r}, waiting.Waiting('port_held', 'Port', 1)); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert json.loads((tmp_path / waiting.NAME).read_text())["invocation"] == "4f2e"
    assert waiting.read(str(tmp_path), "4f2e") is None


def test_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    waiting.announce(str(tmp_path), WAIT)
    change(tmp_path, format=2, kind=["of", "another", "shape"])
    with pytest.raises(waiting.UnreadableError, match=r"has format 2, and this version .* reads format 1"):
        waiting.read(str(tmp_path), "4f2e")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "Port 8100 is taken", '{"format": 1, "invocation": "4f2e", "pid": 1}']
)
def test_what_is_no_such_file_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / waiting.NAME).write_text(text)
    with pytest.raises(waiting.UnreadableError, match=str(tmp_path)):
        waiting.read(str(tmp_path), "4f2e")


def test_a_link_or_a_pipe_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    (tmp_path / waiting.NAME).symlink_to("/etc/passwd")
    with pytest.raises(waiting.UnreadableError, match="cannot be read"):
        waiting.read(str(tmp_path), "4f2e")
    (tmp_path / waiting.NAME).unlink()
    os.mkfifo(tmp_path / waiting.NAME)
    with pytest.raises(waiting.UnreadableError):
        waiting.read(str(tmp_path), "4f2e")
