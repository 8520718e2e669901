# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The objectives: how many requests may fail or be slow, and the alerts that say that it is too many.

Windows and factors are those of the SRE workbook (https://sre.google/workbook/alerting-on-slos/). A short window beside
the long one ends the alert soon after its cause. A floor of requests keeps two failures at night from being a page.
"""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.promql import (
    FRONT,
    Monitored,
    buckets,
    count,
    each,
    within,
)

#: The share of requests that may fail within 30 days: 99.9 % get an answer, and all of it.
FAILED = 0.001
#: The share whose first token may take longer than 1 s, and longer than 10 s.
SLOW_START = 0.05
NO_START = 0.01
#: The share of tokens that may come more than 0.1 s after the one before.
SLOW_TOKENS = 0.01
#: The least requests (or answers with a first token) in the long window.
FLOOR = 100

_ANSWERS = "haproxy_backend_http_responses_total"
_CUT = "haproxy_backend_server_aborts_total"


def failed_share(window: str) -> str:
    """The share of the front tier's requests that got a 5xx or a stream that was cut. 4xx and 429 are no failures."""
    return (
        f'(sum by (tier) (rate({_ANSWERS}{{{FRONT},code="5xx"}}[{window}]))'
        f" + sum by (tier) (rate({_CUT}{{{FRONT}}}[{window}])))"
        f" / (sum by (tier) (rate({_ANSWERS}{{{FRONT}}}[{window}])) > 0)"
    )


def slow_first_tokens(seconds: int, window: str) -> str:
    """The share of answers, of each model, whose first token took longer than so many seconds."""
    return _slow(lambda one: one.names.first_token, within(seconds), window)


def slow_tokens(window: str) -> str:
    """The share of tokens, of each model, that took longer than 0.1 s."""
    return _slow(lambda one: one.names.token_gap, 'le="0.1"', window)


def _slow(histogram: t.Callable[[Monitored], t.Any], bound: str, window: str) -> str:
    fast = each(lambda one: f"rate({buckets(histogram(one), bound)}[{window}])").replace("\n", " ")
    every = each(lambda one: f"rate({count(histogram(one))}[{window}])").replace("\n", " ")
    return f"1 - sum by (model_name) ({fast}) / (sum by (model_name) ({every}) > 0)"


def _burn(share: t.Callable[[str], str], floor: str, windows: tuple[str, str], limit: float) -> str:
    """Both windows are above the limit, and there was enough to judge by. The value is that of the short one."""
    long, short = windows
    return f"{_above(share(short), limit)}\nand {_above(share(long), limit)}\nand {floor} > {FLOOR}"


def _above(share: str, limit: float) -> str:
    return f"({share}) > {limit:.6g}"


def _requests(window: str) -> str:
    return f"sum by (tier) (increase({_ANSWERS}{{{FRONT}}}[{window}]))"


def _started(window: str) -> str:
    every = each(lambda one: f"increase({count(one.names.first_token)}[{window}])").replace("\n", " ")
    return f"sum by (model_name) ({every})"


_LOOK_AT_FAILURES = (
    "Run playbooks/status.yml: which hosts are down, drained or without a passed gate? The edge's journal on each "
    "front host has a line for each request (status, instance, end): journalctl -u haproxy | grep ' status=5'. If "
    "one host fails, drain it with playbooks/drain.yml -l HOST. If it began with a rollout, playbooks/rollback.yml "
    "goes back."
)
_LOOK_AT_START = (
    "Is the queue growing (dashboard Engine, QueueGrows)? Then requests come faster than the fleet works: add hosts or "
    "limit the client that sends them (dashboard Gateway and clients). If one host is slower than its peers, drain it. "
    "Long prompts or images without traffic growth: playbooks/plan.yml says what the profile costs."
)

ALERTS = (
    Alert(
        "ErrorBudgetBurnFast",
        "{{ $value | humanizePercentage }} of the requests of the last 5 minutes failed",
        _burn(failed_share, _requests("1h"), ("1h", "5m"), 14.4 * FAILED),
        "page",
        "Requests fail 14 times as often as the objective of 99.9 % allows, for an hour by now; 2 % of a month's "
        "budget are gone. A failure is a 5xx or a stream that was cut, as the front tier's edges count them. Error "
        "events inside a complete stream are not seen there.",
        _LOOK_AT_FAILURES,
    ),
    Alert(
        "ErrorBudgetBurnSlow",
        "{{ $value | humanizePercentage }} of the requests of the last 30 minutes failed",
        _burn(failed_share, _requests("6h"), ("6h", "30m"), 6 * FAILED),
        "page",
        "Requests fail 6 times as often as the objective allows, for hours. The month's budget is gone in five days.",
        _LOOK_AT_FAILURES,
    ),
    Alert(
        "ErrorBudgetBurnLong",
        "{{ $value | humanizePercentage }} of the requests of the last 6 hours failed",
        _burn(failed_share, _requests("3d"), ("3d", "6h"), FAILED),
        "ticket",
        "Over three days more requests fail than the objective allows. Nothing is down; something is not quite right.",
        _LOOK_AT_FAILURES,
    ),
    Alert(
        "FirstTokenBurnFast",
        "{{ $value | humanizePercentage }} of the answers of {{ $labels.model_name }} began after more than 1 s",
        _burn(lambda window: slow_first_tokens(1, window), _started("1h"), ("1h", "5m"), 14.4 * SLOW_START),
        "page",
        "The objective is a first token within 1 s for 95 % of the answers; more than 72 % are slower, for an hour. "
        "Clients see a service that does not react.",
        _LOOK_AT_START,
    ),
    Alert(
        "FirstTokenBurnSlow",
        "{{ $value | humanizePercentage }} of the answers of {{ $labels.model_name }} began after more than 1 s",
        _burn(lambda window: slow_first_tokens(1, window), _started("6h"), ("6h", "30m"), 6 * SLOW_START),
        "page",
        "More than 30 % of the first tokens take longer than 1 s, for hours.",
        _LOOK_AT_START,
    ),
    Alert(
        "FirstTokenStalls",
        "{{ $value | humanizePercentage }} of the answers of {{ $labels.model_name }} began after more than 10 s",
        _burn(lambda window: slow_first_tokens(10, window), _started("1h"), ("1h", "5m"), 14.4 * NO_START),
        "page",
        "The objective is a first token within 10 s for 99 % of the answers; more than 14 % take longer, for an hour. "
        "Many clients have given up by then.",
        _LOOK_AT_START,
    ),
    Alert(
        "TokenGapBurn",
        "{{ $value | humanizePercentage }} of the tokens of {{ $labels.model_name }} came after more than 0.1 s",
        _burn(slow_tokens, _started("6h"), ("6h", "30m"), 6 * SLOW_TOKENS),
        "ticket",
        "The objective is 0.1 s between tokens for 99 % of them; more than 6 % are slower, for hours. Text appears "
        "slower than people read: batches are too full, the KV cache is too small, or a GPU is throttled.",
        "Look at dashboard Engine: running requests, KV cache, preemptions. Set a lower limit of requests an instance, "
        "or add hosts. GpuThrottled and HostSlowerThanPeers name a host that is the cause.",
    ),
)
