# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The attributes of a target group. Pure."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import BalancerNeeds, GroupReading
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.verdicts import (
    ERROR,
    OK,
    WARNING,
    BalancerSetting,
    Verdicts,
    attribute,
    judged,
    seconds,
    set_attributes,
)

#: The longest deregistration delay that AWS allows.
LONGEST_DELAY = 3600

_DELAY = "deregistration_delay.timeout_seconds"
_ROUTING = "target_group_health.unhealthy_state_routing.minimum_healthy_targets"
_DNS = "target_group_health.dns_failover.minimum_healthy_targets"
_CUTS = "target_health_state.unhealthy.connection_termination.enabled"


def _delay(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    if not needs.registers:
        return
    own, wanted = int(attribute(group, _DELAY, "300")), seconds(needs.drain)
    failed = OK if own >= needs.drain else ERROR
    why = f"streams longer than {own} s would be cut: set {_DELAY} to {wanted}"
    repair = set_attributes(group, {_DELAY: wanted})
    if needs.drain > LONGEST_DELAY:
        why = f"streams longer than {own} s would be cut, and AWS allows {LONGEST_DELAY} s at most"
        repair = f"edge_drain_timeout and engine_drain_timeout: {LONGEST_DELAY} at most, in group_vars, then site.yml"
    yield judged(f"{own} s", f"at least {wanted} s", failed, why, repair)


def _stickiness(group: GroupReading, _needs: BalancerNeeds) -> Verdicts:
    on = attribute(group, "stickiness.enabled", "false") == "true"
    why = "a client stays with one host, so load is not shared, and a host that comes back gets little of it"
    repair = set_attributes(group, {"stickiness.enabled": "false"})
    yield judged("on" if on else "off", "off", WARNING if on else OK, why, repair)


def _slow_start(group: GroupReading, _needs: BalancerNeeds) -> Verdicts:
    if not group.is_application:
        return
    own = int(attribute(group, "slow_start.duration_seconds", "0"))
    algorithm = attribute(group, "load_balancing.algorithm.type", "round_robin")
    failed = ERROR if own and algorithm == "least_outstanding_requests" else OK
    why = (
        "AWS does not do both: a host that has just become healthy has the fewest requests, and would get all new ones"
    )
    repair = set_attributes(group, {"slow_start.duration_seconds": 0})
    yield judged(f"{own} s with {algorithm}", "0 s, or not with least_outstanding_requests", failed, why, repair)


def _cuts(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    if not group.is_network:
        return
    own = attribute(group, _CUTS, "true")
    failed = OK if own == "false" else WARNING if needs.registers else ERROR
    who = "a host that drains by itself (a Spot notice)" if needs.registers else "a host that drains"
    why = f"{who} answers /health with 503, and the balancer then cuts all of its streams at once"
    repair = set_attributes(group, {_CUTS: "false"})
    yield judged(own, "false", failed, why, repair)


def _routing(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    repair = set_attributes(group, {f"{_ROUTING}.count": 1, f"{_ROUTING}.percentage": "off"})
    why = "below that the balancer sends requests to all targets, also to the hosts that drain, which refuse them"
    yield from _minimum(group, needs, _ROUTING, why, repair)


def _dns(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    repair = set_attributes(group, {f"{_DNS}.count": 1, f"{_DNS}.percentage": "off"})
    why = "below that the zone leaves the balancer's DNS name, and clients that have its address get no answer"
    yield from _minimum(group, needs, _DNS, why, repair)


def _minimum(group: GroupReading, needs: BalancerNeeds, name: str, why: str, repair: str) -> Verdicts:
    count, percentage = attribute(group, f"{name}.count", "1"), attribute(group, f"{name}.percentage", "off")
    hosts = len(needs.hosts)
    # A fleet that cannot spare a host is another problem.
    left = max(1, hosts - needs.at_once)
    share = 100 * left // max(1, hosts)
    too_many = count.isdigit() and int(count) > left
    # What is deregistered has no part in the percentage.
    too_much = percentage.isdigit() and hosts > 1 and int(percentage) > share and not needs.registers
    failed = OK if not (too_many or too_much) else WARNING if needs.registers else ERROR
    why = f"a wave leaves {left} of {hosts} hosts; {why}"
    yield judged(
        f"{count}, percentage {percentage}",
        f"{left} at most, percentage off or {share} at most",
        failed,
        why,
        repair,
    )


_ATTRIBUTES = "DescribeTargetGroupAttributes"
_MODIFY = "`modify-target-group-attributes`"

SETTINGS = (
    BalancerSetting(
        "deregistration delay",
        _ATTRIBUTES,
        "at least `edge_drain_timeout` and `engine_drain_timeout`",
        "error in mode `registration`",
        "longer streams would be cut",
        _MODIFY,
        _delay,
    ),
    BalancerSetting(
        "stickiness",
        _ATTRIBUTES,
        "off",
        WARNING,
        "a client stays with one host, so load is not shared, and a host that comes back gets little of it",
        _MODIFY,
        _stickiness,
    ),
    BalancerSetting(
        "slow start (ALB)",
        _ATTRIBUTES,
        "0 with `least_outstanding_requests`",
        ERROR,
        "AWS does not do both",
        _MODIFY,
        _slow_start,
    ),
    BalancerSetting(
        "cut of unhealthy targets (NLB)",
        _ATTRIBUTES,
        f"`{_CUTS}` false",
        "error in mode `health`, else warning",
        "AWS's default is true: the balancer cuts every stream of a host as soon as it begins to drain. In mode "
        "`registration` that are hosts that drain by themselves (Spot notices)",
        _MODIFY,
        _cuts,
    ),
    BalancerSetting(
        "minimum healthy targets, routing",
        _ATTRIBUTES,
        "no more than a wave leaves",
        "error in mode `health`, else warning",
        "below that the balancer sends requests to all targets, also to hosts that drain",
        _MODIFY,
        _routing,
    ),
    BalancerSetting(
        "minimum healthy targets, DNS",
        _ATTRIBUTES,
        "no more than a wave leaves",
        "error in mode `health`, else warning",
        "below that the zone leaves the balancer's DNS name",
        _MODIFY,
        _dns,
    ),
)
