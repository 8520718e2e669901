# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether hosts with one GPU each cost less than one with several of the same GPUs. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.prices.hourly import Cost, shown

Instances = t.Sequence[t.Mapping[str, t.Any]]


def advice(costs: t.Iterable[Cost], instances: t.Mapping[str, Instances]) -> list[str]:
    """A line for each group of equal hosts for which hosts with one GPU each cost less.

    Args:
        costs: of the hosts.
        instances: of each host, as ``Instance.as_dict`` gives them.
    """
    hosts: dict[tuple[str, str], list[str]] = {}
    for cost in costs:
        if cost.usd is None or cost.single_usd is None or not cost.gpus or cost.gpus < 2:
            continue
        apart = cost.gpus * cost.single_usd
        if apart < cost.usd:
            figures = (
                f"{cost.type} costs {shown(cost.usd)} $/h. {cost.gpus} x {cost.single} have as many of these GPUs for "
                f"{shown(apart)} $/h, {(1 - apart / cost.usd) * 100:.0f} % less ({cost.source})."
            )
            hosts.setdefault((figures, _fitness(instances.get(cost.host, ()))), []).append(cost.host)
    return [f"{', '.join(own)}: {figures} {fitness}" for (figures, fitness), own in hosts.items()]


def _fitness(instances: Instances) -> str:
    """Whether hosts with one GPU would do for these instances."""
    wide = ", ".join(_wide(instances))
    if wide:
        return f"That is for instances of one GPU, without tensor parallelism; here {wide}."
    return (
        "They can serve the same, because each instance here has one GPU, without tensor parallelism. First compare "
        "CPU, memory, disk and network of both types."
    )


def _wide(instances: Instances) -> t.Iterator[str]:
    """The instances that need several GPUs together."""
    for instance in instances:
        if instance.get("span"):
            yield f"{instance['name']} spans hosts"
        elif len(instance["gpus"]) > 1:
            yield f"{instance['name']} has {len(instance['gpus'])} GPUs"
