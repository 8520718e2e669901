"""Fixtures of modules that install services."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[], list[str]]:
    """A systemctl that does what the module asks for, and what it was asked for."""
    program, log = tmp_path / "bin" / "systemctl", tmp_path / "systemctl.log"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
units={tmp_path}/units
case $1 in
show) test -e {tmp_path}/active && echo ActiveState=active || echo ActiveState=inactive; exit;;
enable) mkdir -p $units/multi-user.target.wants; ln -sf ../$3 $units/multi-user.target.wants/$3;;
disable) rm $units/multi-user.target.wants/$4 {tmp_path}/active;;
restart) touch {tmp_path}/active;;
esac
echo "$@" >> {log}
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    def read() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    return read
