"""A fleet behind a target group in moto's Elastic Load Balancing, and an action that looks at it."""

from __future__ import annotations

import typing as t
from unittest import mock

import boto3

from tests.unit.plugins.plugin_utils.aws.balancers import REGION, Made, launch, make_group

Hosts = dict[str, dict[str, t.Any]]


class BalancedFleet:
    """Two inference hosts, healthy behind the target group ``fleet``, and a gateway without one."""

    def __init__(self) -> None:
        self.made: Made = make_group()
        self.hosts: Hosts = {}
        for name, subnet in zip(("gpu-1", "gpu-2"), self.made.subnets):
            self.hosts[name] = self._host(name, launch(subnet))
        self.hosts["gw-1"] = {**self._host("gw-1", launch(self.made.subnets[0])), "gateway_models": []}
        self.register("gpu-1", "gpu-2")

    def _host(self, name: str, instance: str) -> dict[str, t.Any]:
        described = boto3.client("ec2", REGION).describe_instances(InstanceIds=[instance])
        found = described["Reservations"][0]["Instances"][0]
        return {
            "inventory_hostname": name,
            "ansible_host": found["PrivateIpAddress"],
            "aws_instance_id": instance,
            "aws_placement": {"availability_zone": found["Placement"]["AvailabilityZone"], "region": REGION},
            "aws_vpc_id": found["VpcId"],
            "fleet_instance_type": "g6e.xlarge",
            "fleet_region": REGION,
            "fleet_state": "running",
            "fleet_target_groups": [{"name": "fleet", "role": "inference"}],
        }

    @property
    def elbv2(self) -> t.Any:
        return boto3.client("elbv2", REGION)

    def register(self, *names: str) -> None:
        targets = [{"Id": self.hosts[name]["aws_instance_id"], "Port": 8000} for name in names]
        self.elbv2.register_targets(TargetGroupArn=self.made.group, Targets=targets)

    def set_attribute(self, name: str, value: str) -> None:
        self.elbv2.modify_target_group_attributes(
            TargetGroupArn=self.made.group, Attributes=[{"Key": name, "Value": value}]
        )

    def set_for_all(self, **variables: t.Any) -> None:
        for own in self.hosts.values():
            own.update(variables)

    def ask(
        self, action: type[t.Any], play: t.Sequence[str] = (), *, check: bool = False, **arguments: t.Any
    ) -> dict[str, t.Any]:
        """The result of an action.

        Args:
            action: its class.
            play: the hosts of the play; none for all.
            check: check mode.
            arguments: the action's.
        """
        task = mock.Mock(args=arguments, async_val=0, check_mode=check, action="inference.fleet.x")
        templar = mock.Mock(template=lambda value: value)
        asked = action(task, mock.MagicMock(), mock.Mock(), mock.Mock(), templar, mock.Mock())
        hosts = list(play or self.hosts)
        variables = {
            **self.hosts[hosts[0]],
            "hostvars": self.hosts,
            "groups": {
                "all": list(self.hosts),
                "inference": [name for name in self.hosts if name.startswith("gpu")],
                "gateway": [name for name in self.hosts if name.startswith("gw")],
                "ring_canary": [],
            },
            "ansible_play_hosts_all": hosts,
        }
        return dict(asked.run(task_vars=variables))
