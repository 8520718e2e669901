from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge import usage


def test_times_and_fingerprints_are_made_readable() -> None:
    keys = {"bbbbbbbb": {"last_used": 1795374585, "requests": 1}, "aaaaaaaa": {"last_used": 1795374584, "requests": 12}}
    assert usage.parse(json.dumps({"since": 1795000000, "keys": keys})) == {
        "since": "2026-11-18T11:06:40Z",
        "usage": [
            {"fingerprint": "sk-…aaaaaaaa", "last_used": "2026-11-22T19:09:44Z", "requests": 12},
            {"fingerprint": "sk-…bbbbbbbb", "last_used": "2026-11-22T19:09:45Z", "requests": 1},
        ],
    }


def test_where_nothing_is_known_there_is_no_moment() -> None:
    assert usage.parse('{"since": null, "keys": {}}') == {"since": None, "usage": []}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"since": "x", "keys": {}}',
        '{"since": 1, "keys": {"a": 1}}',
        '{"since": 1, "keys": 7}',
    ],
)
def test_another_answer_says_what_to_do(answer: t.Any) -> None:
    with pytest.raises(FleetError, match=r"is not understood \(\w+\)\. Run playbooks/site\.yml"):
        usage.parse(answer)
