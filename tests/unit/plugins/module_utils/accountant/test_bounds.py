"""The limits in the edge's map."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.accountant import bounds
from ansible_collections.inference.fleet.plugins.module_utils.accountant.ledger import ClientBounds
from ansible_collections.inference.fleet.plugins.module_utils.clients import edge_values
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits

A = edge_values.render("a", Limits({"tokens_per_minute": 200, "requests_per_minute": 5}))
B = edge_values.render("b", Limits({"budget": 0.25, "budget_period": "30d"}))
C = edge_values.render("c", Limits({"requests_per_minute": 5}))


def text(*values: str) -> str:
    return "".join(f"{number:064x} {value}\n" for number, value in enumerate(values))


def test_clients_with_limits_on_tokens_are_found() -> None:
    assert bounds.parse(text(A, B, C, "v=2|d") + "\n# no entry\n") == {
        "a": ClientBounds(tokens=200),
        "b": ClientBounds(budget=0.25, period=30 * 86400),
    }


def test_the_file_is_read_when_it_changes_and_kept_when_it_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "keys.map"
    said: list[str] = []
    known = bounds.BoundsFile(str(path), said.append)
    assert known.of("a") == ClientBounds()
    assert len(said) == 1
    path.write_text(text(A))
    assert known.of("a") == ClientBounds(tokens=200)
    path.write_text(text(A.replace("|200", "|300")))
    os.utime(path, ns=(1, 1))
    assert known.of("a") == ClientBounds(tokens=300)
    path.unlink()
    assert known.of("a") == ClientBounds(tokens=300)
    assert str(path) in said[-1]
