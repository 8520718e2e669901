from __future__ import annotations

import json
import typing as t

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish


def end(work: t.Callable[[], dict[str, t.Any]], capfd: pytest.CaptureFixture[str]) -> tuple[t.Any, dict[str, t.Any]]:
    """The module's exit status and result."""
    with patch_module_args({}), pytest.raises(SystemExit) as ended:
        finish(AnsibleModule(argument_spec={}), work)
    return ended.value.code, json.loads(capfd.readouterr().out)


def test_a_module_ends_with_what_its_work_returns(capfd: pytest.CaptureFixture[str]) -> None:
    status, result = end(lambda: {"changed": True, "path": "/x"}, capfd)
    assert status == 0
    assert (result["changed"], result["path"]) == (True, "/x")


def test_a_failure_keeps_its_message_and_details(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> dict[str, t.Any]:
        raise FleetError("The disk is full. Free space.", journal=["line"])

    status, result = end(work, capfd)
    assert status == 1
    assert (result["failed"], result["msg"]) == (True, "The disk is full. Free space.")
    assert result["journal"] == ["line"]


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def work() -> dict[str, t.Any]:
        raise ZeroDivisionError

    with patch_module_args({}), pytest.raises(ZeroDivisionError):
        finish(AnsibleModule(argument_spec={}), work)
