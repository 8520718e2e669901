"""The dashboards' files, and their layout."""

from __future__ import annotations

import json

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.dashboards import DASHBOARDS
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.panel import (
    Dashboard,
    Panel,
    PanelQuery,
    grafana,
)

from tests import dashboards


def test_the_files_are_up_to_date() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in dashboards.FOLDER.glob("*.json")}
    assert found == dashboards.written(), "run: python -m tests.dashboards"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.name)
def test_no_panel_covers_another(dashboard: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in grafana(dashboard)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.name)
def test_what_can_be_chosen_is_used_and_what_is_used_can_be_chosen(dashboard: Dashboard) -> None:
    text = json.dumps([query.expression for panel in dashboard.panels for query in panel.queries])
    for label in ("host", "server"):
        assert (f"${label}" in text) == (label in dict(dashboard.choices)), label


def test_a_dashboard_needs_no_identifiers_of_one_grafana() -> None:
    one = grafana(Dashboard("x", "y", (Panel("a", (PanelQuery("up", "{{host}}"),)),)))
    assert one["panels"][0]["datasource"] == {"type": "prometheus", "uid": "${source}"}
    assert [choice["name"] for choice in one["templating"]["list"]] == ["source"]
    assert "id" not in one
