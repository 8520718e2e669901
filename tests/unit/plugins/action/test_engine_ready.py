from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.inference.fleet.plugins.action.engine_ready import ActionModule

from tests.fakes.engine import FakeEngine

ROOT = Path(__file__).resolve().parents[4]
Result = dict[str, t.Any]

INSTANCES = [
    {"name": "vllm-0", "unit": "vllm@0.service", "engine_port": 8100},
    {"name": "vllm-1", "unit": "vllm@1.service", "engine_port": 8101},
]


def doing(unit: str, phase: str, seconds: float) -> Result:
    return {"unit": unit, "phase": phase, "text": f"{phase}!", "percent": None, "seconds": seconds}


@dataclasses.dataclass
class Host:
    """Stands in for the module on a host: returns one result after the other, and records its arguments."""

    results: list[Result]
    asked: list[Result] = dataclasses.field(default_factory=list)

    def run(self, args: Result, check: bool = False) -> Result:
        task = mock.Mock(args=args, async_val=0, check_mode=check, action="inference.fleet.engine_ready")
        action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
        with mock.patch.object(action, "_execute_module", self.execute):
            return action.run(task_vars={"inventory_hostname": "inference-1"})

    def execute(self, module_name: str, module_args: Result, task_vars: Result) -> Result:
        assert module_name == "inference.fleet.engine_ready"
        assert task_vars == {"inventory_hostname": "inference-1"}
        self.asked.append(dict(module_args))
        module_args["_ansible_added"] = True
        return self.results.pop(0)


def events(journal: Path) -> list[Result]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


@pytest.mark.parametrize("journal", [{}, {"journal": ""}, {"journal": None}])
def test_without_a_journal_the_module_runs_once_as_it_is(journal: Result) -> None:
    host = Host([{"changed": False, "ready": True, "seconds": {"vllm@0.service": 9.0}}])
    assert host.run({"instances": INSTANCES, "timeout": 7, **journal})["seconds"] == {"vllm@0.service": 9.0}
    assert host.asked == [{"instances": INSTANCES, "timeout": 7}]


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    host = Host([{"changed": False, "ready": True, "seconds": {}}])
    host.run({"instances": INSTANCES, "journal": str(tmp_path / "journal.jsonl")}, check=True)
    assert host.asked == [{"instances": INSTANCES}]
    assert list(tmp_path.iterdir()) == []


def test_each_slice_is_written_down_and_hands_over_to_the_next(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    state = {"since": 1000.5, "restarts": {"vllm@0.service": 0, "vllm@1.service": 2}}
    serving = [doing("vllm@0.service", "serving", 5.2), doing("vllm@1.service", "loading", 5.2)]
    both = [doing("vllm@0.service", "serving", 7.0), doing("vllm@1.service", "serving", 7.0)]
    host = Host(
        [
            {"ready": False, "seconds": {"vllm@0.service": 4.0}, "progress": serving, **state},
            {"ready": True, "seconds": {"vllm@0.service": 5.1, "vllm@1.service": 7.0}, "progress": both, **state},
        ]
    )
    result = host.run({"instances": INSTANCES, "timeout": 7, "journal": str(journal)})
    assert result["ready"]
    assert result["seconds"] == {"vllm@0.service": 4.0, "vllm@1.service": 7.0}
    plain = {"instances": INSTANCES, "timeout": 7, "slice": 5.0}
    assert host.asked == [plain, {**plain, **state}]
    written = events(journal)
    assert [(event["instance"], event["phase"], event["seconds"]) for event in written] == [
        ("vllm-0", "serving", 5.2),
        ("vllm-1", "loading", 5.2),
        ("vllm-0", "serving", 7.0),
        ("vllm-1", "serving", 7.0),
    ]
    assert {(event["event"], event["host"], event["text"], event["percent"]) for event in written[:1]} == {
        ("progress", "inference-1", "serving!", None)
    }


@pytest.mark.parametrize(
    "failure",
    [
        {"failed": True, "msg": "vllm@0.service ended while it started", "reason": "out_of_memory"},
        {"unreachable": True, "msg": "Failed to connect to the host via ssh"},
    ],
)
def test_a_failure_ends_it_and_is_given_back_as_it_is(tmp_path: Path, failure: Result) -> None:
    first = {"ready": False, "seconds": {}, "since": 1.0, "restarts": {}, "progress": [doing("vllm@0.service", "x", 5)]}
    host = Host([first, failure])
    assert host.run({"instances": INSTANCES, "journal": str(tmp_path / "journal.jsonl")}) == failure
    assert len(events(tmp_path / "journal.jsonl")) == 1


def test_a_journal_that_cannot_be_written_does_not_fail_the_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    progress = [doing("vllm@0.service", "loading", 5), doing("vllm@1.service", "loading", 5)]
    result = {"ready": True, "seconds": {}, "since": 1.0, "restarts": {}, "progress": progress}
    assert Host([result]).run({"instances": INSTANCES, "journal": str(tmp_path / "none" / "journal.jsonl")})["ready"]
    said = capfd.readouterr().err.replace("\n", " ")
    assert said.count("cannot be written to the journal") == 1
    assert "No such file or directory" in said


SYSTEMCTL = """#!/bin/sh
cat <<END
LoadState=loaded
ActiveState=active
SubState=running
Result=success
NRestarts=1
MainPID={pid}
ExecMainStatus=0
END
"""
JOURNALCTL = """#!/bin/sh
echo 'Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.0s/it]'
"""
PLAY = """
- hosts: localhost
  gather_facts: false
  module_defaults:
    group/inference.fleet.fleet:
      timeout: 60
  tasks:
    - inference.fleet.engine_ready:
        instances: [{{name: vllm-0, unit: vllm@0.service, engine_port: {port}}}]
        journal: {journal}
      register: waited
    - ansible.builtin.assert:
        that: [waited is not changed, waited.ready, "waited.seconds['vllm@0.service'] > 5"]
"""


def test_ansible_runs_it(tmp_path: Path) -> None:
    """End to end: Ansible, the action, the module in two slices, an engine that becomes healthy in the second."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("systemctl", SYSTEMCTL.format(pid=os.getpid())), ("journalctl", JOURNALCTL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    journal = tmp_path / "journal.jsonl"
    with FakeEngine() as engine:
        engine.faults.set("unhealthy")
        (tmp_path / "play.yml").write_text(PLAY.format(port=engine.port, journal=journal))
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        play = subprocess.Popen(
            [
                Path(sys.executable).parent / "ansible-playbook",
                "-i",
                "localhost,",
                "-c",
                "local",
                tmp_path / "play.yml",
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        healing = threading.Thread(target=_heal_after_the_first_slice, args=(engine, journal))
        healing.start()
        output = play.communicate(timeout=120)[0]
        healing.join()
    assert play.returncode == 0, output
    assert "WARNING" not in output
    written = events(journal)
    assert [(event["instance"], event["phase"], event["percent"]) for event in written] == [
        ("vllm-0", "loading", 50),
        ("vllm-0", "serving", 100),
    ]
    assert written[1]["seconds"] > written[0]["seconds"] >= 5


def _heal_after_the_first_slice(engine: FakeEngine, journal: Path) -> None:
    deadline = time.monotonic() + 60
    while not journal.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    engine.faults.clear()
