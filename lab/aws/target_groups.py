"""Target groups on top of moto's: states that real health checks drive, and the attributes that AWS has."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import ipaddress
import threading
import time
import typing as t

from moto.ec2.models import EC2Backend
from moto.elbv2 import models
from moto.elbv2.exceptions import (
    InvalidTargetError,
    TargetGroupNotFoundError,
    TargetNotRunning,
    ValidationError,
)

from lab.aws.checks import HealthCheck, run_check
from lab.aws.clock import LabClock
from lab.aws.targets import DESCRIPTIONS, LabTarget, TargetKey, TargetTable

POLL_SECONDS = 0.1

#: What AWS gives a new group and a new balancer, beside what moto gives it (API_TargetGroupAttribute,
#: API_LoadBalancerAttribute).
HTTP_GROUP = {
    "load_balancing.algorithm.anomaly_mitigation": "off",
    "stickiness.app_cookie.cookie_name": "",
    "stickiness.app_cookie.duration_seconds": "86400",
    "stickiness.lb_cookie.duration_seconds": "86400",
    "target_group_health.dns_failover.minimum_healthy_targets.count": "1",
    "target_group_health.dns_failover.minimum_healthy_targets.percentage": "off",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": "1",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
}
NETWORK_GROUP = {
    "deregistration_delay.connection_termination.enabled": "false",
    "preserve_client_ip.enabled": "true",
    "proxy_protocol_v2.enabled": "false",
    "target_group_health.dns_failover.minimum_healthy_targets.count": "1",
    "target_group_health.dns_failover.minimum_healthy_targets.percentage": "off",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": "1",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
    "target_health_state.unhealthy.connection_termination.enabled": "true",
    "target_health_state.unhealthy.draining_interval_seconds": "0",
}
LONGEST_DELAY = ("deregistration_delay.timeout_seconds", "3600")
APPLICATION_BALANCER = {
    "client_keep_alive.seconds": "3600",
    "idle_timeout.timeout_seconds": "60",
    "load_balancing.cross_zone.enabled": "true",
    "routing.http2.enabled": "true",
}


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where a target is reached, and whether its instance is stopped."""

    address: str
    stopped: bool


class LabTargetGroups:
    """The states of all groups, and the thread that checks their targets.

    Args:
        clock: of intervals and delays.
    """

    def __init__(self, clock: LabClock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self._tables: dict[str, TargetTable] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=16)

    def table(self, group: models.FakeTargetGroup) -> TargetTable:
        return self._tables.setdefault(group.arn, TargetTable())

    def groups(self) -> list[models.FakeTargetGroup]:
        backends = [one for regions in list(models.elbv2_backends.values()) for one in list(regions.values())]
        return [group for backend in backends for group in list(backend.target_groups.values())]

    def register(self, group: models.FakeTargetGroup, targets: list[dict[str, t.Any]]) -> None:
        for target in targets:
            _validate(group, target["Id"])
        with self.lock:
            for target in targets:
                key = _key(group, target)
                self.table(group).register(key)
                group.targets[f"{key[0]}:{key[1]}"] = {"Id": key[0], "Port": key[1]}

    def deregister(self, group: models.FakeTargetGroup, targets: list[dict[str, t.Any]]) -> None:
        delay = float(str(group.attributes["deregistration_delay.timeout_seconds"]))
        with self.lock:
            for target in targets:
                key = _key(group, target)
                self.table(group).deregister(key, self.clock.now(), delay)
                group.targets.pop(f"{key[0]}:{key[1]}", None)

    def terminate(self, group: models.FakeTargetGroup, instances: list[str]) -> None:
        """AWS deregisters an instance that is terminated."""
        with self.lock:
            keys = [key for key in self.table(group).current(self.clock.now()) if key[0] in instances]
        self.deregister(group, [{"Id": ident, "Port": port} for ident, port in keys])

    def describe(self, group: models.FakeTargetGroup, targets: list[dict[str, t.Any]]) -> list[models.FakeHealthStatus]:
        with self.lock:
            present = self.table(group).current(self.clock.now())
            keys = [_key(group, target) for target in targets] or list(present)
            return [self._status(group, key, present.get(key)) for key in keys]

    def _status(
        self, group: models.FakeTargetGroup, key: TargetKey, target: LabTarget | None
    ) -> models.FakeHealthStatus:
        def state(name: str, reason: str = "", description: str = "") -> models.FakeHealthStatus:
            said = description or DESCRIPTIONS.get(reason)
            port = str(_check(group).port_of(key[1]))
            return models.FakeHealthStatus(key[0], str(key[1]), port, name, reason or None, said)

        if target is None:
            return state("unused", "Target.NotRegistered")
        if target.state == "draining":
            return state("draining", target.reason)
        if not group.load_balancer_arns:
            return state("unused", "Target.NotInUse")
        if locate(group, key[0]).stopped:
            return state("unused", "Target.InvalidState")
        return state(target.state, target.reason, target.description)

    def run(self) -> None:
        """Check the targets of every group that has a listener, each interval, for ever."""
        while True:
            for group in self.groups():
                if group.load_balancer_arns and group.health_check_enabled:
                    self._check_group(group)
            time.sleep(POLL_SECONDS / max(1.0, self.clock.speed))

    def _check_group(self, group: models.FakeTargetGroup) -> None:
        with self.lock:
            now = self.clock.now()
            due = [one for one in self.table(group).registered() if now >= one.due and not one.checking]
            for target in due:
                target.due, target.checking = now + float(group.health_check_interval_seconds), True
        for target in due:
            self._pool.submit(self._check_target, group, target)

    def _check_target(self, group: models.FakeTargetGroup, target: LabTarget) -> None:
        try:
            there = locate(group, target.id)
            if not there.stopped:
                result = run_check(_check(group), there.address, target.port)
                thresholds = int(group.healthy_threshold_count), int(group.unhealthy_threshold_count)
                with self.lock:
                    self.table(group).record(target, result, *thresholds)
        finally:
            target.checking = False


