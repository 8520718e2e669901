# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""How a setting of a target group or balancer is judged, and the commands that repair it. Pure."""

from __future__ import annotations

import dataclasses
import shlex
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import BalancerNeeds, GroupReading

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclasses.dataclass(frozen=True)
class SettingVerdict:
    """What was found about a setting.

    Attributes:
        value: what it is.
        wanted: what is wanted.
        verdict: ``ok``, ``warning`` or ``error``.
        why: what happens otherwise; empty where it is right.
        repair: the command that repairs it; empty where it is right.
    """

    value: str
    wanted: str
    verdict: str = OK
    why: str = ""
    repair: str = ""


Verdicts = t.Iterator[SettingVerdict]
Judge = t.Callable[[GroupReading, BalancerNeeds], Verdicts]


@dataclasses.dataclass(frozen=True)
class BalancerSetting:
    """A setting that is looked at. The texts are for the table in docs/aws.md.

    Attributes:
        name: its name.
        call: the calls of AWS's API that show it.
        wanted: what is wanted.
        otherwise: how severe another value is.
        why: what happens with another value.
        repair: how to repair it.
        judge: the verdicts on a group: none where the setting does not matter, several where it is one for each host.
    """

    name: str
    call: str
    wanted: str
    otherwise: str
    why: str
    repair: str
    judge: Judge


def judged(value: t.Any, wanted: str, failed: str, why: str, repair: str) -> SettingVerdict:
    """A verdict; ``failed`` is ``ok`` where the value is right."""
    if failed == OK:
        return SettingVerdict(str(value), wanted)
    return SettingVerdict(str(value), wanted, failed, why, repair)


def command(group: GroupReading, verb: str, *options: str) -> str:
    """A command of ``aws elbv2`` about a target group."""
    return aws(group.region, "elbv2", verb, "--target-group-arn", group.arn, *options)


def set_attributes(group: GroupReading, values: t.Mapping[str, t.Any]) -> str:
    """The command that sets attributes of a target group."""
    pairs = [f"Key={name},Value={value}" for name, value in values.items()]
    return command(group, "modify-target-group-attributes", "--attributes", *pairs)


def aws(region: str, service: str, verb: str, *options: str) -> str:
    """A command of the AWS CLI."""
    return shlex.join(["aws", service, verb, "--region", region, *options])


def attribute(group: GroupReading, name: str, default: str) -> str:
    """An attribute of a target group; AWS's default where the answer does not have it."""
    return str(group.attributes.get(name) or default)


def seconds(value: float) -> str:
    """A time for a person and for AWS's settings: whole seconds."""
    return f"{value:g}"
