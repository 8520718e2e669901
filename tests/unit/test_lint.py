"""The static checks: one list for script/test, the hooks of pre-commit and the messages."""

from __future__ import annotations

import re
import subprocess

import yaml

from tests.project import ROOT


def checks() -> list[str]:
    found = re.search(r"^all=\((.*)\)$", (ROOT / "script/lint").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1].split()


def test_the_hooks_run_each_check_once() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert sorted(hook["entry"] for hook in hooks) == sorted(f"script/lint {check}" for check in checks())
    assert {hook["language"] for hook in hooks} == {"system"}, "a hook would be downloaded"


def test_every_check_has_its_command() -> None:
    text = (ROOT / "script/lint").read_text(encoding="utf-8")
    commands = re.findall(r"^    ([a-z][a-z-]*)\)", text, re.MULTILINE)
    assert commands == checks()


def test_an_unknown_check_is_refused() -> None:
    done = subprocess.run([ROOT / "script/lint", "rufff"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no check 'rufff'; checks are: ruff format" in done.stderr
