# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Which target of which target group each host is. Pure: variables and groups in, memberships and problems out."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import json
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: The variable with the groups.
VARIABLE = "fleet_target_groups"
ROLES = ("inference", "gateway")
INSTANCE, IP = "instance", "ip"
REGISTRATION, HEALTH = "registration", "health"
MODES = (REGISTRATION, HEALTH)

_EXAMPLE = f"For example: {VARIABLE}: [{{name: fleet, role: inference}}]."
_FIELDS = ("name", "role", "port")
#: AWS's rule for a name.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_ARN = re.compile(r"arn:aws[\w-]*:elasticloadbalancing:(?P<region>[\w-]+):\d*:targetgroup/(?P<name>[^/]+)/[^/]+")
_LAST_PORT = 65535


@dataclasses.dataclass(frozen=True)
class WantedGroup:
    """An item of fleet_target_groups.

    Attributes:
        name: the group's name or ARN.
        role: whose hosts are its targets.
        port: of the targets; None for that of the host's edge.
    """

    name: str
    role: str = ROLES[0]
    port: int | None = None

    @property
    def region(self) -> str:
        """The region in its ARN; empty for a name, which each region may have."""
        match = _ARN.fullmatch(self.name)
        return match["region"] if match else ""

    @property
    def shown(self) -> str:
        """Its name, for people."""
        match = _ARN.fullmatch(self.name)
        return match["name"] if match else self.name


@dataclasses.dataclass(frozen=True)
class TargetGroup:
    """A target group as AWS has it.

    Attributes:
        arn: its ARN.
        name: its name.
        region: where it is.
        vpc: its VPC's id; empty for none.
        kind: what its targets are: ``instance``, ``ip``, ``lambda`` or ``alb``.
        port: of a target that is registered without one; None for none.
        balancers: the ARNs of the balancers with a listener that uses it.
    """

    arn: str
    name: str
    region: str
    vpc: str
    kind: str
    port: int | None
    balancers: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        return f"target group {self.name} in {self.region}"


@dataclasses.dataclass(frozen=True)
class GroupTarget:
    """A target of a group: an instance id or an address, and its port."""

    id: str
    port: int


@dataclasses.dataclass(frozen=True)
class BalancedHost:
    """A host of the fleet, as target groups see it.

    Attributes:
        name: its name in the inventory.
        role: its tier.
        wanted: the groups of its variables.
        region: where it is; empty if that is not known.
        instance_id: EC2's; empty outside of EC2.
        address: its private address.
        vpc: its VPC's id; empty if that is not known.
        port: of its edge.
        ports: all that its edge serves requests on. A host that only computes for another one has none.
    """

    name: str
    role: str
    wanted: tuple[WantedGroup, ...]
    region: str
    instance_id: str
    address: str
    vpc: str
    port: int
    ports: tuple[int, ...]

    @property
    def own(self) -> tuple[WantedGroup, ...]:
        """The groups of its role."""
        return tuple(one for one in self.wanted if one.role == self.role)


@dataclasses.dataclass(frozen=True)
class Membership:
    """A host as a target of a group."""

    host: str
    group: TargetGroup
    target: GroupTarget

    @property
    def said(self) -> str:
        return f"{self.host} in {self.group.said} (port {self.target.port})"


def read_groups(given: t.Any) -> tuple[WantedGroup, ...]:
    """The groups that the variable names.

    Args:
        given: a list of dictionaries, or that list as JSON (so it comes from the command line).

    Raises:
        FleetError: it is no such list, or names a group twice.
    """
    items = given
    if isinstance(given, str) and given.strip():
        try:
            items = json.loads(given)
        except ValueError:
            items = given
    if items is None or items == "":
        return ()
    if not isinstance(items, (list, tuple)):
        raise FleetError(f"{VARIABLE} is {given!r}, which is no list of target groups. {_EXAMPLE}")
    groups = tuple(_read_item(item) for item in items)
    for number, one in enumerate(groups):
        if one in groups[:number]:
            raise FleetError(f"{VARIABLE} names target group {one.shown} of role {one.role} twice. Remove one of them.")
    return groups


def _read_item(item: t.Any) -> WantedGroup:
    if not isinstance(item, t.Mapping) or not item.get("name"):
        raise FleetError(f"{VARIABLE} has {item!r}, which does not name a target group. {_EXAMPLE}")
    unknown = sorted(str(key) for key in item if key not in _FIELDS)
    if unknown:
        raise FleetError(
            f"{VARIABLE} has {', '.join(unknown)} in {dict(item)!r}; valid are {', '.join(_FIELDS)}. {_EXAMPLE}"
        )
    name, role, port = str(item["name"]), str(item.get("role") or ROLES[0]), item.get("port")
    if not _NAME.fullmatch(name) and not _ARN.fullmatch(name):
        raise FleetError(
            f"{VARIABLE} has {name!r}, which is neither a target group's name (letters, digits and dashes, at most 32) "
            f"nor its ARN (arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID). {_EXAMPLE}"
        )
    if role not in ROLES:
        raise FleetError(f"{VARIABLE} gives target group {name} role {role!r}; valid are {', '.join(ROLES)}.")
    return WantedGroup(name, role, None if port in (None, "") else _read_port(name, port))


