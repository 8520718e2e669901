# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The dashboards: fleet, host, engine, gateway and clients, GPU. ``python -m tests.dashboards`` writes them. Pure.

A panel has the same expression for all engines: what they name differently is in their records.
"""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.gateways import PANELS as GATEWAY_PANELS
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.objectives import (
    failed_share,
    slow_first_tokens,
    slow_tokens,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.panel import Dashboard, Panel, PanelQuery
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.promql import (
    FRONT,
    INSTANCE,
    TO_INSTANCES,
    Monitored,
    buckets,
    each,
    select,
)

_HOST = 'host=~"$host"'
_SERVER = 'server=~"$server"'
_HERE = f"{_HOST},{_SERVER}"
_MILLION = 1000000
#: What the hosts that answer cost. The monitoring host has the prices of all of them.
_PRICE = (
    "sum(max by (of) (fleet_price_dollars_per_hour) * on (of)"
    ' label_replace(max by (host) (up{job="edge"}), "of", "$1", "host", "(.*)"))'
)


def _all(part: t.Callable[[Monitored], str]) -> str:
    return each(part).replace("\n", " ")


def _rate(name: t.Callable[[Monitored], str], window: str = "5m", *matchers: str) -> str:
    return _all(lambda one: f"rate({select(name(one), *matchers)}[{window}])")


def _quantile(share: float, histogram: t.Callable[[Monitored], t.Any], by: str, *matchers: str) -> str:
    every = _all(lambda one: f"rate({buckets(histogram(one), *matchers)}[5m])")
    return f"histogram_quantile({share}, sum by ({by}, le) ({every}))"


def _gauge(name: t.Callable[[Monitored], str], *matchers: str) -> str:
    return f"max by (host, server) ({_all(lambda one: select(name(one), *matchers))})"


def _dollars_per_million(tokens: str) -> str:
    """Dollars for a million tokens: the price of the hosts that are up, over what all of them did."""
    return f"{_PRICE} / 3600 / ({tokens} > 0) * {_MILLION}"


_OUTPUT = f"sum({_rate(lambda one: one.names.generated, '1h')})"
_EVERY_TOKEN = f"({_OUTPUT} + sum({_rate(lambda one: one.names.prompted, '1h')}))"
_ANSWERS = "haproxy_backend_http_responses_total"
_AT_A_TIME = f"sum by (code) (rate({_ANSWERS}{{{FRONT}}}[5m]))"

FLEET = Dashboard(
    "fleet",
    "overview",
    (
        Panel(
            "Alerts that fire",
            (PanelQuery('ALERTS{alertstate="firing",severity!="none"}', "{{alertname}} {{host}}"),),
            kind="table",
            width=12,
            help="docs/alerts.md has an entry for each.",
        ),
        Panel(
            "Instances in service",
            (
                PanelQuery(f'sum by (kind) (haproxy_server_status{{{INSTANCE},state="UP"}})', "{{kind}} up"),
                PanelQuery('count by (kind) (up{job="engine"})', "{{kind}} all"),
            ),
            width=12,
            help="Below half of them CapacityHalf pages.",
        ),
        Panel(
            "Requests by result",
            (PanelQuery(_AT_A_TIME, "{{code}}"),),
            "reqps",
            "At the front tier, without scrapes and health checks.",
        ),
        Panel(
            "Failed requests",
            (PanelQuery(failed_share("5m"), "5 minutes"), PanelQuery(failed_share("1h"), "1 hour")),
            "percentunit",
            "5xx and streams that were cut. The objective is 0.1 %.",
        ),
        Panel(
            "First tokens after more than 1 s",
            (PanelQuery(slow_first_tokens(1, "5m"), "{{model_name}}"),),
            "percentunit",
            "The objective is 5 %.",
        ),
        Panel(
            "First token",
            (
                PanelQuery(_quantile(0.5, lambda one: one.names.first_token, "model_name"), "{{model_name}} median"),
                PanelQuery(_quantile(0.95, lambda one: one.names.first_token, "model_name"), "{{model_name}} 95 %"),
            ),
            "s",
        ),
        Panel(
            "Time between tokens",
            (
                PanelQuery(_quantile(0.5, lambda one: one.names.token_gap, "model_name"), "{{model_name}} median"),
                PanelQuery(_quantile(0.99, lambda one: one.names.token_gap, "model_name"), "{{model_name}} 99 %"),
            ),
            "s",
        ),
        Panel(
            "Output tokens",
            (PanelQuery(f"sum by (model_name) ({_rate(lambda one: one.names.generated_now)})", "{{model_name}}"),),
            "short",
            "A second, by all hosts.",
        ),
        Panel(
            "Requests in the engines",
            (
                PanelQuery(f"sum({_all(lambda one: one.counters.running)})", "running"),
                PanelQuery(f"sum({_all(lambda one: one.counters.waiting)})", "waiting"),
            ),
        ),
        Panel(
            "Drains and claims",
            (
                PanelQuery("count by (by) (fleet_drain_since_timestamp_seconds)", "drained by {{by}}"),
                PanelQuery("count by (verb) (fleet_rollout_claim_timestamp_seconds)", "claimed: {{verb}}"),
            ),
        ),
        Panel(
            "Probe",
            (PanelQuery("fleet_probe_seconds", "{{target}}"),),
            "s",
            "A completion of one token as a client asks for it, once a minute.",
        ),
        Panel(
            "Cost per hour",
            (PanelQuery(_PRICE, "the hosts that are scraped"),),
            "currencyUSD",
            "List or own prices of the hosts whose targets are up (fleet_hourly_price).",
            width=6,
        ),
        Panel(
            "Cost of a million output tokens",
            (PanelQuery(_dollars_per_million(_OUTPUT), "$/1M"),),
            "currencyUSD",
            "All of the cost is put on the output.",
            width=6,
        ),
        Panel(
            "Cost of a million tokens",
            (PanelQuery(_dollars_per_million(_EVERY_TOKEN), "$/1M"),),
            "currencyUSD",
            "Prompts count like output, the cached ones too.",
            width=6,
        ),
        Panel(
            "Cost of a million output tokens, best hour of a week",
            (PanelQuery(f"min_over_time(({_dollars_per_million(_OUTPUT)})[7d:1h])", "$/1M"),),
            "currencyUSD",
            "What it costs when the fleet is full.",
            width=6,
        ),
    ),
)

HOST = Dashboard(
    "host",
    "host",
    (
        Panel(
            "Instances",
            (PanelQuery(f'haproxy_server_status{{{INSTANCE},{_HOST},state="UP"}}', "{{host}} {{server}}"),),
            help="1 is in service.",
        ),
        Panel(
            "Requests in flight",
            (PanelQuery(f"haproxy_server_current_sessions{{{INSTANCE},{_HOST}}}", "{{host}} {{server}}"),),
            help="By the edge's own count, which also sees a hang.",
        ),
        Panel(
            "Requests that wait in the edge",
            (PanelQuery(f"haproxy_backend_current_queue{{{TO_INSTANCES},{_HOST}}}", "{{host}} {{proxy}}"),),
        ),
        Panel(
            "Answers by result",
            (PanelQuery(f"sum by (host, code) (rate({_ANSWERS}{{{TO_INSTANCES},{_HOST}}}[5m]))", "{{host}} {{code}}"),),
            "reqps",
        ),
        Panel(
            "Streams that were cut",
            (
                PanelQuery(
                    f"sum by (host) (rate(haproxy_backend_server_aborts_total{{{TO_INSTANCES},{_HOST}}}[5m]))",
                    "{{host}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Refused with 429",
            (
                PanelQuery(
                    f"sum by (host, cause) (rate(fleet_requests_rejected_total{{{_HOST}}}[5m]))", "{{host}} {{cause}}"
                ),
            ),
            "reqps",
        ),
        Panel(
            "Time between tokens, median",
            (PanelQuery(_quantile(0.5, lambda one: one.names.token_gap, "host", _HOST), "{{host}}"),),
            "s",
            "A host above its peers is slower: GPU, PCIe, or something else runs there.",
        ),
        Panel(
            "CPU",
            (PanelQuery(f'1 - avg by (host) (rate(node_cpu_seconds_total{{mode="idle",{_HOST}}}[5m]))', "{{host}}"),),
            "percentunit",
        ),
        Panel("Memory available", (PanelQuery(f"node_memory_MemAvailable_bytes{{{_HOST}}}", "{{host}}"),), "bytes"),
        Panel(
            "Disks, free",
            (
                PanelQuery(
                    f"fleet_disk_available_bytes{{{_HOST}}} / fleet_disk_size_bytes{{{_HOST}}}", "{{host}} {{what}}"
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Network",
            (
                PanelQuery(
                    f'sum by (host) (rate(node_network_receive_bytes_total{{device!="lo",{_HOST}}}[5m]))', "{{host}} in"
                ),
                PanelQuery(
                    f'sum by (host) (rate(node_network_transmit_bytes_total{{device!="lo",{_HOST}}}[5m]))',
                    "{{host}} out",
                ),
            ),
            "Bps",
        ),
        Panel(
            "Watchdog",
            (
                PanelQuery(f"fleet_watchdog_verdict{{{_HOST}}}", "{{host}} {{server}}"),
                PanelQuery(f"fleet_watchdog_restarts_total{{{_HOST}}}", "{{host}} {{server}} restarts"),
            ),
            help="0 ok, 1 suspect, 2 hang, 3 gave up, -1 unknown.",
        ),
        Panel("Releases", (PanelQuery(f"fleet_release_info{{{_HOST}}}", "{{host}}"),), kind="table", width=12),
        Panel("Gates", (PanelQuery(f"fleet_gate_passed{{{_HOST}}}", "{{host}} {{name}}"),), kind="table", width=12),
    ),
    (("host", 'up{job="edge"}'),),
)

ENGINE = Dashboard(
    "engine",
    "engine",
    (
        Panel(
            "Requests that run", (PanelQuery(_gauge(lambda one: one.counters.running, _HERE), "{{host}} {{server}}"),)
        ),
        Panel(
            "Requests that wait", (PanelQuery(_gauge(lambda one: one.counters.waiting, _HERE), "{{host}} {{server}}"),)
        ),
        Panel(
            "KV cache in use",
            (PanelQuery(_gauge(lambda one: one.counters.kv_usage, _HERE), "{{host}} {{server}}"),),
            "percentunit",
            "Full is good use; preemptions are the harm.",
        ),
        Panel(
            "Preemptions",
            (
                PanelQuery(
                    f"sum by (host, server) ({_rate(lambda one: one.names.preempted, '5m', _HERE)})",
                    "{{host}} {{server}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "First token, 95 %",
            (
                PanelQuery(
                    _quantile(0.95, lambda one: one.names.first_token, "host, server", _HERE), "{{host}} {{server}}"
                ),
            ),
            "s",
        ),
        Panel(
            "Time between tokens, 99 %",
            (
                PanelQuery(
                    _quantile(0.99, lambda one: one.names.token_gap, "host, server", _HERE), "{{host}} {{server}}"
                ),
            ),
            "s",
        ),
        Panel(
            "Whole answers, 95 %",
            (
                PanelQuery(
                    _quantile(0.95, lambda one: one.names.whole_answer, "host, server", _HERE), "{{host}} {{server}}"
                ),
            ),
            "s",
        ),
        Panel(
            "Output tokens a second",
            (
                PanelQuery(
                    f"sum by (host, server) ({_rate(lambda one: one.names.generated_now, '5m', _HERE)})",
                    "{{host}} {{server}}",
                ),
            ),
        ),
        Panel(
            "Prompt tokens a second",
            (
                PanelQuery(
                    f"sum by (host, server) ({_rate(lambda one: one.names.prompted, '1h', _HERE)})",
                    "{{host}} {{server}}",
                ),
                PanelQuery(
                    f"sum by (host, server) ({_rate(lambda one: one.names.cached, '1h', _HERE)})",
                    "{{host}} {{server}} cached",
                ),
            ),
            help="Over an hour: some engines count them when a request ends.",
        ),
        Panel(
            "Requests that ended",
            (
                PanelQuery(
                    f"sum by (host, server) ({_rate(lambda one: one.vitals.finished, '5m', _HERE)})",
                    "{{host}} {{server}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Tokens after more than 0.1 s",
            (PanelQuery(slow_tokens("5m"), "{{model_name}}"),),
            "percentunit",
            "The objective is 1 %.",
        ),
        Panel(
            "First tokens after more than 10 s",
            (PanelQuery(slow_first_tokens(10, "5m"), "{{model_name}}"),),
            "percentunit",
            "The objective is 1 %.",
        ),
    ),
    (("host", 'up{job="engine"}'), ("server", 'up{job="engine"}')),
)

GATEWAY = Dashboard("gateway", "gateway and clients", GATEWAY_PANELS)

GPU = Dashboard(
    "gpu",
    "GPU",
    (
        Panel(
            "Verdict",
            (PanelQuery(f"fleet_gpu_verdict{{{_HOST}}}", "{{host}} GPU {{gpu}}"),),
            help="0 ok, 1 degraded, 2 failed: playbooks/verify_gpu.yml says why.",
        ),
        Panel("GPUs missing", (PanelQuery(f"fleet_gpu_expected{{{_HOST}}} - fleet_gpu_count{{{_HOST}}}", "{{host}}"),)),
        Panel(
            "Power",
            (PanelQuery(f"fleet_gpu_power_watts{{{_HOST}}}", "{{host}} GPU {{gpu}}"),),
            "watt",
            "A hung engine with the power of an idle GPU spins.",
        ),
        Panel(
            "Reasons of lower clocks",
            (PanelQuery(f"fleet_gpu_clock_event_reasons{{{_HOST}}}", "{{host}} GPU {{gpu}}"),),
            help="A mask: 0x4 power cap is normal; 0x8, 0x40, 0x80 hardware, 0x20 heat.",
        ),
        Panel(
            "Uncorrectable memory errors",
            (PanelQuery(f"fleet_gpu_ecc_uncorrected_total{{{_HOST}}}", "{{host}} GPU {{gpu}}"),),
        ),
        Panel(
            "Rows of memory to remap",
            (
                PanelQuery(f"fleet_gpu_remap_pending{{{_HOST}}}", "{{host}} GPU {{gpu}} pending"),
                PanelQuery(f"fleet_gpu_remap_failure{{{_HOST}}}", "{{host}} GPU {{gpu}} failed"),
            ),
        ),
        Panel(
            "Last XID",
            (
                PanelQuery(
                    f"time() - fleet_gpu_xid_last_timestamp_seconds{{{_HOST}}}", "{{host}} GPU {{gpu}} XID {{xid}}"
                ),
            ),
            "s",
            "How long ago.",
            kind="table",
            width=16,
        ),
    ),
    (("host", "fleet_gpu_count"),),
)

DASHBOARDS = (FLEET, HOST, ENGINE, GATEWAY, GPU)
