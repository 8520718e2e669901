# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway's /metrics say of the clients' budgets, beside LiteLLM's own figures. Part of a gateway's release."""

from __future__ import annotations

import typing as t

import prometheus_client
import prometheus_client.core


class Shares(t.Protocol):
    """What knows the share of its budget that each client has spent."""

    def shares(self) -> t.Mapping[str, float]: ...


class BudgetFigures:
    """The figures of the budgets, calculated when they are read: a new period begins without a request.

    Args:
        budgets: of the clients.
    """

    def __init__(self, budgets: Shares) -> None:
        self._budgets = budgets

    def describe(self) -> list[t.Any]:
        """Nothing that is known before it is read."""
        return []

    def collect(self) -> t.Iterator[t.Any]:
        """As prometheus_client asks for it."""
        text = "The share of its budget that a client has spent in this period, as this gateway knows it"
        figure = prometheus_client.core.GaugeMetricFamily("fleet_budget_spent_ratio", text, labels=["client"])
        for client, share in sorted(self._budgets.shares().items()):
            figure.add_metric([client], share)
        yield figure


def show(budgets: Shares) -> BudgetFigures:
    """Have Prometheus read the figures of these budgets."""
    figures = BudgetFigures(budgets)
    prometheus_client.REGISTRY.register(figures)
    return figures
