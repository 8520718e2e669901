# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Reads target groups with everything that playbooks/balancer.yml judges."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import AwsService
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import (
    BalancerReading,
    Described,
    GroupReading,
    ListenerReading,
)

_ELBV2_SOURCE = "elbv2"


def read_groups(elbv2: AwsService, autoscaling: AwsService, groups: t.Sequence[Described]) -> list[GroupReading]:
    """Target groups of one region, with their attributes, targets, balancers and Auto Scaling groups.

    Args:
        elbv2: Elastic Load Balancing in that region.
        autoscaling: Auto Scaling in that region.
        groups: as DescribeTargetGroups returns them.

    Raises:
        FleetError: AWS refused a call, or did not answer; the message names the call, the right and the region.
    """
    scaling = autoscaling.pages("describe_auto_scaling_groups", "AutoScalingGroups") if groups else []
    arns = dict.fromkeys(str(arn) for group in groups for arn in group.get("LoadBalancerArns") or ())
    balancers = {arn: _read_balancer(elbv2, arn) for arn in arns}
    return [
        GroupReading(
            described=group,
            attributes=_attributes(
                elbv2.call(
                    "describe_target_group_attributes",
                    f"target group {group['TargetGroupName']}",
                    TargetGroupArn=group["TargetGroupArn"],
                )
            ),
            health=read_health(elbv2, group),
            balancers=[balancers[str(arn)] for arn in group.get("LoadBalancerArns") or ()],
            scaling=[one for one in scaling if group["TargetGroupArn"] in _registers_in(one)],
        )
        for group in groups
    ]


def read_health(elbv2: AwsService, group: Described) -> list[Described]:
    """The targets of a group with their states, as DescribeTargetHealth returns them.

    Raises:
        FleetError: as read_groups.
    """
    about = f"target group {group['TargetGroupName']}"
    answer = elbv2.call("describe_target_health", about, TargetGroupArn=group["TargetGroupArn"])
    return list(answer["TargetHealthDescriptions"])


def _read_balancer(elbv2: AwsService, arn: str) -> BalancerReading:
    about = f"balancer {'/'.join(arn.split('/')[1:])}"
    (described,) = elbv2.call("describe_load_balancers", about, LoadBalancerArns=[arn])["LoadBalancers"]
    attributes = elbv2.call("describe_load_balancer_attributes", about, LoadBalancerArn=arn)
    listeners = elbv2.pages("describe_listeners", "Listeners", about=about, LoadBalancerArn=arn)
    return BalancerReading(
        described,
        _attributes(attributes),
        [ListenerReading(one, _read_rules(elbv2, one, about, described)) for one in listeners],
    )


def _read_rules(elbv2: AwsService, listener: Described, about: str, balancer: Described) -> list[Described]:
    # Only an ALB's listeners have rules.
    if balancer.get("Type") != "application":
        return []
    return list(elbv2.pages("describe_rules", "Rules", about=about, ListenerArn=listener["ListenerArn"]))


def _attributes(answer: Described) -> dict[str, str]:
    return {str(one["Key"]): str(one.get("Value", "")) for one in answer["Attributes"]}


def _registers_in(scaling: Described) -> set[str]:
    """The target groups in which an Auto Scaling group registers its instances."""
    sources = [one for one in scaling.get("TrafficSources") or () if one.get("Type", _ELBV2_SOURCE) == _ELBV2_SOURCE]
    return {*(scaling.get("TargetGroupARNs") or ()), *(str(one.get("Identifier")) for one in sources)}
