# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Alerts about instances, as the edges and the engines see them, and about the watchdog."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.promql import (
    HELD,
    INSTANCE,
    Monitored,
    buckets,
    count,
    each,
)

_UP = f'haproxy_server_status{{{INSTANCE},state="UP"}}'


def _no_progress(one: Monitored) -> str:
    moved = " + ".join(f"sum by (host, server) ({how}({name}[1m]))" for how, name in one.vitals.progress)
    return f"({moved}) == 0"


def _pressed(one: Monitored) -> str:
    return (
        f"(max by (host, server) (avg_over_time({one.counters.kv_usage}[10m])) > 0.95"
        f" and sum by (host, server) (rate({one.names.preempted}[10m])) > 0)"
    )


def _waiting(one: Monitored) -> str:
    waiting = one.counters.waiting
    return (
        f"(max by (host, server) (min_over_time({waiting}[10m])) > 0"
        f" and max by (host, server) (deriv({waiting}[10m])) > 0)"
    )


def _median_gaps(by: str) -> str:
    """The median time between tokens. A mean accuses the host that hung a minute ago, and not the slow one."""
    every = each(lambda one: f"rate({buckets(one.names.token_gap)}[10m])").replace("\n", " ")
    return f"histogram_quantile(0.5, sum by ({by}, le) ({every}))"


def _busy(by: str) -> str:
    every = each(lambda one: f"rate({count(one.names.token_gap)}[10m])").replace("\n", " ")
    return f"sum by ({by}) ({every}) > 0.5"


_OF_HOSTS = f"({_median_gaps('host, model_name')} and {_busy('host, model_name')})"

