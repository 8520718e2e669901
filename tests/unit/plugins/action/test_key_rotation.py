from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.inference.fleet.plugins.action.key_rotation import ARGUMENTS, ActionModule, KeyRotation
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import lock

INFERENCE = ["inference-10", "inference-2", "inference-1"]
GATEWAYS = ["gateway-2", "gateway-1"]
HOSTS = INFERENCE + GATEWAYS
PROOF = {"answered": ["a sk-…12345678"], "refused": 16, "failures": [], "changed": False}


class Run:
    """The states one after the other, as the role calls them."""

    def __init__(self, records: Path, hosts: list[str] = HOSTS) -> None:
        self.records = records
        self.hostvars: dict[str, dict[str, t.Any]] = {host: {"keys_proof": PROOF} for host in hosts}
        self.vars: dict[str, t.Any] = {
            "groups": {"inference": INFERENCE, "gateway": GATEWAYS},
            "ansible_play_hosts_all": hosts,
            "ansible_play_hosts": list(hosts),
            "hostvars": self.hostvars,
        }

    def __call__(self, state: str, check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
        defaults = {name: argument.get("default") for name, argument in ARGUMENTS.items()}
        given = {**defaults, "state": state, "records": str(self.records), "rotation": {"id": "r1"}, **arguments}
        return dict(getattr(KeyRotation(given, self.vars, check), state)())

    def lose(self, host: str) -> None:
        self.vars["ansible_play_hosts"].remove(host)

    @property
    def journal(self) -> list[dict[str, t.Any]]:
        return [json.loads(line) for line in (self.records / "rotations/r1.jsonl").read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "records")


@pytest.mark.parametrize(
    ("limit", "left_out"),
    [
        (["inference-1", *GATEWAYS], "inference-2, inference-10"),
        (INFERENCE, "gateway-1, gateway-2"),
        (GATEWAYS, "inference-1, inference-2, inference-10"),
        (["inference-1"], "gateway-1, gateway-2, inference-2, inference-10"),
    ],
)
def test_keys_change_on_the_whole_fleet(tmp_path: Path, limit: list[str], left_out: str) -> None:
    limited = Run(tmp_path, limit)
    for verb, what in (("rotate_keys", "A rotation"), ("keys", "A change of clients")):
        with pytest.raises(FleetError) as refused:
            limited("locked", verb=verb)
        assert f"{what} is of the whole fleet, inference hosts and gateways" in refused.value.message
        assert f"--limit leaves out {left_out}: the new keys would be refused there" in refused.value.message
    assert limited("locked", verb="store_restore")


def test_hosts_that_are_no_members_are_named_with_their_state(run: Run) -> None:
    assert run("locked")["beyond"] == []
    stopped = ["inference-11", "inference-3", "gateway-3", "store", "prometheus", "unknown"]
    run.vars["groups"].update({"not_running": stopped, "joining": ["new"], "leaving": ["inference-4"]})
    run.hostvars.update({name: {"fleet_role": name.partition("-")[0]} for name in stopped})
    run.hostvars.update({"store": {"fleet_role": "gateway_store"}, "prometheus": {"fleet_role": "monitoring"}})
    run.hostvars.update({"unknown": {}, "inference-3": {"fleet_role": "inference", "fleet_state": "stopping"}})
    run.hostvars.update({"new": {"fleet_role": "gateway", "fleet_state": "joining"}})
    run.hostvars.update({"inference-4": {"fleet_role": "inference", "fleet_state": "leaving"}})
    assert [(one["host"], one["state"]) for one in run("locked")["beyond"]] == [
        ("gateway-3", "not running"),
        ("inference-3", "stopping"),
        ("inference-4", "leaving"),
        ("inference-11", "not running"),
        ("new", "joining"),
        ("unknown", "not running"),
    ]


def test_a_rollout_keeps_a_rotation_out_and_the_other_way_round(run: Run) -> None:
    run("locked")
    holder = lock.current(str(run.records))
    assert holder is not None
    assert (holder.pid, holder.verb) == (os.getppid(), "rotate_keys")
    other = lock.holder_of(os.getpid(), "ops@here", "site", "now")
    with pytest.raises(FleetError, match=r"has been changing this fleet since .* \(rotate_keys, process"):
        lock.acquire(str(run.records), other, take_over=False)
    lock.acquire(str(run.records), other, take_over=True)
    with pytest.raises(FleetError, match=r"ops@here .* has been changing this fleet since now \(site, process"):
        run("locked")
    run("locked", take_over=True)


def test_all_is_well(run: Run) -> None:
    client = {
        "name": "a",
        "state": "pending",
        "stored_keys": [{"slot": "current", "fingerprint": "sk-…1", "sha256": "ab"}],
    }
    assert run("begun", clients=[client], options={"overlap": "24h"})["resumed"] is False
    run("noted", step="test")
    assert run("judged", step="test") == {"problems": [], "left_out": []}
    assert not run("ended")["failed"]
    assert [event["event"] for event in run.journal] == ["begin", "step", *["host"] * 5, "end"]
    begin = run.journal[0]
    assert begin["clients"] == [
        {"name": "a", "state": "pending", "keys": [{"slot": "current", "fingerprint": "sk-…1"}]}
    ]
    assert begin["options"] == {"overlap": "24h"}
    assert [event["host"] for event in run.journal[4:7]] == ["inference-1", "inference-2", "inference-10"]
    assert run.journal[2]["refused"] == 16
    assert run.journal[-1]["outcome"] == "completed"
    assert run("begun")["resumed"] is True


def test_what_speaks_against_going_on(run: Run) -> None:
    run.hostvars["inference-2"]["keys_failure"] = "the edge does not accept the live key of a"
    run.lose("inference-1")
    judged = run("judged", step="prove")
    assert judged["left_out"] == []
    assert judged["problems"] == [
        "inference-1 does not answer.",
        "inference-2: the edge does not accept the live key of a",
    ]
    skipping = run("judged", step="prove", skip_unreachable=True)
    assert skipping["left_out"] == ["inference-1"]
    assert skipping["problems"] == ["inference-2: the edge does not accept the live key of a"]
    assert run("ended", message="not over")["failed"]
    assert (run.journal[-1]["outcome"], run.journal[-1]["message"]) == ("failed", "not over")


def test_while_keys_are_retired_a_host_is_left_out_once_it_would_come_back_held(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(1000, 100000, 100))
    monkeypatch.setattr("time.time", lambda: float(next(moments)))
    run("begun")
    run.lose("inference-1")
    # Where no key dies, nothing is to be feared of it.
    assert run("judged", step="test", skip_unreachable=True)["left_out"] == ["inference-1"]
    retiring: dict[str, t.Any] = {"step": "prove", "skip_unreachable": True, "retiring": True}
    early = run("judged", **retiring, absence_limit=10000)
    assert early["left_out"] == []
    assert early["problems"][0].startswith("inference-1 does not answer. Run the same command again after 1970-")
    assert run("judged", **retiring, absence_limit=100)["left_out"] == ["inference-1"]


def test_a_fleet_that_does_not_answer_at_all_cannot_be_skipped(run: Run) -> None:
    for host in HOSTS:
        run.lose(host)
    assert len(run("judged", skip_unreachable=True)["problems"]) == 5


def test_a_check_writes_nothing(run: Run) -> None:
    run("locked", check=True)
    run("begun", check=True)
    run("ended", check=True)
    assert not run.records.exists()


def test_a_record_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.write_text("")
    args = {"state": "begun", "records": str(records), "rotation": {"id": "r1"}}
    task = mock.Mock(args=args, async_val=0, check_mode=False, action="inference.fleet.key_rotation")
    action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
    failed = action.run(
        task_vars={"groups": {}, "ansible_play_hosts_all": [], "ansible_play_hosts": [], "hostvars": {}}
    )
    assert failed["failed"]
    assert failed["msg"].startswith(f"The rotation's record under {records} cannot be written: ")
    assert failed["msg"].endswith("Free the disk or correct the directory's rights, then run again.")
