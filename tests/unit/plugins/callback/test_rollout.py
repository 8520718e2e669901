from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.callback import rollout
from ansible_collections.inference.fleet.plugins.plugin_utils.report.files import read
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal as rollout_journal

from tests.unit.plugins.plugin_utils.rollout.rollout_journals import Journal, good_run, rolled_back, unreachable

ROOT = Path(__file__).resolve().parents[4]
ACTION = "inference.fleet.rollout"


class Named(t.NamedTuple):
    name: str

    def get_name(self) -> str:
        return self.name


class Task(t.NamedTuple):
    action: str
    ignore_unreachable: bool = False


class Result(t.NamedTuple):
    """The parts of a task's result that a callback reads."""

    result: dict[str, t.Any]
    task: Task = Task(ACTION)
    host: Named = Named("inference-1")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    (tmp_path / "records" / "1").mkdir(parents=True)
    return tmp_path / "records" / "1" / "journal.jsonl"


@pytest.fixture
def callback() -> t.Iterator[rollout.CallbackModule]:
    plugin = rollout.CallbackModule()
    yield plugin
    if plugin._tail:
        plugin.v2_playbook_on_stats(None)


def append(journal: Path, text: str) -> None:
    with open(journal, "a") as file:
        file.write(text)


def begin(callback: rollout.CallbackModule, journal: Path, **more: t.Any) -> None:
    callback.v2_runner_on_ok(Result({"refused": "", "journal": str(journal), "journal_offset": 0, **more}))


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]


def test_lines_appear_while_another_thread_writes_the_journal(
    callback: rollout.CallbackModule, journal: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "_POLL_SECONDS", 0.005)
    text = rolled_back().text
    first = text.index("\n") + 1

    def write() -> None:
        # In chunks with arbitrary ends, so that lines are seen half-written.
        for start in range(first, len(text), 97):
            append(journal, text[start : start + 97])
            time.sleep(0.001)

    begin(callback, journal)
    append(journal, text[:first])
    found: list[str] = []
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        time.sleep(0.005)
        found = shown(capsys)
    writer = threading.Thread(target=write)
    writer.start()
    writer.join()
    callback.v2_playbook_on_stats(None)
    found += shown(capsys)
    assert found[0] == "rollout    0:00  site of 3 hosts in 3 waves, about 3 min 45 s"
    assert sum("gate failed:" in line for line in found) == 1
    assert sum(" done in " in line for line in found) == 1
    assert found[-2].startswith("rollout stopped after 3 min 00 s: 1 of 3 hosts done")
    assert found[-1] == f"rollout page: {journal.parent / 'index.html'}"
    assert json.loads((journal.parent / "record.json").read_text())["outcome"] == "stopped"