ALERTS = (
    Alert(
        "CapacityHalf",
        "{{ $value | humanizePercentage }} of the {{ $labels.kind }} instances are in service",
        f'(sum by (kind) ({_UP})\n  or 0 * count by (kind) (up{{job="engine"}}))\n'
        '/ count by (kind) (up{job="engine"}) < 0.5',
        "page",
        "Fewer than half of the instances that the inventory names are in service, the drained ones included. The rest "
        "is about to have more than it can do.",
        "Run playbooks/status.yml. Hosts that are drained by hand come back with playbooks/undrain.yml -l HOST. An "
        "instance that does not start says why in its journal (journalctl -u UNIT) and in the table. If a rollout is "
        "the cause, it stops by itself; playbooks/rollback.yml goes back.",
        "5m",
    ),
    Alert(
        "EngineHangs",
        "{{ $labels.host }} {{ $labels.server }} has work and does nothing",
        f"({each(_no_progress)})\nand on (host, server)\n("
        + each(lambda one: f"sum by (host, server) (min_over_time({one.counters.running}[1m])) > 0")
        + f"\nor sum by (host, server) (min_over_time(haproxy_server_current_sessions{{{INSTANCE}}}[1m])) > 0)",
        "page",
        "No counter that the engine's core moves has moved for 3 minutes, while requests are in it by its own count or "
        "by the edge's. Its health check is still green: it does not ask the core. The watchdog ends such an engine "
        "within a minute, so it is off, only observes, or cannot act here.",
        "Drain the instance: playbooks/drain.yml -l HOST -e instance=N. Look at journalctl -u inference-watchdog on "
        "the host. Keep the evidence (py-spy dump --pid of the engine's core), then kill the core with SIGKILL; "
        "systemd starts the engine again. SIGTERM does not end a hung one.",
        "2m",
    ),
    Alert(
        "WatchdogGaveUp",
        "{{ $labels.host }} {{ $labels.server }} hangs again and again and stays out of service",
        "fleet_watchdog_gave_up == 1",
        "page",
        "The watchdog has restarted the instance as often as it may (once in 10 minutes, three times in 6 hours), or "
        "the GPU has a fatal fault. The instance is out of service until a person decides.",
        "Read the newest directory in /var/lib/inference/hangs on the host: stacks, kernel log, requests in flight. If "
        "the same request was in flight each time, find its client. If the GPU is at fault, replace the instance.",
    ),
    Alert(
        "HangsSpread",
        "Engines of {{ $value }} hosts hung within 30 minutes",
        "count(count by (host) (time() - fleet_watchdog_last_restart_timestamp_seconds < 1800)) >= 3",
        "page",
        "Three hosts within half an hour is no coincidence. One request that hangs engines and is sent again walks "
        "through the fleet.",
        "Compare who was in flight in /var/lib/inference/hangs on these hosts. Take the client's key out "
        "(playbooks/keys.yml without it) or limit it, and look for a change of release or driver that all have.",
    ),
    Alert(
        "WatchdogRestarted",
        "The watchdog has killed the engine of {{ $labels.host }} {{ $labels.server }}, which hung",
        "time() - fleet_watchdog_last_restart_timestamp_seconds < 3600",
        "ticket",
        "The instance hung, was taken out, killed, and is back or on its way. Its clients got errors. A restart "
        "hides a bug.",
        "Read the evidence in /var/lib/inference/hangs on the host before the next ones push it out, and report it to "
        "the engine's makers.",
    ),
    Alert(
        "WatchdogSilent",
        "The watchdog of {{ $labels.host }} does not look any more",
        "time() - fleet_watchdog_last_look_timestamp_seconds > 300\n"
        'unless on (host) fleet_watchdog_mode{mode="off"} == 1',
        "ticket",
        "The watchdog has written no figures for 5 minutes. A hang of an engine on this host would last until a person "
        "sees it.",
        "systemctl status inference-watchdog on the host, and its journal.",
        "5m",
    ),
    Alert(
        "InstanceDown",
        "{{ $labels.host }} {{ $labels.server }} is down",
        f"max by (host, server) ({_UP}) == 0\n"
        f'unless on (host, server) haproxy_server_status{{{INSTANCE},state=~"DRAIN|MAINT"}} == 1\n'
        f"unless on (host) {HELD}",
        "ticket",
        "The edge's health check of the instance has failed for 10 minutes. It is not drained, or a rollout drained it "
        "more than an hour ago and never put it back. systemd starts it again and again; that does not help.",
        "playbooks/status.yml says what the instance waits for. Its journal (journalctl -u UNIT) has the cause at "
        "the end of its last start.",
        "10m",
    ),
    Alert(
        "CrashLoop",
        "{{ $labels.host }} {{ $labels.server }} went down and up {{ $value }} times within an hour",
        f"max by (host, server) (changes({_UP}[1h])) / 2 >= 3",
        "ticket",
        "The instance ends and starts again, three times within an hour or more. Each time all its streams are cut.",
        "The journal of its unit has the cause before each start. Memory: set a lower gpu_memory_utilization or "
        "mem_fraction_static. A certain request: its id is in the edge's journal at the same moment.",
    ),
    Alert(
        "KvPressure",
        "{{ $labels.host }} {{ $labels.server }}: the KV cache is full and requests lose their place in it",
        each(_pressed),
        "ticket",
        "A full cache is good use. Preemptions are the harm: requests are taken out and begin once more.",
        "Fewer requests at once, a shorter context, or an FP8 KV cache: profile throughput or low_memory "
        "(docs/profiles.md). playbooks/plan.yml says what fits.",
        "15m",
    ),
    Alert(
        "QueueGrows",
        "Requests wait at {{ $labels.host }}{{ with $labels.server }} {{ . }}{{ end }}, and their number does not fall",
        f"{each(_waiting)}\nor sum by (host) (min_over_time(haproxy_backend_current_queue"
        '{proxy=~"instances_[0-9]+"}[10m])) > 0',
        "ticket",
        "Requests come faster than they are answered. First tokens are late, and at the edge's limit clients get 429. "
        "Also an engine that goes on with its steps and finishes no request looks like this.",
        "Add hosts, or limit the client that sends most (dashboard Gateway and clients). If only one host has a queue, "
        "drain it and look at it.",
        "10m",
    ),
    Alert(
        "EngineRefuses",
        "{{ $labels.host }} {{ $labels.server }} refuses requests",
        each(lambda one: f"sum by (host, server) (rate({one.names.refused}[5m])) > 0" if one.names.refused else ""),
        "ticket",
        "The engine does not take requests although its edge passes them on: its own limit is lower than the edge's.",
        "Set edge_instance_max_requests and the engine's limit of requests to values that fit each other.",
        "10m",
    ),
    Alert(
        "HostSlowerThanPeers",
        "{{ $labels.host }}: half of the gaps between tokens are above {{ $value | humanizeDuration }}",
        f"{_OF_HOSTS}\n> on (model_name) group_left ()\n"
        f"(1.5 * quantile by (model_name) (0.5, {_OF_HOSTS}))\n"
        f"and on (model_name) count by (model_name) ({_OF_HOSTS}) >= 3",
        "ticket",
        "The host's median time between tokens is 1.5 times that of its peers, with the same model and at least three "
        "busy hosts. The GPU is throttled, the PCIe link is narrow, or something else runs on the host.",
        "playbooks/verify_gpu.yml -l HOST. Look at GPU clocks and power in dashboard GPU, and at what else uses the "
        "GPU (nvidia-smi).",
        "10m",
    ),
    Alert(
        "MetricsUnreadable",
        "{{ $labels.host }} {{ $labels.server }} serves, and its metrics cannot be read",
        f'up{{job="engine"}} == 0\nand on (host, server) max by (host, server) ({_UP}) == 1',
        "ticket",
        "The instance answers clients, but its metrics do not arrive: another format, another path, or a key that is "
        "refused. Alerts about this instance are blind.",
        "The page Targets of Prometheus has the error. curl with the monitoring key: /metrics/engine-N of that host.",
        "15m",
    ),
)
