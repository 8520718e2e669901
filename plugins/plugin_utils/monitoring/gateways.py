# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Alerts and panels about gateways, with the names of LiteLLM's exposition and of the collection's additions to it."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.panel import Panel, PanelQuery

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
        "BudgetNear",
        "The client {{ $labels.client }} has spent {{ $value | humanizePercentage }} of its budget",
        "max by (client) (fleet_budget_spent_ratio) > 0.8",
        "ticket",
        "A client has spent more than 80 % of its budget for this period. When it is spent, its requests get 429 until "
        "the period ends. Each gateway knows what it saw; the highest figure counts.",
        "Tell its owner, or set a larger budget in fleet_clients and run playbooks/keys.yml; nothing restarts.",
    ),
    Alert(
        "AccountantDown",
        "Nothing counts tokens and budgets at {{ $labels.host }}",
        "fleet_accountant_wanted == 1\nunless on (host) time() - fleet_accountant_last_look_timestamp_seconds < 120",
        "ticket",
        "The accountant of a gateway of kind edge has written no figures for two minutes: it does not start, or hangs. "
        "Requests go on. Clients that it refused before stay refused until their minute or period is over; others are "
        "bounded by their limits on requests alone. What they use is counted when it is back.",
        "systemctl status inference-accountant on the host, and its journal. playbooks/site.yml -l HOST installs it "
        "again.",
        "5m",
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
)

_BY_CLIENT = "sum by (api_key_alias)"


#: What clients see: a gateway's edge, or a host's where there is no gateway. A token that both see counts once.
_FRONT = '{tier="front"}'


def _mean(metric: str) -> str:
    """Of a summary of the edges' logs, by client."""
    total, count = (f"sum by (client) (rate({metric}_{part}{_FRONT}[5m]))" for part in ("sum", "count"))
    return f"{total} / ({count} > 0)"


def _latency(metric: str, share: float) -> str:
    return f"histogram_quantile({share}, sum by (requested_model, le) (rate({metric}_bucket[5m])))"


PANELS = (
    Panel(
        "Requests by client",
        (PanelQuery(f"{_BY_CLIENT} (rate(litellm_proxy_total_requests_metric_total[5m]))", "{{api_key_alias}}"),),
        "reqps",
    ),
    Panel(
        "Requests by result",
        (PanelQuery("sum by (status_code) (rate(litellm_proxy_total_requests_metric_total[5m]))", "{{status_code}}"),),
        "reqps",
    ),
    Panel(
        "Errors of the service",
        (
            PanelQuery(
                'sum by (host) (rate(litellm_proxy_failed_requests_metric_total{exception_status=~"5.."}[5m]))',
                "{{host}}",
            ),
        ),
        "reqps",
        "Without 400, 401 and 429, which are the clients'.",
    ),
    Panel(
        "Output tokens by client",
        (PanelQuery(f"{_BY_CLIENT} (rate(litellm_output_tokens_metric_total[5m]))", "{{api_key_alias}}"),),
        help="A second.",
    ),
    Panel(
        "Input tokens by client",
        (PanelQuery(f"{_BY_CLIENT} (rate(litellm_input_tokens_metric_total[5m]))", "{{api_key_alias}}"),),
        help="A second.",
    ),
    Panel(
        "Refused with 429 by client",
        (PanelQuery("sum by (client, cause) (rate(fleet_requests_rejected_total[5m]))", "{{client}} {{cause}}"),),
        "reqps",
        "By the edges: limits of requests, of requests in flight, and queues.",
    ),
    Panel(
        "First token, 95 %",
        (PanelQuery(_latency("litellm_llm_api_time_to_first_token_metric", 0.95), "{{requested_model}}"),),
        "s",
        "Of streams, as the gateway sees the inference hosts.",
    ),
    Panel(
        "Whole answers, 95 %",
        (PanelQuery(_latency("litellm_request_total_latency_metric", 0.95), "{{requested_model}}"),),
        "s",
    ),
    Panel(
        "Seconds a request by client",
        (
            PanelQuery(
                "sum by (client) (rate(fleet_request_seconds_sum[5m]))"
                " / (sum by (client) (rate(fleet_request_seconds_count[5m])) > 0)",
                "{{client}}",
            ),
        ),
        "s",
        "A mean, from the edges' logs.",
    ),
    Panel(
        "Tokens of answers by client",
        (PanelQuery(f"sum by (client) (rate(fleet_answer_tokens_total{_FRONT}[5m]))", "{{client}}"),),
        help="A second, from the edges' logs; without streams that say nothing of their usage, as LiteLLM's do unless "
        "their client asks.",
    ),
    Panel(
        "Prompts found in the cache by client",
        (
            PanelQuery(
                f"sum by (client) (rate(fleet_cached_tokens_total{_FRONT}[5m]))"
                f" / (sum by (client) (rate(fleet_prompt_tokens_total{_FRONT}[5m])) > 0)",
                "{{client}}",
            ),
        ),
        "percentunit",
        "The share of their tokens, from the edges' logs.",
    ),
    Panel(
        "Seconds to the first token by client",
        (PanelQuery(_mean("fleet_first_token_seconds"), "{{client}}"),),
        "s",
        "A mean over streams, from the edges' logs: from the request's arrival on, queues included.",
    ),
    Panel(
        "Seconds a further token by client",
        (PanelQuery(_mean("fleet_token_gap_seconds"), "{{client}}"),),
        "s",
        "A mean over streams, from the edges' logs.",
    ),
    Panel(
        "Answers whose usage is not known, by client",
        (
            PanelQuery(
                'sum by (client, usage) (rate(fleet_answers_total{tier="front",usage!="whole"}[5m]))',
                "{{client}} {{usage}}",
            ),
        ),
        "reqps",
        "Partial: broken off, with what was used until a quarter of a second before.",
    ),
    Panel(
        "Days until keys expire",
        (PanelQuery("(min by (client) (fleet_client_expires_timestamp_seconds) - time()) / 86400", "{{client}}"),),
        "d",
        kind="table",
    ),
    Panel(
        "Budget that is spent",
        (PanelQuery("max by (client) (fleet_budget_spent_ratio)", "{{client}}"),),
        "percentunit",
        "Of the present period. A client is here after its first request.",
    ),
    Panel(
        "Spending is recorded",
        (PanelQuery("fleet_database_used", "{{host}} {{server}}"),),
        help="0: without the database.",
    ),
)
