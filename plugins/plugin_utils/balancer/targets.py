# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The targets of a group, and the Auto Scaling groups behind it. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.balancers import zones_missing
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import (
    DRAINING,
    HEALTHY,
    INITIAL,
    NOT_IN_USE,
    NOT_REGISTERED,
    UNHEALTHY_DRAINING,
    UNUSED,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import (
    BalancerNeeds,
    Described,
    GroupReading,
    TargetHost,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.verdicts import (
    ERROR,
    OK,
    WARNING,
    BalancerSetting,
    SettingVerdict,
    Verdicts,
    aws,
    command,
    judged,
)

#: States that pass by themselves.
_PASSING = (INITIAL, DRAINING, UNHEALTHY_DRAINING)
_WANTED = HEALTHY


def state_of(health: t.Iterable[Described], target: str, port: int) -> tuple[str, str]:
    """State and reason of a target; a group that does not have it says nothing about it."""
    for one in health:
        if one["Target"]["Id"] == target and int(one["Target"].get("Port") or port) == port:
            found = one.get("TargetHealth") or {}
            return str(found.get("State", "")), str(found.get("Reason") or "")
    return UNUSED, NOT_REGISTERED


def _hosts(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    found = {host.name: (host, *state_of(group.health, host.target, host.port)) for host in needs.hosts}
    healthy = sum(state == HEALTHY for _host, state, _reason in found.values())
    verdicts = [_state(group, needs, host, state, reason) for host, state, reason in found.values()]
    wrong = [verdict for verdict in verdicts if verdict.verdict != OK]
    if found and not wrong:
        yield SettingVerdict(f"{healthy} of {len(found)} healthy", "all")
    yield from wrong


def _state(group: GroupReading, needs: BalancerNeeds, host: TargetHost, state: str, reason: str) -> SettingVerdict:
    own = f"{host.name}: {state}{f', {reason}' if reason else ''}"
    said = f"{host.name} is {state} in target group {group.name}{f' ({reason})' if reason else ''}"
    if reason == NOT_REGISTERED:
        # In mode health people register the hosts, else rollouts do.
        if needs.rollout and needs.registers:
            return SettingVerdict(own, _WANTED)
        why = f"{host.name} is not in target group {group.name} ({state}, {reason}), so no client can reach it"
        return SettingVerdict(own, _WANTED, WARNING if needs.rollout else ERROR, why, _register(group, needs, host))
    if reason == NOT_IN_USE and (not group.balancers or host.zone in zones_missing(group, [host])):
        # Listener and zones have rows of their own.
        return SettingVerdict(own, _WANTED)
    if state == UNUSED:
        why = f"{said}, so no client can reach it"
        return SettingVerdict(own, _WANTED, ERROR, why, f"ansible-playbook playbooks/status.yml -l {host.name}")
    if state == HEALTHY:
        return SettingVerdict(own, _WANTED)
    if state in _PASSING:
        return SettingVerdict(own, _WANTED, WARNING, f"{said}: look again in a minute")
    why = f"{said}, so it gets no requests"
    return SettingVerdict(own, _WANTED, WARNING, why, f"ansible-playbook playbooks/status.yml -l {host.name}")


def _register(group: GroupReading, needs: BalancerNeeds, host: TargetHost) -> str:
    if needs.registers:
        return f"ansible-playbook playbooks/undrain.yml -l {host.name}"
    return command(group, "register-targets", "--targets", f"Id={host.target},Port={host.port}")


def _further(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    """What is registered and should not be."""
    hosts = {host.target: host for host in needs.hosts}
    for one in group.health:
        target, port = str(one["Target"]["Id"]), int(one["Target"].get("Port") or 0)
        state = str((one.get("TargetHealth") or {}).get("State", ""))
        host = hosts.get(target)
        if state in (DRAINING, UNHEALTHY_DRAINING) or (host and port in (0, host.port)):
            continue
        where = f"Id={target},Port={port}" if port else f"Id={target}"
        repair = command(group, "deregister-targets", "--targets", where)
        if host:
            why = f"{host.name} is registered with port {port}, and its edge listens on {host.port}"
            yield SettingVerdict(f"{host.name}: port {port}", f"port {host.port}", ERROR, why, repair)
        elif target in needs.others:
            said = needs.others[target]
            why = f"{said} is registered: it gets requests as soon as it runs, before its gate"
            yield SettingVerdict(f"{target}: {state}", "hosts of the fleet that run", WARNING, why, repair)
        else:
            why = f"{target} is registered, and the inventory does not have it: it gets requests while it is healthy"
            yield SettingVerdict(f"{target}: {state}", "hosts of the fleet that run", WARNING, why, repair)


def _scaling(group: GroupReading, _needs: BalancerNeeds) -> Verdicts:
    for one in group.scaling:
        name, own = str(one.get("AutoScalingGroupName")), str(one.get("HealthCheckType") or "EC2")
        kinds = [kind for kind in own.split(",") if kind != "ELB"] or ["EC2"]
        failed = ERROR if "ELB" in own.split(",") else OK
        why = (
            f"Auto Scaling group {name} ends every host that the balancer calls unhealthy: a host that drains would be "
            "replaced in mid-rollout, also with protection from scale-in"
        )
        repair = aws(
            group.region,
            *("autoscaling", "update-auto-scaling-group", "--auto-scaling-group-name", name),
            *("--health-check-type", ",".join(kinds)),
        )
        yield judged(f"{name}: {own}", "EC2", failed, why, repair)


_HEALTH = "DescribeTargetHealth"

SETTINGS = (
    BalancerSetting(
        "hosts",
        _HEALTH,
        "each host of the role healthy",
        "error for `unused`, else warning. Not registered: no error before a rollout in mode `registration`, which "
        "registers it",
        "no client can reach it",
        "`playbooks/undrain.yml`; `register-targets` in mode `health`",
        _hosts,
    ),
    BalancerSetting(
        "other targets",
        _HEALTH,
        "none: no other port, no host that does not run, nothing that the inventory does not have",
        "error for another port, else warning",
        "they get requests, or would as soon as they run",
        "`deregister-targets`",
        _further,
    ),
    BalancerSetting(
        "Auto Scaling",
        "DescribeAutoScalingGroups",
        "health check type EC2",
        ERROR,
        "with ELB the group ends every host that the balancer calls unhealthy, so also one that drains",
        "`update-auto-scaling-group`",
        _scaling,
    ),
)
