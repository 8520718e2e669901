"""Clients and keys as rows of LiteLLM's database."""

from __future__ import annotations

import datetime
import hashlib
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gateway import litellm_keys as keys


def item(name: str, key: str, **more: t.Any) -> dict[str, t.Any]:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}


def test_two_keys_of_a_client_are_one_team() -> None:
    bounds = {
        "models": ["b", "a"],
        "requests_per_minute": 5,
        "tokens_per_minute": 7,
        "max_concurrent": 2,
        "budget": 3,
        "budget_period": "30d",
        "expires": "2027-01-31T12:00:00Z",
    }
    teams, tokens = keys.wanted([item("team-a", "1", **bounds), item("team-a", "2", **bounds)])
    assert teams == {
        "fleet-team-a": {
            "team_alias": "team-a",
            "models": ["a", "b"],
            "rpm_limit": 5,
            "tpm_limit": 7,
            "max_parallel_requests": 2,
            "max_budget": 3.0,
            "budget_duration": "30d",
        }
    }
    assert {row["team_id"] for row in tokens.values()} == {"fleet-team-a"}
    assert {row["expires"] for row in tokens.values()} == {datetime.datetime(2027, 1, 31, 12)}
    assert len({row["key_alias"] for row in tokens.values()}) == 2


def test_a_client_without_bounds_has_none() -> None:
    teams, tokens = keys.wanted([item("team-a", "1")])
    assert teams["fleet-team-a"]["max_budget"] is None
    [token] = tokens.values()
    assert token["expires"] is None
    assert token["models"] == []


def test_what_is_no_hash_is_refused() -> None:
    with pytest.raises(FleetError):
        keys.wanted([{"name": "team-a", "sha256": "sk-a-key-that-somebody-pasted"}])


def test_only_what_differs_is_written() -> None:
    _teams, before = keys.wanted([item("team-a", "1"), item("team-a", "2"), item("team-b", "3")])
    _teams, after = keys.wanted([item("team-a", "2"), item("team-b", "3", models=["x"]), item("team-c", "4")])
    steps = keys.steps(keys.KEYS, before, after)
    assert [(step.what, step.row["team_id"]) for step in steps] == [
        ("add", "fleet-team-c"),
        ("change", "fleet-team-b"),
        ("remove", "fleet-team-a"),
    ]
    assert str(steps[0]).startswith("add team-c sk-…")
    assert keys.steps(keys.KEYS, after, after) == []


@pytest.mark.parametrize("table", [keys.TEAMS, keys.KEYS])
@pytest.mark.parametrize("what", ["add", "change", "remove"])
def test_statements_have_as_many_values_as_places(table: keys.Table, what: str) -> None:
    row = dict.fromkeys(table.columns, "x")
    text, values = keys.Statement(table, what, "identity", row).statement()
    assert text.count("%s") == len(values)
    assert values[-1 if what == "change" else 0] == "identity"
