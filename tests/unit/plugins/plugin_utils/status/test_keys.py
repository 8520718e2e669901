from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.status.keys import show_expiries, show_keys

from tests.unit.plugins.plugin_utils.status.status_fleet import NOW, client

PREVIOUS = {"slot": "previous", "fingerprint": "sk-…aa", "retired": "", "retire_at": "2026-09-22T00:00:00Z"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"expires": "2027-09-21T00:00:00Z"}, []),
        ({"expires": "2026-10-04T14:00:00Z"}, [("warn", "expires in 12d23h")]),
        ({"expires": "2026-09-23T00:00:00Z"}, [("bad", "expires in 1d9h")]),
        ({"expires": "2026-09-21T14:13:20Z"}, [("bad", "expired: its requests are refused")]),
        ({"expires": "2026-09-20T00:00:00Z", "due": True}, [("bad", "expired: its requests are refused")]),
        ({"due": True}, [("warn", "due for rotation: made 2026-09-01 00:00")]),
        ({"expires": "no moment"}, []),
        ({"stored_keys": [PREVIOUS]}, [("", "the previous key, refused from then on")]),
        ({"stored_keys": [{**PREVIOUS, "retired": "2026-09-20T00:00:00Z"}]}, []),
    ],
)
def test_a_client_is_listed_where_its_key_ends_or_is_due(
    changes: dict[str, t.Any], expected: list[tuple[str, str]]
) -> None:
    shown = show_keys({"clients": [client("team-a", **changes)]}, NOW)
    assert [(row.kind, row.what) for row in shown.rows] == expected
    assert (shown.quiet, shown.problem) == (
        "1 client: none expires within 14 days, and no key is due for rotation.",
        "",
    )


def test_what_ends_first_is_first() -> None:
    clients = [client("b", expires="2026-09-30T00:00:00Z"), client("a", expires="2026-09-22T00:00:00Z")]
    assert [row.client for row in show_keys({"clients": clients}, NOW).rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("store", "said"),
    [({"failed": True, "msg": "keys.json is not JSON."}, "keys.json is not JSON."), ({}, "was not read")],
)
def test_a_store_that_was_not_read_is_named(store: dict[str, t.Any], said: str) -> None:
    shown = show_keys(store, NOW)
    assert shown.rows == []
    assert said in shown.problem


def test_a_rotation_in_progress_is_a_sentence() -> None:
    rotation = {"id": "r", "step": "test", "by": "anna", "started": "2026-09-21T13:00:00Z"}
    assert show_keys({"clients": [], "rotation": rotation}, NOW).rotation == (
        "A rotation of keys is in progress since 2026-09-21 13:00, in step test, by anna."
    )
    assert show_keys({"clients": [], "rotation": None}, NOW).rotation == ""


def test_edges_know_who_expires_and_nothing_of_rotations() -> None:
    shown = show_expiries({"team-b": NOW + 86400, "team-a": NOW - 60, "team-c": NOW + 40 * 86400}, NOW)
    assert [(row.kind, row.client, row.what) for row in shown.rows] == [
        ("bad", "team-a", "expired: its requests are refused"),
        ("bad", "team-b", "expires in 1d"),
    ]
    assert {row.cells[1] for row in shown.rows} == {"-"}
    assert "no key is due" not in shown.quiet
