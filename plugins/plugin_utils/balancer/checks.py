# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The settings of a target group that cannot be changed, and those of its health check. Pure."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import INSTANCE, IP
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import (
    APPLICATION,
    BalancerNeeds,
    GroupReading,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.verdicts import (
    ERROR,
    OK,
    WARNING,
    BalancerSetting,
    Verdicts,
    command,
    judged,
    seconds,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.verdicts import aws as aws_cli

TYPES = (INSTANCE, IP)
PATH = "/health"
HEALTHY, DRAINING = 200, 503
#: The fastest check that AWS allows. A check's timeout must be shorter than its interval.
INTERVAL, CHECK_TIMEOUT, THRESHOLD = 5, 4, 2


def is_refused(group: GroupReading) -> bool:
    """Whether hosts cannot be targets of it at all, so that nothing else about it matters."""
    return group.described.get("TargetType") not in TYPES


def _make_another(group: GroupReading, needs: BalancerNeeds, kind: str = "", vpc: str = "", region: str = "") -> str:
    """The command that makes a group of the right form. Type, port, protocol and VPC of one cannot be changed."""
    ports = needs.ports or [int(group.described.get("Port") or 8000)]
    protocol = "HTTPS" if needs.tls else "HTTP"
    if group.is_network and not kind:
        protocol = "TLS" if needs.tls else "TCP"
    return aws_cli(
        region or group.region,
        "elbv2",
        "create-target-group",
        *("--name", f"{group.name[:30]}-2"),
        *("--protocol", protocol, "--port", str(ports[0])),
        *("--vpc-id", vpc or str(group.described.get("VpcId") or "VPC")),
        *("--target-type", kind or str(group.described.get("TargetType"))),
        *("--health-check-protocol", "HTTPS" if needs.tls else "HTTP"),
        *("--health-check-path", PATH, "--matcher", f"HttpCode={HEALTHY}"),
        *("--health-check-interval-seconds", str(INTERVAL), "--health-check-timeout-seconds", str(CHECK_TIMEOUT)),
        *("--unhealthy-threshold-count", str(THRESHOLD)),
    )


def _type(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    kind = group.described.get("TargetType")
    why = f"a group of type {kind} takes no hosts, and the type of a group cannot be changed: make another one"
    yield judged(kind, "instance or ip", ERROR if is_refused(group) else OK, why, _make_another(group, needs, TYPES[0]))


def _region(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    others = {host.region: host.name for host in needs.hosts if host.region and host.region != group.region}
    for region, host in sorted(others.items()) or [("", "")]:
        why = f"{host} is in {region}, and a group takes only hosts of its own region: make one there"
        failed = ERROR if region else OK
        yield judged(group.region, region or group.region, failed, why, _make_another(group, needs, region=region))


def _vpc(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    # A group of type ip takes addresses of other networks, too.
    if group.described.get("TargetType") != INSTANCE:
        return
    own = str(group.described.get("VpcId"))
    others = {host.vpc: host.name for host in needs.hosts if host.vpc and host.vpc != own}
    for vpc, host in sorted(others.items()) or [("", "")]:
        why = f"{host} is in {vpc}, and a group of type instance takes only hosts of its own VPC: make one there"
        yield judged(own, vpc or own, ERROR if vpc else OK, why, _make_another(group, needs, vpc=vpc))


def _port(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    own, wanted = group.described.get("Port"), " or ".join(map(str, needs.ports))
    if not needs.ports:
        return
    why = (
        f"the edge listens on {wanted}: what is registered without a port, as Auto Scaling does, gets its requests on "
        f"{own}, where nothing answers. The port of a group cannot be changed: make another one"
    )
    # Hosts are registered with the port of fleet_target_groups; Auto Scaling takes that of the group.
    failed = OK if own in needs.ports or (needs.port_given and not group.scaling) else ERROR
    yield judged(own, wanted, failed, why, _make_another(group, needs))


def _protocol(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    own = group.described.get("Protocol")
    wanted = ("HTTPS", "TLS", "TCP") if needs.tls else ("HTTP", "TCP")
    edge = "speaks TLS" if needs.tls else "does not speak TLS"
    why = (
        f"the edge {edge}, so no request would be answered. The protocol of a group cannot be changed: make another one"
    )
    yield judged(own, " or ".join(wanted), OK if own in wanted else ERROR, why, _make_another(group, needs, TYPES[0]))


def _check_protocol(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    own, wanted = group.described.get("HealthCheckProtocol"), "HTTPS" if needs.tls else "HTTP"
    if own in APPLICATION:
        why = f"the edge {'speaks' if needs.tls else 'does not speak'} TLS, so a check over {own} fails on every host"
    else:
        why = (
            f"a check over {own} does not see that {PATH} is {DRAINING}: a host that drains, or whose engines are "
            "down, keeps its traffic"
        )
    repair = command(
        group,
        "modify-target-group",
        *("--health-check-protocol", wanted, "--health-check-path", PATH, "--matcher", f"HttpCode={HEALTHY}"),
    )
    yield judged(own, wanted, OK if own == wanted else ERROR, why, repair)


def _check_port(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    own = str(group.described.get("HealthCheckPort"))
    right = own == "traffic-port" or [own] == [str(port) for port in needs.ports]
    why = f"the check asks port {own}, and the edge serves on {' and '.join(map(str, needs.ports))}"
    repair = command(group, "modify-target-group", "--health-check-port", "traffic-port")
    yield judged(own, "traffic-port", OK if right else ERROR, why, repair)


def _path(group: GroupReading, _needs: BalancerNeeds) -> Verdicts:
    own = group.described.get("HealthCheckPath")
    if own is None:
        # A check over TCP has none; its own row says so.
        return
    why = f"only {PATH} says whether the host serves; the edge answers {own} with 401 or 404"
    repair = command(group, "modify-target-group", "--health-check-path", PATH)
    yield judged(own, PATH, OK if own == PATH else ERROR, why, repair)


def _matcher(group: GroupReading, _needs: BalancerNeeds) -> Verdicts:
    if group.described.get("HealthCheckPath") is None:
        return
    matcher = group.described.get("Matcher") or {}
    own = str(matcher.get("HttpCode") or f"gRPC {matcher.get('GrpcCode')}")
    failed, why = OK, ""
    if not _accepts(own, HEALTHY):
        failed, why = ERROR, f"{PATH} is {HEALTHY} while the host serves, so no host would ever be healthy"
    elif _accepts(own, DRAINING):
        failed, why = ERROR, f"{PATH} is {DRAINING} while the host drains, so it would keep its traffic"
    elif own != str(HEALTHY):
        failed, why = WARNING, f"another server on that port could pass the check; {PATH} is {HEALTHY} or {DRAINING}"
    yield judged(own, str(HEALTHY), failed, why, command(group, "modify-target-group", "--matcher", "HttpCode=200"))


def _accepts(codes: str, code: int) -> bool:
    """Whether a matcher, such as ``200-299`` or ``200,202``, has a code."""
    for part in codes.split(","):
        first, _dash, last = part.strip().partition("-")
        if first.isdigit() and int(first) <= code <= int(last if last.isdigit() else first):
            return True
    return False


def _detection(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    interval = int(group.described.get("HealthCheckIntervalSeconds") or 0)
    threshold = int(group.described.get("UnhealthyThresholdCount") or 0)
    own, lame_duck = interval * threshold, needs.lame_duck
    failed = OK if own < lame_duck else WARNING if needs.registers else ERROR
    who = "that drains by itself (a Spot notice)" if needs.registers else "that drains"
    why = (
        f"the balancer takes up to {own} s to see that a host is gone, and one {who} serves for only "
        f"{seconds(lame_duck)} s (edge_lame_duck): requests in between are refused"
    )
    if lame_duck > INTERVAL * THRESHOLD:
        repair = command(
            group,
            "modify-target-group",
            *("--health-check-interval-seconds", str(INTERVAL)),
            *("--health-check-timeout-seconds", str(CHECK_TIMEOUT)),
            *("--unhealthy-threshold-count", str(THRESHOLD)),
        )
    else:
        # No check is that fast.
        repair = f"edge_lame_duck: {own + INTERVAL} in group_vars, then site.yml"
    yield judged(f"{interval} s x {threshold}", f"less than {seconds(lame_duck)} s", failed, why, repair)


def _recovery(group: GroupReading, needs: BalancerNeeds) -> Verdicts:
    if not needs.registers:
        return
    interval = int(group.described.get("HealthCheckIntervalSeconds") or 0)
    threshold = int(group.described.get("HealthyThresholdCount") or 0)
    limit = needs.healthy_timeout
    failed = OK if interval * threshold < limit else WARNING
    why = (
        f"a host whose first check fails is healthy after {interval * threshold} s at the earliest, and a rollout "
        f"stops after {seconds(limit)} s (balancer_healthy_timeout)"
    )
    repair = command(
        group,
        "modify-target-group",
        *("--health-check-interval-seconds", str(INTERVAL), "--health-check-timeout-seconds", str(CHECK_TIMEOUT)),
        *("--healthy-threshold-count", str(THRESHOLD)),
    )
    yield judged(f"{interval} s x {threshold}", f"less than {seconds(limit)} s", failed, why, repair)


_GROUPS = "DescribeTargetGroups"
_MODIFY = "`modify-target-group`"
_MAKE = "another group: `create-target-group`"

SETTINGS = (
    BalancerSetting(
        "target type",
        _GROUPS,
        "`instance` or `ip`",
        ERROR,
        "a group of type `lambda` or `alb` takes no hosts",
        _MAKE,
        _type,
    ),
    BalancerSetting(
        "region", _GROUPS, "that of the hosts", ERROR, "a group takes only hosts of its own region", _MAKE, _region
    ),
    BalancerSetting(
        "VPC",
        _GROUPS,
        "that of the hosts, for type `instance`",
        ERROR,
        "such a group takes only hosts of its own VPC",
        _MAKE,
        _vpc,
    ),
    BalancerSetting(
        "port",
        _GROUPS,
        "the hosts' (`edge_port`, `fleet_gateway_port`)",
        "error, unless `fleet_target_groups` names the port and Auto Scaling registers nothing",
        "what is registered without a port, as Auto Scaling does, gets its requests where nothing answers",
        _MAKE,
        _port,
    ),
    BalancerSetting(
        "protocol",
        _GROUPS,
        f"{APPLICATION[0]} or TCP; {APPLICATION[1]}, TLS or TCP with `edge_tls_certificate`",
        ERROR,
        "no request would be answered",
        _MAKE,
        _protocol,
    ),
    BalancerSetting(
        "health check protocol",
        _GROUPS,
        "HTTP; HTTPS with `edge_tls_certificate`",
        ERROR,
        "a check over TCP, an NLB's default, does not see that `/health` is 503",
        _MODIFY,
        _check_protocol,
    ),
    BalancerSetting(
        "health check port",
        _GROUPS,
        "`traffic-port`, or the edge's",
        ERROR,
        "another port says nothing about the edge",
        _MODIFY,
        _check_port,
    ),
    BalancerSetting(
        "health check path",
        _GROUPS,
        "`/health`",
        ERROR,
        "no other path says whether the host serves; without a key they are 401 or 404",
        _MODIFY,
        _path,
    ),
    BalancerSetting(
        "matcher",
        _GROUPS,
        "`200`",
        "error without 200 or with 503; warning for further codes",
        "no host would be healthy; a host that drains would keep its traffic; another server could pass the check",
        _MODIFY,
        _matcher,
    ),
    BalancerSetting(
        "time to unhealthy",
        _GROUPS,
        "interval times unhealthy threshold below `edge_lame_duck`",
        "error in mode `health`, else warning",
        "requests are refused between the end of the lame duck and the moment when the balancer sees it. In mode "
        "`registration` only hosts that drain by themselves rely on it (Spot notices)",
        _MODIFY,
        _detection,
    ),
    BalancerSetting(
        "time to healthy",
        _GROUPS,
        "interval times healthy threshold below `balancer_healthy_timeout`",
        "warning in mode `registration`",
        "a host whose first check fails would be healthy again only after the rollout has stopped waiting",
        _MODIFY,
        _recovery,
    ),
)
