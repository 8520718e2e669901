"""The action plugin behind module rollout_event."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from ansible.errors import AnsibleError
from ansible_collections.inference.fleet.plugins.action.rollout_event import ActionModule
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.steps import STEPS


def note(*, check: bool = False, **args: t.Any) -> dict[str, t.Any]:
    task = mock.Mock(args=args, async_val=0, check_mode=check, action="inference.fleet.rollout_event")
    action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
    result: dict[str, t.Any] = action.run(task_vars={"inventory_hostname": "inference-1"})
    return result


def test_an_event_is_a_line_with_the_host(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    note(journal=str(path), event="step", fields={"instance": "vllm-0", "step": "drain", "attempt": 1})
    event = json.loads(path.read_text())
    assert event.pop("at") > 0
    assert event == {"event": "step", "host": "inference-1", "instance": "vllm-0", "step": "drain", "attempt": 1}


def test_without_a_journal_or_in_check_mode_nothing_is_written(tmp_path: Path) -> None:
    note(event="step", fields={"step": "drain"})
    note(event="step", fields={"step": "drain"}, journal=str(tmp_path / "journal.jsonl"), check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    result = note(event="step", fields={"step": "drain"}, journal=str(tmp_path / "gone" / "journal.jsonl"))
    assert not result.get("failed")
    assert "cannot be written" in result["warnings"][0]


def test_an_unknown_event_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnsibleError, match="value of event must be one of"):
        note(event="party", journal=str(tmp_path / "journal.jsonl"))


@pytest.mark.parametrize("fields", [{"step": "dance"}, {}])
def test_an_unknown_step_is_refused_with_those_that_there_are(tmp_path: Path, fields: dict[str, str]) -> None:
    result = note(event="step", journal=str(tmp_path / "journal.jsonl"), fields=fields)
    assert result["failed"]
    valid = ", ".join(step.name for step in STEPS)
    assert f"is no step of a rollout; valid are {valid}." in result["msg"]
    assert list(tmp_path.iterdir()) == []
