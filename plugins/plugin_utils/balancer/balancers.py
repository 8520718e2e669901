# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The settings of the balancers that use a target group, and their listeners. Pure."""

from __future__ import annotations

import collections
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import (
    BalancerNeeds,
    BalancerReading,
    Described,
    GroupReading,
    ListenerReading,
    TargetHost,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.verdicts import (
    ERROR,
    OK,
    WARNING,
    BalancerSetting,
    SettingVerdict,
    Verdicts,
    attribute,
    aws,
    judged,
    seconds,
    set_attributes,
)

_IDLE = "idle_timeout.timeout_seconds"
#: An answer that is not streamed, or a long prefill, sends nothing meanwhile.
SHORTEST_IDLE = 300
_BEST_IDLE = 600
#: How much sooner than the edge the balancer has to close a connection.
_APART = 20
_CROSS_ZONE = "load_balancing.cross_zone.enabled"


def _idle(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    longest = needs.keep_alive
    best = seconds(max(1, min(_BEST_IDLE, longest - _APART)))
    for balancer in group.balancers:
        if balancer.described.get("Type") != "application":
            continue
        own = int(balancer.attributes.get(_IDLE) or 60)
        failed, why = OK, ""
        if own >= longest:
            failed = ERROR
            why = (
                f"the edge closes idle connections after {seconds(longest)} s (edge_keep_alive_timeout), before the "
                "balancer does: a request that arrives at that moment ends as 502"
            )
        elif own < SHORTEST_IDLE:
            failed, why = WARNING, f"answers that send nothing for {own} s end as 504"
        repair = aws(
            group.region,
            *("elbv2", "modify-load-balancer-attributes", "--load-balancer-arn", balancer.arn),
            *("--attributes", f"Key={_IDLE},Value={best}"),
        )
        if longest <= SHORTEST_IDLE:
            repair = f"edge_keep_alive_timeout: {_BEST_IDLE + _APART} in group_vars, then site.yml"
        yield judged(f"{own} s", f"{SHORTEST_IDLE} s to less than {seconds(longest)} s", failed, why, repair)


def _cross_zone(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    zones = collections.Counter(host.zone for host in needs.hosts if host.zone)
    # A fleet that cannot spare a host is another problem.
    if not group.balancers or len(needs.hosts) < 2:
        return
    on = all(_is_across_zones(group, balancer) for balancer in group.balancers)
    alone = sorted(zone for zone, hosts in zones.items() if hosts == 1)
    failed = ERROR if alone and not on else OK
    many = len(alone) > 1
    why = (
        f"{', '.join(alone)} {'have' if many else 'has'} one host{' each' if many else ''}: while it is out, requests "
        f"that come to the balancer {'in its zone' if many else 'there'} fail"
    )
    yield judged(
        "on" if on else "off",
        "on, or two hosts in each zone",
        failed,
        why,
        set_attributes(group, {_CROSS_ZONE: "true"}),
    )


def _is_across_zones(group: GroupReading, balancer: BalancerReading) -> bool:
    own = attribute(group, _CROSS_ZONE, "use_load_balancer_configuration")
    if own in ("true", "false"):
        return own == "true"
    # An ALB cannot turn it off.
    return balancer.described.get("Type") == "application" or balancer.attributes.get(_CROSS_ZONE) == "true"


def zones_missing(group: GroupReading, hosts: t.Iterable[TargetHost]) -> dict[str, list[str]]:
    """The zones of hosts in which a balancer of the group takes no requests, with the hosts' names."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        if host.zone and any(balancer.zones and host.zone not in balancer.zones for balancer in group.balancers):
            found.setdefault(host.zone, []).append(host.name)
    return found


def _zones(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    missing = zones_missing(group, needs.hosts)
    for balancer in group.balancers:
        own = ", ".join(balancer.zones)
        lost = {zone: hosts for zone, hosts in missing.items() if zone not in balancer.zones}
        if balancer.zones and not lost:
            yield SettingVerdict(own, "those of the hosts")
        for zone, hosts in lost.items() if balancer.zones else ():
            many = len(hosts) > 1
            why = (
                f"{', '.join(hosts)} {'are' if many else 'is'} in {zone}, in which {balancer.name} takes no requests, "
                f"so no client can reach {'them' if many else 'it'}"
            )
            subnets = [str(one["SubnetId"]) for one in balancer.described["AvailabilityZones"] if one.get("SubnetId")]
            repair = aws(
                group.region,
                *("elbv2", "set-subnets", "--load-balancer-arn", balancer.arn),
                *("--subnets", *subnets, f"SUBNET_IN_{zone}"),
            )
            yield SettingVerdict(own, f"{zone}, too", ERROR, why, repair)


def forwards(actions: t.Iterable[Described]) -> dict[str, int]:
    """The target groups that actions forward to, by their ARNs, with their weights."""
    found: dict[str, int] = {}
    for action in actions:
        if action.get("Type") != "forward":
            continue
        groups = (action.get("ForwardConfig") or {}).get("TargetGroups") or []
        found.update({str(one["TargetGroupArn"]): int(one.get("Weight", 1)) for one in groups})
        if action.get("TargetGroupArn"):
            found.setdefault(str(action["TargetGroupArn"]), 1)
    return found


def _ways(listener: ListenerReading) -> list[tuple[str, dict[str, int]]]:
    """The rules of a listener that forward: the ARN of the rule, empty for the default one, and its groups."""
    ways = [("", forwards(listener.described.get("DefaultActions", ())))]
    for rule in listener.rules:
        if not rule.get("IsDefault"):
            ways.append((str(rule.get("RuleArn", "")), forwards(rule.get("Actions", ()))))
    return [(arn, groups) for arn, groups in ways if groups]


def _listener(group: GroupReading, _needs: BalancerNeeds) -> Verdicts:
    used = [
        (listener, rule, groups[group.arn])
        for balancer in group.balancers
        for listener in balancer.listeners
        for rule, groups in _ways(listener)
        if group.arn in groups
    ]
    wanted = "one that forwards to it"
    if not used:
        why = "no listener forwards to the group (Target.NotInUse), so no client can reach its hosts"
        yield SettingVerdict("none", wanted, ERROR, why, _attach(group))
        return
    said = ", ".join(dict.fromkeys(listener.said for listener, _rule, _weight in used))
    if any(weight for _listener, _rule, weight in used):
        yield SettingVerdict(said, wanted)
        return
    listener, rule, _weight = used[0]
    yield SettingVerdict(
        f"{said}, weight 0",
        wanted,
        WARNING,
        "with weight 0 the group gets no requests",
        _forward(group, listener, rule),
    )


def _attach(group: GroupReading) -> str:
    """The command that makes a listener; words in capitals are the user's."""
    known = [(balancer, listener) for balancer in group.balancers for listener in balancer.listeners]
    if known:
        return _forward(group, known[0][1])
    secure = ("--protocol", "HTTPS", "--port", "443", "--certificates", "CertificateArn=CERTIFICATE_ARN")
    plain = ("--protocol", "TCP", "--port", "443")
    return aws(
        group.region,
        *("elbv2", "create-listener", "--load-balancer-arn", "LOAD_BALANCER_ARN"),
        *(plain if group.is_network else secure),
        *("--default-actions", f"Type=forward,TargetGroupArn={group.arn}"),
    )


def _forward(group: GroupReading, listener: ListenerReading, rule: str = "") -> str:
    """The command that lets a listener, or one of its rules, forward to the group."""
    to = f"Type=forward,TargetGroupArn={group.arn}"
    if rule:
        return aws(group.region, "elbv2", "modify-rule", "--rule-arn", rule, "--actions", to)
    arn = str(listener.described["ListenerArn"])
    return aws(group.region, "elbv2", "modify-listener", "--listener-arn", arn, "--default-actions", to)


def _elsewhere(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    """The listeners of its balancers that forward, but to no target group of the fleet."""
    ours = {*needs.groups, group.arn}
    for balancer in group.balancers:
        if group.arn != min({arn for one in balancer.listeners for arn in _reached(one)} & ours, default=""):
            # Another group of the fleet uses the balancer, too, and its rows have them.
            continue
        for listener in balancer.listeners:
            reached = _reached(listener)
            if reached and not reached & ours:
                names = ", ".join(sorted(arn.split("/")[1] if "/" in arn else arn for arn in reached))
                yield SettingVerdict(
                    f"{listener.said} to {names}",
                    "the fleet's target groups",
                    WARNING,
                    f"listener {listener.said} of {balancer.name} uses no target group of fleet_target_groups: what "
                    "comes there does not reach the fleet",
                    _forward(group, listener),
                )


def _reached(listener: ListenerReading) -> set[str]:
    return {arn for _rule, groups in _ways(listener) for arn in groups}


_LISTENERS = "DescribeListeners, DescribeRules"

SETTINGS = (
    BalancerSetting(
        "idle timeout (ALB)",
        "DescribeLoadBalancerAttributes",
        f"{SHORTEST_IDLE} s or more, and less than `edge_keep_alive_timeout`: {_BEST_IDLE}",
        "warning below, error above",
        "AWS's default is 60 s: an answer that sends nothing for that long ends as 504. Above, the edge closes a "
        "connection first, and a request that arrives at that moment ends as 502",
        "`modify-load-balancer-attributes`",
        _idle,
    ),
    BalancerSetting(
        "zones",
        "DescribeLoadBalancers",
        "those of the hosts",
        ERROR,
        "no client can reach hosts in other zones (`Target.NotInUse`)",
        "`set-subnets`",
        _zones,
    ),
    BalancerSetting(
        "cross-zone",
        "DescribeTargetGroupAttributes, DescribeLoadBalancerAttributes",
        "on, or two hosts in each zone",
        ERROR,
        "while the only host of a zone is out, requests that come to the balancer there fail. It is on for an ALB "
        "unless the group turns it off, and off for an NLB",
        "`modify-target-group-attributes`",
        _cross_zone,
    ),
    BalancerSetting(
        "listener",
        _LISTENERS,
        "one that forwards to the group",
        "error for none, warning for weight 0",
        "no client can reach its hosts (`Target.NotInUse`)",
        "`create-listener`, `modify-listener`, `modify-rule`",
        _listener,
    ),
    BalancerSetting(
        "other listeners",
        _LISTENERS,
        "forward to one of `fleet_target_groups`",
        WARNING,
        "what comes there does not reach the fleet",
        "`modify-listener`",
        _elsewhere,
    ),
)