def test_it_begins_where_this_run_began(
    callback: rollout.CallbackModule, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = unreachable()
    append(journal, old.text)
    new = Journal().tick(9000).begin([["inference-1"]], event="resume", done=[]).tick(2).turn(1, 1, ["inference-1"])
    append(journal, new.change("inference-1").end().text)
    begin(callback, journal, journal_offset=len(old.text.encode()))
    callback.v2_playbook_on_stats(None)
    found = shown(capsys)
    assert found[0] == "rollout    0:00  goes on with 1 host in 1 wave, about 75 s"
    assert not [line for line in found if "unreachable after" in line]
    assert found[-2].startswith("rollout finished in")


def test_the_journal_may_be_named_within_the_result_and_come_later(
    callback: rollout.CallbackModule, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback.v2_runner_on_failed(Result({"rollout": {"journal": str(journal)}}, Task("rollout")))
    append(journal, good_run().text)
    callback.v2_playbook_on_stats(None)
    assert shown(capsys)[-2] == "rollout finished in 3 min 52 s: 3 of 3 hosts done"


def test_the_same_journal_again_is_no_news_and_another_one_ends_the_first(
    callback: rollout.CallbackModule, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(journal, good_run().text)
    begin(callback, journal)
    begin(callback, journal)
    other = journal.parent.parent / "2"
    other.mkdir()
    append(other / "journal.jsonl", unreachable().text)
    begin(callback, other / "journal.jsonl")
    callback.v2_playbook_on_stats(None)
    found = shown(capsys)
    assert [line for line in found if "page:" in line] == [
        f"rollout page: {path / 'index.html'}" for path in (journal.parent, other)
    ]
    assert sum("wave 1 of 3" in line for line in found) == 1


@pytest.mark.parametrize(
    "result",
    [
        Result({"journal": "elsewhere"}, Task("ansible.builtin.command")),
        Result({"changed": False}),
        Result({"journal": None, "rollout": None}),
        Result({"censored": "the output has been hidden"}),
    ],
)
def test_without_a_rollout_nothing_is_shown(
    callback: rollout.CallbackModule, result: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    callback.v2_runner_on_ok(result)
    callback.v2_runner_on_unreachable(result)
    callback.v2_playbook_on_stats(None)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def outcomes(journal: Path) -> list[tuple[str, str]]:
    events = rollout_journal.read(str(journal))
    return [(event["host"], event["outcome"]) for event in events if event["event"] == "outcome"]


def lost(host: str, ignored: bool = False) -> Result:
    message = "Failed to connect to the host via ssh: timed out"
    return Result({"msg": message, "unreachable": True}, Task("ansible.builtin.ping", ignored), Named(host))


def test_a_host_that_is_lost_in_its_turn_is_noted_once(callback: rollout.CallbackModule, journal: Path) -> None:
    begun = Journal().begin([["inference-1", "inference-2"], ["inference-3"]])
    begun.turn(1, 2, ["inference-1", "inference-2"]).step("inference-1", "start")
    append(journal, begun.outcome("inference-2", "rolled_back").text)
    begin(callback, journal)
    callback.v2_runner_on_unreachable(lost("inference-1", ignored=True))
    assert outcomes(journal) == [("inference-2", "rolled_back")]
    for host in ("inference-1", "inference-1", "inference-2", "inference-3", "stranger"):
        callback.v2_runner_on_unreachable(lost(host))
    assert outcomes(journal) == [("inference-2", "rolled_back"), ("inference-1", "unreachable")]
    said = rollout_journal.read(str(journal))[-1]["message"]
    assert said.startswith("inference-1 does not answer any more in its step start (Failed to connect")


def test_a_host_that_a_run_before_left_in_its_turn_is_not_in_this_ones(
    callback: rollout.CallbackModule, journal: Path
) -> None:
    begun = Journal().begin([["inference-1"]]).turn(1, 1, ["inference-1"]).tick(60)
    append(journal, begun.begin([["inference-1"]], event="resume").text)
    begin(callback, journal)
    callback.v2_runner_on_unreachable(lost("inference-1"))
    assert outcomes(journal) == []


def test_what_goes_wrong_is_one_warning(
    callback: rollout.CallbackModule, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(callback, journal, journal_offset="much")
    begin(callback, journal)
    journal.mkdir()
    callback.v2_runner_on_unreachable(lost("inference-1"))
    callback.v2_playbook_on_stats(None)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("[WARNING]") == 1
    assert "cannot show the rollout" in captured.err


def test_a_terminal_that_breaks_costs_the_lines_and_not_the_page(
    callback: rollout.CallbackModule, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: t.Any, **kwargs: t.Any) -> None:
        raise BrokenPipeError("gone")

    append(journal, good_run().text)
    monkeypatch.setattr(callback._display, "display", broken)
    begin(callback, journal)
    callback.v2_playbook_on_stats(None)
    record = read(str(journal.parent))
    assert (journal.parent / "index.html").exists()
    assert record
    assert record["outcome"] == "finished"


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.import_tasks: "{{ lookup('inference.fleet.progress', 'tasks.yml') }}"
"""
TASKS = """
- rollout: {journal: "{{ journal }}"}
  run_once: true
- rollout: {journal: "{{ journal }}", text: "{{ text }}"}
  run_once: true
- ansible.builtin.raw: "true"
- rollout: {journal: "{{ journal }}", text: "{{ later }}", seconds: 60}
"""
PLUGIN = """
import time
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        with open(self._task.args["journal"], "a") as file:
            file.write(self._task.args.get("text", ""))
        time.sleep(self._task.args.get("seconds", 0))
        return {**result, "journal": self._task.args["journal"], "journal_offset": 0}
"""


@pytest.fixture
def ansible(tmp_path: Path, journal: Path) -> t.Callable[[Journal], subprocess.Popen[str]]:
    """Start a real run of Ansible on this machine, in which the host inference-2 is unreachable."""
    (tmp_path / "action_plugins").mkdir()
    (tmp_path / "action_plugins" / "rollout.py").write_text(textwrap.dedent(PLUGIN))
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    (tmp_path / "tasks.yml").write_text(TASKS)
    local = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    (tmp_path / "hosts.ini").write_text(f"inference-1 {local}\ninference-2 ansible_host=127.0.0.1 ansible_port=1\n")

    def run(written: Journal) -> subprocess.Popen[str]:
        later = Journal().add("decision", text="Nothing else is to come.").text
        variables = json.dumps({"journal": str(journal), "text": written.text, "later": later})
        return subprocess.Popen(
            [Path(sys.executable).parent / "ansible-playbook", "-i", "hosts.ini", "play.yml", "-e", variables],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
                "ANSIBLE_SSH_RETRIES": "0",
                "ANSIBLE_HOME": str(tmp_path / "ansible"),
                # As for a user who has not set it.
                "PYTHONUNBUFFERED": "",
            },
        )

    return run


def test_a_real_run_reports_a_lost_host_and_an_interrupted_one_leaves_its_page(
    ansible: t.Callable[[Journal], subprocess.Popen[str]], journal: Path
) -> None:
    begun = Journal().begin([["inference-1"], ["inference-2"]]).turn(1, 2, ["inference-1"]).change("inference-1")
    process = ansible(begun.turn(2, 2, ["inference-2"]).step("inference-2", "start"))
    assert process.stdout
    output = ""
    for line in process.stdout:
        output += line
        # It comes at once, though the output is a pipe and its task has a minute to go.
        if "Nothing else is to come" in line:
            break
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert "inference-1 vllm-0  gate passed" in output
    assert "inference-2 unreachable after" in output
    assert "[WARNING]" not in output + rest
    assert process.returncode == 99
    assert re.search(r"rollout broken off after [\w ]+: 1 of 2 hosts done, 1 unreachable\n", rest)
    assert f"rollout page: {journal.parent / 'index.html'}" in rest
    assert outcomes(journal) == [("inference-1", "done"), ("inference-2", "unreachable")]
    assert "does not answer any more in its step start" in (journal.parent / "index.html").read_text()


def test_all_filters_have_been_read_when_the_last_one_was_found() -> None:
    files = sorted(path.stem for path in (Path(__file__).parents[4] / "plugins" / "filter").glob("*.py"))
    last = importlib.import_module(f"ansible_collections.inference.fleet.plugins.filter.{files[-1]}")
    assert rollout._LAST_FILTER.removeprefix("inference.fleet.") in last.FilterModule().filters()
