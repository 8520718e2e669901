"""Common client libraries at a host's edge. test_gateway has the same for the gateways."""

from __future__ import annotations

import pytest

from tests.e2e import clients
from tests.e2e.conftest import Fleet
from tests.project import MODEL, ROOT, Run


@pytest.mark.parametrize("name", clients.CASES)
def test_an_edge_answers_as_expected(demo: Run, fleet: Fleet, name: str) -> None:
    host = f"http://{fleet.address('inference-1')}:8000"
    found = clients.outcome(clients.Service(host, fleet.environment["OPENAI_API_KEY"], MODEL), name)
    # Which models call tools, and how, depends on their family; both sides must still agree on it.
    if name in clients.EXPECTED:
        assert found == clients.EXPECTED[name]


def test_what_differs_at_gateways_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "clients.md").read_text()
    assert [name for name in clients.DIFFERENT if f"`{name}`" not in page] == []
