# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Alerts about what gateways run, with the names of LiteLLM's exposition and of the collection's additions to it."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert

ALERTS = (
    Alert(
        "DatabaseUnused",
        "{{ $labels.host }} {{ $labels.server }} writes down no spending",
        "fleet_database_used == 0",
        "ticket",
        "The process started without the gateways' database, or gave it up. Limits and budgets hold; the history lacks "
        "what is spent meanwhile.",
        "Its journal says why (What is spent cannot be written down). When the cause is fixed: "
        "playbooks/rolling_restart.yml -l gateway.",
        "10m",
    ),
    Alert(
        "GatewayErrors",
        "{{ $value | humanizePercentage }} of the requests at {{ $labels.host }} end with an error of the service",
        'sum by (host) (rate(litellm_proxy_failed_requests_metric_total{exception_status=~"5.."}[10m]))\n'
        "/ (sum by (host) (rate(litellm_proxy_total_requests_metric_total[10m])) > 0.1) > 0.02",
        "ticket",
        "More than 2 % of the requests at a gateway end with a 5xx by its own count. It also sees errors that the "
        "edges do not. 400, 401 and 429 are the clients' and not in it.",
        "The gateway's journal (journalctl -u UNIT) has the exception. If only one gateway has them, drain it.",
        "10m",
    ),
    Alert(
        "BudgetNear",
        "The client {{ $labels.client }} has spent {{ $value | humanizePercentage }} of its budget",
        "max by (client) (fleet_budget_spent_ratio) > 0.9",
        "none",
        "For the client's owner: at 100 % its requests get 429 until its budget period begins again. Give it a "
        "receiver of its own, with matchers.",
        "Raise budget in fleet_clients and run playbooks/keys.yml, or wait for the next period.",
    ),
)
