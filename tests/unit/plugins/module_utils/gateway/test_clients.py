from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gateway import clients

A, B = "a" * 64, "b" * 64


def item(name: str, digest: str, **limits: t.Any) -> dict[str, t.Any]:
    """A hash as module api_key returns it."""
    nothing: dict[str, t.Any] = {"models": [], "requests_per_minute": None, "expires": ""}
    nothing |= {"budget": None, "budget_period": ""}
    return {"name": name, "sha256": digest, "slot": "current", **nothing, **limits}


def test_two_keys_of_a_client_share_what_it_may_do() -> None:
    limits = {"requests_per_minute": 60, "models": ["b", "a"], "expires": "2027-01-31T00:00:00Z"}
    document = clients.document([item("team-a", B, **limits), item("team-a", A, **limits)])
    assert document == {
        "version": 1,
        "keys": {A: "team-a", B: "team-a"},
        "clients": {"team-a": {"models": ["a", "b"], "requests_per_minute": 60, "expires": 1801353600}},
    }


def test_a_client_without_bounds_has_none() -> None:
    assert clients.document([item("team-a", A)])["clients"] == {"team-a": {}}


def test_a_budgets_period_is_given_in_seconds() -> None:
    document = clients.document([item("team-a", A, budget=2.5, budget_period="30d")])
    assert document["clients"]["team-a"] == {"budget": 2.5, "budget_seconds": 30 * 86400}


def test_the_file_is_json_in_one_order() -> None:
    both = [item("b", B), item("a", A)]
    text = clients.render(clients.document(both))
    assert text == clients.render(clients.document(both[::-1]))
    assert json.loads(text)["keys"] == {A: "a", B: "b"}


def test_what_is_no_hash_is_refused() -> None:
    with pytest.raises(FleetError, match="is not 64 lower case hexadecimal digits"):
        clients.document([item("team-a", "sk-a-key-that-somebody-pasted")])
