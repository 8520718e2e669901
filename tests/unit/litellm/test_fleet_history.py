"""What is logged about LiteLLM's database while it runs."""

from __future__ import annotations

import types
import typing as t
from pathlib import Path

import pytest

from tests.unit.litellm.conftest import Gauge, load, wait

Start = t.Callable[[str], types.ModuleType]


@pytest.fixture
def tries(tmp_path: Path) -> Path:
    file = tmp_path / "litellm-0.tries"
    file.write_text("2")
    return file


@pytest.fixture
def start(gauges: dict[str, Gauge], tries: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    def started(database: str) -> types.ModuleType:
        monkeypatch.setenv("FLEET_DATABASE", database)
        monkeypatch.setenv("FLEET_TRIES", str(tries))
        return load("fleet_history")

    return started


def test_prometheus_shows_whether_the_database_is_used(start: Start, gauges: dict[str, Gauge]) -> None:
    assert start("1").WRITTEN is True
    assert {name: gauge.value for name, gauge in gauges.items()} == {"fleet_database_used": 1}
    gauges.clear()
    assert start("0").WRITTEN is False
    assert gauges["fleet_database_used"].value == 0


def test_a_gateway_without_a_database_exports_no_gauge(history: types.ModuleType, gauges: dict[str, Gauge]) -> None:
    assert history.WRITTEN is None
    assert gauges == {}
    history.answered()


def test_an_answer_ends_the_count_of_tries(start: Start, tries: Path) -> None:
    history = start("1")
    assert tries.exists()
    history.answered()
    assert not tries.exists()
    history.answered()


def test_a_count_that_cannot_be_removed_fails_no_request(start: Start, tries: Path) -> None:
    tries.unlink()
    tries.mkdir()
    start("1").answered()


def test_an_answer_without_the_database_does_not(start: Start, tries: Path) -> None:
    start("0").answered()
    assert tries.read_text() == "2"


def test_an_authenticated_request_counts_as_an_answer(
    gateway: types.ModuleType, history: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[None] = []
    monkeypatch.setattr(history, "answered", lambda: answers.append(None))
    wait(gateway.auth(types.SimpleNamespace(url=types.SimpleNamespace(path="/v1/models")), "sk-of-the-host-itself"))
    assert len(answers) == 1
