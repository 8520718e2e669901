"""The action plugin behind module status_page."""

from __future__ import annotations

import dataclasses
import stat
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.inference.fleet.plugins.action.status_page import ActionModule
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.hourly import Cost

from tests.unit.plugins.plugin_utils.status.status_fleet import client, gpu, lost, status


def write(path: Path, *, check: bool = False, **args: t.Any) -> dict[str, t.Any]:
    given = {"path": str(path), "hosts": {"gpu-1": status(), "gpu-2": lost()}, **args}
    task = mock.Mock(args=given, async_val=0, check_mode=check, action="inference.fleet.status_page")
    action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
    result: dict[str, t.Any] = action.run(task_vars={"inventory_hostname": "gpu-1"})
    return result


def test_the_page_is_written_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    result = write(path)
    assert not result.get("failed")
    assert result["summary"].startswith("1 of 2 hosts in service, ")
    assert (result["page"], result["problem"]) == (str(path), "")
    assert "gpu-2" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_all_that_was_read_is_on_it(tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    write(
        path,
        gateways=["gpu-1"],
        gpus={"gpu-1": gpu(), "gpu-2": {}},
        aws={"gpu-1": {"balancer": "healthy 1/1"}},
        costs=[dataclasses.asdict(Cost("gpu-1", "g6e.xlarge", 1, usd=1.861))],
        beyond=[{"host": "gpu-9", "state": "stopped"}],
        store={"clients": [client("team-a", due=True)]},
        rollouts=["a rollout is unfinished"],
        notes=["a note"],
    )
    text = path.read_text()
    for words in ("gateway", "1 x NVIDIA L40S", "healthy 1/1", "1.861", "gpu-9", "team-a", "unfinished", "a note"):
        assert words in text


def test_check_mode_says_what_it_would_write(tmp_path: Path) -> None:
    result = write(tmp_path / "status.html", check=True)
    assert result["changed"]
    assert result["diff"]["before"] == ""
    assert result["diff"]["after"] == f"{result['summary']}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_diff_is_the_fleet_then_and_now(tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    first = write(path, hosts={"gpu-1": status()})
    second = write(path)
    assert second["diff"]["before"] == f"{first['summary']}\n"
    assert "1 of 1 host in service" in second["diff"]["before"]
    assert "1 of 2 hosts in service" in second["diff"]["after"]


@pytest.mark.parametrize("content", [b"host: gpu-1\n", b"<html><title>Mine</title></html>", b"\xff\xfe\x00"])
def test_a_file_that_is_no_status_page_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "status.html"
    path.write_bytes(content)
    result = write(path)
    assert result["failed"]
    assert "is no status page. Nothing was overwritten" in result["msg"]
    assert path.read_bytes() == content


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    path.touch()
    assert not write(path).get("failed")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    missing = write(tmp_path / "gone" / "status.html")
    assert missing["failed"]
    assert f"The page {tmp_path}/gone/status.html cannot be written: No such file or directory." in missing["msg"]
    directory = write(tmp_path)
    assert f"{tmp_path} is a directory" in directory["msg"]


def test_a_prometheus_that_does_not_answer_is_a_warning_and_the_page_is_there(tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    result = write(path, prometheus_url="http://user:secret@127.0.0.1:1")
    assert not result.get("failed")
    assert result["warnings"] == [result["problem"]]
    assert "Prometheus at http://127.0.0.1:1: it does not answer" in path.read_text()
    assert "secret" not in path.read_text() + str(result)


def test_no_time_to_show_is_refused(tmp_path: Path) -> None:
    result = write(tmp_path / "status.html", prometheus_url="http://127.0.0.1:1", history=0)
    assert result["failed"]
    assert "history is 0 seconds" in result["msg"]
