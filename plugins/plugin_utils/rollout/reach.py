# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What target groups say against a plan, before it begins. Pure."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer import health
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import plan as rollout_plan
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import walk


def refused_by_groups(plan: rollout_plan.RolloutPlan, fleet: walk.FleetState, accept_downtime: bool) -> list[str]:
    """Why the target groups do not let the first wave begin.

    Args:
        plan: the plan.
        fleet: the fleet now.
        accept_downtime: whether a group may be without a healthy target.
    """
    if not plan.hosts:
        return []
    if fleet.balancer_problem:
        return [f"The target groups cannot be read: {fleet.balancer_problem}"]
    last = [] if accept_downtime else fleet.last_ones(rollout_plan.first_out(plan))
    return [f"{' '.join(last)} {walk.LAST_ADVICE}"] if last else []


def not_reached(fleet: walk.FleetState) -> list[str]:
    """Hosts that serve and that clients do not reach through their target groups, as warnings."""
    return [
        f"{host} serves, but is not healthy in its target groups ({health.summarize(fleet.balancer, host)}): it does "
        "not count as capacity."
        for host, loads in fleet.serving.items()
        if loads and not fleet.balancer.is_reachable(host)
    ]
