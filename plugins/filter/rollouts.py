# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the playbooks that walk a fleet."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.edge.state import leaving
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import KINDS
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import Instance
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.beyond import hosts_beyond
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import contest

#: What of an instance follows from the engine of its release.
RELEASED = ("name", "engine", "unit", "engine_port", "health_path")


def release_requests(
    instances: list[dict[str, t.Any]], claim: t.Mapping[str, t.Any] | None = None
) -> list[dict[str, t.Any]]:
    """The instances as module engine_release takes them, with the release of an interrupted rollback."""
    going = claim and claim.get("verb") == "rollback" and not claim.get("finished")
    targets = claim["targets"] if claim and going else {}
    return [{"index": one["index"], "release": _target(targets, int(one["index"]))} for one in instances]


def _target(targets: t.Mapping[str, str], index: int) -> str | None:
    """The claim's release for an instance, which it names by the engine there, not by that of the variables."""
    names = [Instance(index, kind, (), 0).name for kind in KINDS]
    return next((targets[name] for name in names if name in targets), None)


def released_instances(instances: list[dict[str, t.Any]], releases: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """See released_instances.yml."""
    own = {release["index"]: release for release in releases if release.get("engine")}
    return [
        {**one, **{name: own[one["index"]][name] for name in RELEASED}} if one["index"] in own else one
        for one in instances
    ]


def unfinished_rollouts(claims: list[dict[str, t.Any]]) -> list[str]:
    """A line for each unfinished rollout that some hosts record."""
    by_id: dict[str, list[dict[str, t.Any]]] = {}
    for claim in claims:
        by_id.setdefault(claim["id"], []).append(claim)
    lines = []
    for name, own in sorted(by_id.items()):
        first = own[0]
        done = sum(set(claim["targets"]) <= set(claim["done"]) for claim in own)
        state = "is under way, or was broken off" if any(claim["held"] for claim in own) else "was stopped"
        lines.append(
            f"{first['verb']} {name} of {first['who']}, begun {first['since']}, {state}: {done} of its {len(own)} "
            "hosts are done. The same command goes on with it."
        )
    return lines


def drain_problems(
    status: t.Mapping[str, t.Any], drained: list[str], groups: t.Mapping[str, t.Sequence[str]]
) -> list[str]:
    """Why hosts should not be drained by hand now; see drain_problems.yml."""
    problems = []
    for kind in ("inference", "gateway"):
        hosts = groups.get(kind, ())
        seen = {host: status[host] if "instances" in (status.get(host) or {}) else None for host in hosts}
        own = [host for host in drained if host in seen]
        against = contest.against_a_drain(seen, own)
        if against:
            problems.append(
                f"{contest.refusal(against)} It may take out whatever would serve beside {', '.join(own)}. Nothing was "
                "drained. Wait until it is done, or drain all the same: -e drain_accept_downtime=true."
            )
    return problems


def announced(drain: t.Mapping[str, t.Any]) -> str:
    """What AWS announces for a host that drains itself for it; see announced.yml."""
    return leaving(drain)


class FilterModule:
    """Ansible's view of the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "announced": announced,
            "hosts_beyond": hosts_beyond,
            "drain_problems": drain_problems,
            "release_requests": release_requests,
            "released_instances": released_instances,
            "unfinished_rollouts": unfinished_rollouts,
        }