def locate(group: models.FakeTargetGroup, ident: str) -> Endpoint:
    """Where a target of the group is; an instance that has ended has no address."""
    if not ident.startswith("i-"):
        return Endpoint(ident, stopped=False)
    instance = group.ec2_backend.get_instance_by_id(ident)
    if instance is None:
        return Endpoint("", stopped=True)
    return Endpoint(str(instance.private_ip or ""), stopped=instance.state != "running")


def _key(group: models.FakeTargetGroup, target: dict[str, t.Any]) -> TargetKey:
    return str(target["Id"]), int(target.get("Port") or group.port)


def _check(group: models.FakeTargetGroup) -> HealthCheck:
    codes = getattr(group, "matcher", {}).get("HttpCode", "200")
    return HealthCheck(
        protocol=str(group.health_check_protocol),
        port=str(group.health_check_port),
        path=group.health_check_path or "/",
        timeout=float(group.health_check_timeout_seconds),
        codes=str(codes),
    )


def _validate(group: models.FakeTargetGroup, ident: str) -> None:
    """Refuse a target as AWS does."""
    if group.target_type == "ip":
        try:
            ipaddress.ip_address(ident)
        except ValueError:
            raise ValidationError(f"The IP address '{ident}' is not a valid IPv4 address") from None
        return
    if not ident.startswith("i-"):
        raise ValidationError(f"Instance ID '{ident}' is not valid")
    ec2: EC2Backend = group.ec2_backend
    instance = ec2.get_instance_by_id(ident)
    if instance is None or instance.vpc_id != group.vpc_id:
        raise InvalidTargetError
    if instance.state != "running":
        raise TargetNotRunning(instance_id=ident)


def install(groups: LabTargetGroups) -> None:
    """Replace moto's parts with ours, in this process."""
    new_group = models.FakeTargetGroup.__init__
    new_balancer = models.FakeLoadBalancer.__init__
    change_group = models.ELBv2Backend.modify_target_group_attributes

    def begin_group(self: models.FakeTargetGroup, *arguments: t.Any, **named: t.Any) -> None:
        new_group(self, *arguments, **named)
        more = HTTP_GROUP if self.protocol in ("HTTP", "HTTPS") else NETWORK_GROUP
        self.attributes = {**more, **self.attributes}

    def begin_balancer(self: models.FakeLoadBalancer, *arguments: t.Any, **named: t.Any) -> None:
        new_balancer(self, *arguments, **named)
        if self.type == "application":
            self.attrs.update(APPLICATION_BALANCER)

    def modify(self: models.ELBv2Backend, target_group_arn: str, attributes: dict[str, t.Any]) -> None:
        group = _find(self, target_group_arn)
        for name in attributes:
            if name not in group.attributes:
                raise ValidationError(f"Target group attribute key '{name}' is not recognized")
        # moto takes less than AWS's maximum only.
        longest = {name: value for name, value in attributes.items() if (name, value) == LONGEST_DELAY}
        change_group(self, target_group_arn, {name: attributes[name] for name in attributes if name not in longest})
        group.attributes.update(longest)

    def describe(
        self: models.ELBv2Backend, target_group_arn: str, targets: list[dict[str, t.Any]]
    ) -> list[models.FakeHealthStatus]:
        return groups.describe(_find(self, target_group_arn), targets)

    def register(self: models.FakeTargetGroup, targets: list[dict[str, t.Any]]) -> None:
        groups.register(self, targets)

    def deregister(self: models.FakeTargetGroup, targets: list[dict[str, t.Any]]) -> None:
        groups.deregister(self, targets)

    def terminate(self: models.FakeTargetGroup, instance_ids: list[str]) -> None:
        groups.terminate(self, instance_ids)

    parts: dict[type, dict[str, t.Any]] = {
        models.FakeTargetGroup: {
            "__init__": begin_group,
            "register": register,
            "deregister": deregister,
            "deregister_terminated_instances": terminate,
        },
        models.FakeLoadBalancer: {"__init__": begin_balancer},
        models.ELBv2Backend: {"modify_target_group_attributes": modify, "describe_target_health": describe},
    }
    for owner, members in parts.items():
        for name, member in members.items():
            setattr(owner, name, member)


def _find(backend: models.ELBv2Backend, arn: str) -> models.FakeTargetGroup:
    group = backend.target_groups.get(arn)
    if group is None:
        raise TargetGroupNotFoundError
    return group
