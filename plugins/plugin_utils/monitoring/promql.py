# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Parts of PromQL that several alerts and panels share. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.base import (
    Counters,
    Exposition,
    Histogram,
    Vitals,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

#: What goes to instances. A scrape, a health check and a request that the edge refuses itself are in other proxies.
TO_INSTANCES = 'proxy=~"instances_[0-9]+"'
#: The tier that clients talk to: the gateways, or without any the inference hosts.
FRONT = f'{TO_INSTANCES},tier="front"'
#: A server of HAProxy that is an instance of its own host. Gateways also have other gateways as servers.
INSTANCE = f'{TO_INSTANCES},server=~"engine-[0-9]+"'

#: A host or an instance that somebody drained.
DRAINED = "fleet_drain_since_timestamp_seconds"
#: The same for a reason that still holds. A rollout drains for minutes; what is older was left behind.
HELD = f'({DRAINED}{{by!="rollout"}} or time() - {DRAINED}{{by="rollout"}} < 3600)'


class Monitored(t.NamedTuple):
    """What alerts and panels need of an engine."""

    counters: Counters
    vitals: Vitals
    names: Exposition


def monitored() -> list[Monitored]:
    """The engines that have metrics."""
    return [
        Monitored(one.counters, one.vitals, one.exposition)
        for one in ENGINES.values()
        if one.counters and one.vitals and one.exposition
    ]


def each(part: t.Callable[[Monitored], str]) -> str:
    """A part of an expression for each engine, joined so that one expression serves all of them."""
    return "\nor ".join(text for text in map(part, monitored()) if text)


def select(name: str, *matchers: str) -> str:
    """A selector from a metric, which may have matchers, and further ones."""
    name, _brace, own = name.partition("{")
    inside = ",".join(one for one in (own.rstrip("}"), *matchers) if one)
    return f"{name}{{{inside}}}" if inside else name


def buckets(histogram: Histogram, *matchers: str) -> str:
    """A selector of a histogram's buckets."""
    return select(f"{histogram.name}_bucket", _matcher(histogram), *matchers)


def count(histogram: Histogram) -> str:
    """A selector of a histogram's count."""
    return select(f"{histogram.name}_count", _matcher(histogram))


def _matcher(histogram: Histogram) -> str:
    return '{}!="{}"'.format(*histogram.without) if histogram.without else ""


def within(seconds: int) -> str:
    """A matcher of the bucket up to so many seconds. Prometheus 3 writes the bound as 1.0, exporters also as 1."""
    return f'le=~"{seconds}|{seconds}[.]0"'
