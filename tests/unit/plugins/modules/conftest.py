"""Fixtures of modules that install services."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

Calls = t.Callable[[], list[str]]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A systemctl that does what the module asks for, and what it was asked for.

    A unit runs that is in ``active``, and comes with a package that is in ``packages``.
    """
    program, log = tmp_path / "bin" / "systemctl", tmp_path / "systemctl.log"
    program.parent.mkdir()
    (tmp_path / "active").mkdir()
    program.write_text(
        f"""#!/bin/sh
units={tmp_path}/units active={tmp_path}/active
wants() {{ case $1 in *.timer) echo $units/timers.target.wants;; *) echo $units/multi-user.target.wants;; esac }}
case $1 in
show)
  test -e $active/$4 && echo ActiveState=active || echo ActiveState=inactive
  test -e {tmp_path}/packages/$4 && echo LoadState=loaded || echo LoadState=not-found
  exit;;
enable) mkdir -p $(wants $3); ln -sf ../$3 $(wants $3)/$3;;
disable) rm -f $(wants $4)/$4 $active/$4;;
restart) touch $active/$2;;
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
