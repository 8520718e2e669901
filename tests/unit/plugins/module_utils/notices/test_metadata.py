"""Reading the metadata over HTTP."""

from __future__ import annotations

import socket
import time
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.notices.announced import PATHS, SPOT
from ansible_collections.inference.fleet.plugins.module_utils.notices.decision import MetadataLook
from ansible_collections.inference.fleet.plugins.module_utils.notices.metadata import Metadata

from tests.fakes.metadata import FakeMetadata


@pytest.fixture
def fake() -> t.Iterator[FakeMetadata]:
    with FakeMetadata() as server:
        yield server


def test_nothing_is_announced(fake: FakeMetadata) -> None:
    metadata = Metadata(fake.url)
    assert metadata.answers() == ""
    assert metadata.look() == MetadataLook()
    assert metadata.look() == MetadataLook()
    assert set(fake.asked) == set(PATHS.values())
    assert fake.tokens == 1


def test_everything_that_is_announced_is_found(fake: FakeMetadata) -> None:
    fake.announce_spot(120)
    fake.announce_maintenance(3600)
    fake.announce("autoscaling/target-lifecycle-state", "Terminated")
    fake.announce("events/recommendations/rebalance", {"noticeTime": "2026-11-29T12:00:00Z"})
    look = Metadata(fake.url).look()
    assert {notice.kind for notice in look.notices} == set(PATHS)
    assert look.problem == ""


def test_a_token_that_is_refused_is_replaced(fake: FakeMetadata) -> None:
    metadata = Metadata(fake.url)
    metadata.look()
    fake.forget_tokens()
    fake.announce_spot(120)
    look = metadata.look()
    assert [notice.kind for notice in look.notices] == [SPOT]
    assert (look.problem, fake.tokens) == ("", 2)


def test_a_token_is_replaced_before_it_ends(fake: FakeMetadata, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = Metadata(fake.url)
    metadata.look()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1900)
    metadata.look()
    assert fake.tokens == 2


def test_metadata_that_never_answers_costs_a_second(fake: FakeMetadata) -> None:
    fake.silent = True
    metadata = Metadata(fake.url)
    began = time.monotonic()
    look = metadata.look()
    assert time.monotonic() - began < 3
    assert look == MetadataLook(problem=f"{fake.url}: no whole answer within 1.0 s")
    assert metadata.answers() == look.problem


def test_metadata_that_is_not_there_is_a_problem() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert "connection refused" in Metadata(url).look().problem
    assert "connection refused" in Metadata(url).answers()


@pytest.mark.parametrize("status", [200, 403, 500, 503])
def test_a_page_of_something_else_drains_nothing(fake: FakeMetadata, status: int) -> None:
    fake.status = status
    look = Metadata(fake.url).look()
    assert look.notices == ()
    assert "spot/instance-action" in look.problem


def test_one_unreadable_document_hides_no_other(fake: FakeMetadata) -> None:
    fake.announce("events/maintenance/scheduled", "<html>")
    fake.announce_spot(120)
    look = Metadata(fake.url).look()
    assert [notice.kind for notice in look.notices] == [SPOT]
    assert look.problem == "events/maintenance/scheduled is no JSON"


def test_no_proxy_is_used(fake: FakeMetadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert Metadata(fake.url).look() == MetadataLook()
