"""The action plugin behind module show."""

from __future__ import annotations

import typing as t
from unittest import mock

import pytest
from ansible.errors import AnsibleError
from ansible_collections.inference.fleet.plugins.action.show import ActionModule


def show(**args: t.Any) -> dict[str, t.Any]:
    task = mock.Mock(args=args, async_val=0, check_mode=False, action="inference.fleet.show")
    action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
    result: dict[str, t.Any] = action.run(task_vars={})
    return result


def test_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    result = show(lines=["host   engine", "gpu-1  vllm", "two\nof them  "])
    assert result["lines"] == ["host   engine", "gpu-1  vllm", "two", "of them"]
    assert capsys.readouterr().out == "host   engine\ngpu-1  vllm\ntwo\nof them\n"


def test_no_lines_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(lines=[])["lines"] == []
    assert capsys.readouterr().out == ""


def test_lines_are_required() -> None:
    with pytest.raises(AnsibleError, match="lines"):
        show()
