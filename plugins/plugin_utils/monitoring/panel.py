# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What a panel is, and Grafana's document of a dashboard from its panels. Pure.

Dashboards have no identifiers of a Grafana: any one loads them, and asks for the Prometheus to read.
"""

from __future__ import annotations

import dataclasses
import typing as t

#: Grafana's grid is 24 wide; a panel is as wide as this says, and rows follow from that.
_WIDTH, _HEIGHT = 24, 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclasses.dataclass(frozen=True)
class PanelQuery:
    """A curve: an expression, and what Grafana writes beside it."""

    expression: str
    legend: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """A picture.

    Attributes:
        title: what it shows.
        queries: its curves.
        unit: Grafana's name of it, such as ``s``, ``percentunit``, ``bytes``, ``reqps``, ``currencyUSD``.
        help: what to conclude from it.
        kind: ``timeseries``, ``stat`` or ``table``.
        width: of 24.
    """

    title: str
    queries: tuple[PanelQuery, ...]
    unit: str = "short"
    help: str = ""
    kind: str = "timeseries"
    width: int = 8


@dataclasses.dataclass(frozen=True)
class Dashboard:
    """A page of panels.

    Attributes:
        name: of its file.
        title: in Grafana.
        panels: in the order of reading.
        choices: labels to choose by, each with the metric that has its values.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    choices: tuple[tuple[str, str], ...] = ()


def grafana(dashboard: Dashboard) -> dict[str, t.Any]:
    """The document that Grafana imports."""
    return {
        "uid": f"fleet-{dashboard.name}",
        "title": f"Fleet: {dashboard.title}",
        "tags": ["inference.fleet"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), *(_choice(label, metric) for label, metric in dashboard.choices)]},
        "panels": [
            {"id": number, "gridPos": place, **_panel(panel)}
            for number, (panel, place) in enumerate(zip(dashboard.panels, _places(dashboard.panels)), 1)
        ],
    }


def _source() -> dict[str, t.Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _choice(label: str, metric: str) -> dict[str, t.Any]:
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _places(panels: t.Sequence[Panel]) -> t.Iterator[dict[str, int]]:
    left = top = 0
    for panel in panels:
        if left + panel.width > _WIDTH:
            left, top = 0, top + _HEIGHT
        yield {"x": left, "y": top, "w": panel.width, "h": _HEIGHT}
        left += panel.width


def _panel(panel: Panel) -> dict[str, t.Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
                **({"instant": True, "format": "table"} if panel.kind == "table" else {}),
            }
            for number, query in enumerate(panel.queries)
        ],
    }
