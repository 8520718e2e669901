"""The action plugin behind module console_host_keys; the console comes from moto's EC2."""

from __future__ import annotations

import typing as t
from pathlib import Path
from unittest import mock

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.action.console_host_keys import ActionModule
from moto.ec2.responses import general

from tests.unit.plugins.plugin_utils.aws.cloudwatch import REGION, moto
from tests.unit.plugins.plugin_utils.inventory.test_host_keys import CONSOLE, EC, ED

__all__ = ["moto"]

pytestmark = pytest.mark.usefixtures("moto")


def print_on_console(monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """Start an instance that has printed this; its id."""
    monkeypatch.setattr(general, "SAMPLE_CONSOLE_OUTPUT", text)
    made = boto3.client("ec2", REGION).run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)
    return str(made["Instances"][0]["InstanceId"])


def learn(instance: str, path: Path, *, check: bool = False, **further: t.Any) -> dict[str, t.Any]:
    arguments = {"instance": instance, "region": REGION, "address": "10.0.0.7", "path": str(path), "timeout": 0}
    task = mock.Mock(
        args={**arguments, **further}, async_val=0, check_mode=check, action="inference.fleet.console_host_keys"
    )
    action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
    result: dict[str, t.Any] = action.run(task_vars={})
    return result


def test_the_keys_of_a_new_instance_take_the_place_of_those_of_its_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    instance = print_on_console(monkeypatch, CONSOLE)
    path = tmp_path / "ssh" / "known_hosts"
    path.parent.mkdir()
    path.write_text("10.0.0.7 ssh-ed25519 AAAAold\n10.0.0.8 ssh-ed25519 AAAAother\n")
    foreseen = learn(instance, path, check=True)
    assert foreseen["changed"]
    assert "AAAAold" in path.read_text()
    learned = learn(instance, path)
    assert learned["changed"]
    assert path.read_text() == f"10.0.0.8 ssh-ed25519 AAAAother\n10.0.0.7 {EC}\n10.0.0.7 {ED}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    again = learn(instance, path)
    assert (again["changed"], again["fingerprints"]) == (False, learned["fingerprints"])


def test_a_first_known_hosts_file_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    instance = print_on_console(monkeypatch, CONSOLE)
    path = tmp_path / "ssh" / "known_hosts"
    assert learn(instance, path, port=2222)["changed"]
    assert path.read_text().startswith("[10.0.0.7]:2222 ")
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_host_that_is_known_and_whose_console_has_none_any_more_stays_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    instance = print_on_console(monkeypatch, "a kernel's messages of last week")
    path = tmp_path / "known_hosts"
    path.write_text(f"10.0.0.7 {ED}\n")
    assert not learn(instance, path)["changed"]


def test_a_console_without_keys_is_named_after_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    instance = print_on_console(monkeypatch, "GRUB")
    result = learn(instance, tmp_path / "known_hosts")
    assert result["failed"]
    assert f"The console of {instance} shows no SSH host keys after 0 s." in result["msg"]
    assert list(tmp_path.iterdir()) == []


def test_an_instance_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = learn("i-0123456789abcdef0", tmp_path / "known_hosts")
    assert result["failed"]
    assert "GetConsoleOutput of i-0123456789abcdef0 in us-east-1 failed (InvalidInstanceID.NotFound)" in result["msg"]
