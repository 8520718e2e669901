"""Which programs a cell's commands find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix.__main__ import environment


def test_a_cell_finds_its_own_programs_first_and_no_shim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/elsewhere/.pyenv/shims:/usr/bin:/bin")
    monkeypatch.setenv("ANSIBLE_CONFIG", "/elsewhere/ansible.cfg")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    found = environment(Path("/cell/bin"), Path("/pythons"), HOME="/cell/home")
    assert found["PATH"] == "/cell/bin:/pythons:/usr/bin:/bin"
    assert found["HOME"] == "/cell/home"
    assert not {"ANSIBLE_CONFIG", "PYTHONPATH"} & set(found)
