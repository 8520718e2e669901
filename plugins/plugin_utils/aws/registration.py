# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Takes hosts out of their target groups and puts them back, and waits until the groups say so."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer import health
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import Membership
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import BalancerLook

#: Seconds between two looks while a state is awaited.
PAUSE = 2.0
#: Within so many seconds a deregistered target is seen as draining; AWS needs one or two.
SEEN_SECONDS = 60.0


class RegisteringGroups(t.Protocol):
    """Target groups, as aws/target_groups.py reaches them."""

    def look_again(self, before: BalancerLook) -> BalancerLook: ...

    def register(self, memberships: t.Sequence[Membership]) -> None: ...

    def deregister(self, memberships: t.Sequence[Membership]) -> None: ...


@dataclasses.dataclass(frozen=True)
class Registration:
    """What was done.

    Attributes:
        look: the groups at the end.
        moved: the targets that were registered or deregistered.
        problems: for each host that is not where it was wanted, why.
    """

    look: BalancerLook
    moved: tuple[Membership, ...] = ()
    problems: t.Mapping[str, str] = dataclasses.field(default_factory=dict)


def deregister(
    groups: RegisteringGroups, look: BalancerLook, out: t.Sequence[Membership], settle: float
) -> Registration:
    """Take targets out, wait until each group says that they drain, and then until no request comes to them any more.

    If that fails, what was taken out is put back.

    Args:
        groups: the target groups.
        look: what they said.
        out: the targets.
        settle: seconds for which requests still come to a target that drains.

    Raises:
        FleetError: AWS refused it, or a group does not say that the targets drain; the message says whether the
            targets are registered again.
    """
    registered = [one for one in out if look.health_of(one).is_registered]
    try:
        groups.deregister(registered)
        look = _await_draining(groups, look, out)
    except FleetError as error:
        raise FleetError(f"{error.message} {_put_back(groups, registered)}".strip()) from error
    # Those that were out before may have been taken out a moment ago, by a run that was interrupted.
    if any(look.health_of(one).reason != health.NOT_REGISTERED for one in out):
        time.sleep(settle)
    return Registration(look, tuple(registered))


def _await_draining(groups: RegisteringGroups, look: BalancerLook, out: t.Sequence[Membership]) -> BalancerLook:
    until = time.monotonic() + SEEN_SECONDS
    while True:
        look = groups.look_again(look)
        still = [one for one in out if look.health_of(one).is_registered]
        if not still:
            return look
        if time.monotonic() >= until:
            named = ", ".join(f"{one.said} is {look.health_of(one).said}" for one in still)
            raise FleetError(
                f"AWS accepted the deregistration, but {SEEN_SECONDS:.0f} seconds later {named}. Look whether "
                "something else registers it, such as an Auto Scaling group."
            )
        time.sleep(PAUSE)


def _put_back(groups: RegisteringGroups, registered: t.Sequence[Membership]) -> str:
    if not registered:
        return ""
    hosts = " and ".join(dict.fromkeys(one.host for one in registered))
    try:
        groups.register(registered)
    except FleetError:
        return f"{hosts} may be out of some groups now; the same command, or playbooks/undrain.yml, registers it again."
    return f"{hosts} is registered as before."


def register(
    groups: RegisteringGroups, look: BalancerLook, wanted: t.Sequence[Membership], timeout: float
) -> Registration:
    """Register the targets that are not, and wait until each group calls all of them healthy.

    Args:
        groups: the target groups.
        look: what they said.
        wanted: the targets.
        timeout: seconds to wait for their health.

    Raises:
        FleetError: AWS refused it, or did not answer.
    """
    missing = [one for one in wanted if not look.health_of(one).is_registered]
    groups.register(missing)
    until = time.monotonic() + timeout
    while True:
        if missing or not _all_healthy(look, wanted):
            look = groups.look_again(look)
        if _all_healthy(look, wanted):
            return Registration(look, tuple(missing))
        if time.monotonic() >= until or _is_hopeless(look, wanted):
            return Registration(look, tuple(missing), _unhealthy(look, wanted, timeout))
        time.sleep(PAUSE)


def _all_healthy(look: BalancerLook, wanted: t.Sequence[Membership]) -> bool:
    return all(look.health_of(one).state == health.HEALTHY for one in wanted)


def _is_hopeless(look: BalancerLook, wanted: t.Sequence[Membership]) -> bool:
    """Whether only targets are left that no time makes healthy."""
    left = [look.health_of(one) for one in wanted if look.health_of(one).state != health.HEALTHY]
    return all(one.reason == health.NOT_IN_USE for one in left)


def _unhealthy(look: BalancerLook, wanted: t.Sequence[Membership], timeout: float) -> dict[str, str]:
    problems: dict[str, str] = {}
    for host in dict.fromkeys(one.host for one in wanted):
        said = health.waiting_for_health(look, [one for one in wanted if one.host == host])
        unusable = health.not_usable(look, [host])
        if unusable:
            problems[host] = " ".join(unusable)
        elif said:
            problems[host] = (
                f"{host} serves at its edge, but after {timeout:g} seconds {' and '.join(said)}. Look at the group's "
                "health check (path /health, the port of the edge) and at the hosts' security group."
            )
    return problems