def _read_port(name: str, given: t.Any) -> int:
    try:
        port = 0 if isinstance(given, bool) else int(given)
    except (TypeError, ValueError):
        port = 0
    if not 0 < port <= _LAST_PORT:
        raise FleetError(f"{VARIABLE} gives target group {name} port {given!r}; valid are 1 to {_LAST_PORT}.")
    return port


def choose_mode(given: str, groups: t.Sequence[WantedGroup], role: str) -> str:
    """How balancers in front notice that a host of a role is out: by registration, or by its health.

    Args:
        given: ``balancer_mode``; empty for the default.
        groups: those of fleet_target_groups.
        role: the host's tier.

    Raises:
        FleetError: registration without a target group.
    """
    if given not in ("", *MODES):
        raise FleetError(f"balancer_mode is {given!r}; valid are {', '.join(MODES)}.")
    has_group = any(one.role == role for one in groups)
    if given == REGISTRATION and not groups:
        raise FleetError(
            f"balancer_mode is {REGISTRATION}, and {VARIABLE} names no target group. Name one, or remove balancer_mode."
        )
    return (given or REGISTRATION) if has_group else HEALTH


def find_group(wanted: WantedGroup, region: str, known: t.Sequence[TargetGroup]) -> TargetGroup | None:
    """The group of a region; None where it has none."""
    named = (one for one in known if one.region == region and wanted.name in (one.name, one.arn))
    return next(named, None)


def match_hosts(
    hosts: t.Iterable[BalancedHost], known: t.Mapping[str, t.Sequence[TargetGroup]]
) -> tuple[list[Membership], list[str]]:
    """The targets that each host is, and why some cannot be.

    Args:
        hosts: those of the fleet.
        known: the target groups of each region of the hosts.
    """
    memberships: list[Membership] = []
    problems: list[str] = []
    for host in hosts:
        for wanted in host.own if host.ports else ():
            if wanted.region and wanted.region != host.region:
                continue
            group = find_group(wanted, host.region, known.get(host.region, ()))
            problem = _missing(wanted, host, known) if group is None else _mismatch(wanted, host, group)
            if problem:
                problems.append(problem)
            elif group:
                port = wanted.port or host.port
                target = GroupTarget(host.instance_id if group.kind == INSTANCE else host.address, port)
                memberships.append(Membership(host.name, group, target))
        if host.ports and host.own and all(one.region not in ("", host.region) for one in host.own):
            problems.append(
                f"{host.name} is in {host.region or 'an unknown region'}, and every target group of {VARIABLE} for "
                f"role {host.role} is elsewhere ({', '.join(f'{one.shown} in {one.region}' for one in host.own)}): no "
                f"client could reach it. Name a group in {host.region or 'its region'}."
            )
    return memberships, list(dict.fromkeys(problems))


def _missing(wanted: WantedGroup, host: BalancedHost, known: t.Mapping[str, t.Sequence[TargetGroup]]) -> str:
    if not host.region:
        return (
            f"The region of {host.name} is not known, so its target group {wanted.shown} cannot be found. Set "
            "fleet_region, or AWS_REGION in this shell."
        )
    names = sorted(one.name for one in known.get(host.region, ()))
    elsewhere = sorted(region for region in known if find_group(wanted, region, known[region]))
    alike = difflib.get_close_matches(wanted.shown, names, 1)
    if elsewhere:
        there = f"There is one in {', '.join(elsewhere)}, where {host.name} is not."
    elif alike:
        there = f"Is it {alike[0]}?"
    else:
        there = f"There {'are' if names else 'is'} {', '.join(names[:10]) or 'none'}."
    return (
        f"There is no target group {wanted.shown} in {host.region}, where {host.name} is. {there} Correct {VARIABLE}."
    )


def _mismatch(wanted: WantedGroup, host: BalancedHost, group: TargetGroup) -> str:
    """Why a host cannot be a target of a group; empty where it can."""
    port = wanted.port or host.port
    served = ", ".join(map(str, host.ports))
    if group.kind not in (INSTANCE, IP):
        return f"T{group.said[1:]} has the target type {group.kind}; hosts need {INSTANCE} or {IP}."
    if group.kind == INSTANCE and not host.instance_id:
        return (
            f"{host.name} has no aws_instance_id, which {group.said} needs (target type {INSTANCE}). Use the inventory "
            f"of EC2, or a group of target type {IP}."
        )
    if group.kind == IP and not _is_address(host.address):
        return (
            f"The address of {host.name} is {host.address!r}, and {group.said} needs an IP address (target type {IP}). "
            "Set fleet_address."
        )
    if host.vpc and group.vpc and host.vpc != group.vpc:
        return f"{host.name} is in {host.vpc}, and {group.said} in {group.vpc}. A host must be in the VPC of its group."
    if port not in host.ports:
        return (
            f"T{group.said[1:]} would send requests to port {port} of {host.name}, whose edge serves {served}. Correct "
            f"the port in {VARIABLE}."
        )
    if wanted.port is None and group.port not in (None, port):
        return (
            f"T{group.said[1:]} has port {group.port}, and the edge of {host.name} port {port}. To register its hosts "
            f"with {port}: {VARIABLE}: [{{name: {wanted.shown}, role: {wanted.role}, port: {port}}}]."
        )
    return ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
