# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""One rollout at a time for the hosts of a tier, from any controller. Pure.

The lock of a controller is its own, and a claim is only on the hosts that a run changes, so two runs with different
--limit could each count on the hosts that the other drains. Hence the rule: a rollout drains a host only after it has
claimed its own hosts and *then* looked at all hosts of the tier and found no other claim. Of two that claim at the same
moment, the one that claims later finds the claim of the other. A host that does not answer shows no claim; it counts as
out.

Where both find each other, the rollout that began later releases its hosts at once, and the other one looks again until
they are free. A walking rollout never gives way to one that has not begun.
"""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.rollout.claim import Claim, parse
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import capacity

#: Seconds between two looks.
PAUSE = 5.0
#: The number of looks: of a rollout that has not begun, and of one that walks, which outlasts the first.
LOOKS_ASKING = 6
LOOKS_WALKING = 18

Claims = t.Mapping[str, t.Optional[Claim]]


def others(claims: Claims, controller: str, dead: t.Collection[tuple[str, str]] = ()) -> dict[str, Claim]:
    """The claims of live rollouts of other controllers, by host.

    Args:
        claims: of each host of the tier, None where it has no claim or does not answer.
        controller: this one.
        dead: claims, as id and controller, that an operator has declared dead.
    """
    return {
        host: claim
        for host, claim in claims.items()
        if claim and claim.held and claim.controller != controller and (claim.id, claim.controller) not in dead
    }


def gives_way(claims: Claims, controller: str, against: t.Mapping[str, Claim]) -> bool:
    """Whether a waiting rollout must release its hosts now, rather than wait for the others to do so."""
    own = min((_rank(claim) for claim in claims.values() if claim and claim.controller == controller), default=None)
    return own is None or any(_rank(claim) < own for claim in against.values())


def _rank(claim: Claim) -> tuple[str, str, str]:
    return claim.since, claim.id, claim.controller


def refusal(against: t.Mapping[str, Claim]) -> str:
    """The holders of the hosts, for a person; empty where no host is held."""
    if not against:
        return ""
    said = "; ".join(sorted({claim.said for claim in against.values()}))
    return f"Another rollout holds {', '.join(sorted(against))}: {said}."


def against_a_drain(
    status: t.Mapping[str, t.Mapping[str, t.Any] | None], drained: t.Collection[str]
) -> dict[str, Claim]:
    """The claims that conflict with draining hosts by hand: a rollout could drain all others of their tier meanwhile.

    Args:
        status: what module fleet_status returned for each host of the tier; None for one that does not answer.
        drained: the hosts to drain.
    """
    claims = {host: parse((one or {}).get("rollout")) for host, one in status.items() if host not in drained}
    held = {host: claim for host, claim in claims.items() if claim and claim.held}
    serving = {host for host, one in status.items() if capacity.serving(one)}
    if not serving & set(drained) or serving - set(drained) - set(held):
        return {}
    return held
