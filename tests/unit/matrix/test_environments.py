"""How the matrix finds a Python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.matrix import environments

HERE = "{}.{}".format(*sys.version_info)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_shim_that_runs_nothing_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / f"python{HERE}", "echo 'command not found' >&2; exit 127")
    real = program(tmp_path / f"pyenv/versions/{HERE}.1/bin/python", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert environments.find_python(HERE) == real


def test_a_python_that_is_not_available_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(environments, "UV", program(tmp_path / "uv", "exit 1"))
    with pytest.raises(environments.Missing, match=r"Python 3\.99 is not on this machine .* matrix -- CELL"):
        environments.find_python("3.99")


def test_a_python_that_uv_downloads_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = f'[ "$2" != find ] || [ "$3" = --no-python-downloads ] || echo {sys.executable}'
    uv = f'{found}\n[ "$3" != --no-python-downloads ]'
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(environments, "UV", program(tmp_path / "uv", uv))
    assert environments.find_python("3.99") == Path(sys.executable)


def test_the_copy_for_ansible_test_has_no_link_back_to_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "PLACE", tmp_path)
    fleet = environments.copy_collection()
    assert (fleet / "galaxy.yml").exists()
    assert (fleet / ".git").is_dir()
    assert not (fleet / "collections").exists()
    assert (fleet.parents[1] / "amazon" / "aws").is_dir()
