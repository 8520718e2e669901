"""Hosts and target groups for tests."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import (
    BalancedHost,
    GroupTarget,
    Membership,
    TargetGroup,
    WantedGroup,
)

REGION, VPC = "us-east-1", "vpc-1"


def arn(name: str, region: str = REGION) -> str:
    return f"arn:aws:elasticloadbalancing:{region}:123456789012:targetgroup/{name}/50dc6c495c0c9188"


def group(name: str = "fleet", region: str = REGION, **fields: t.Any) -> TargetGroup:
    known: dict[str, t.Any] = {"vpc": VPC, "kind": "instance", "port": 8000, "balancers": ("arn:balancer",)}
    return TargetGroup(arn(name, region), name, region, **{**known, **fields})


def host(name: str = "gpu-1", *wanted: WantedGroup, **fields: t.Any) -> BalancedHost:
    number = int(name.rpartition("-")[2])
    own = BalancedHost(
        name=name,
        role="inference",
        wanted=wanted or (WantedGroup("fleet"),),
        region=REGION,
        instance_id=f"i-{number:017x}",
        address=f"10.0.0.{number}",
        vpc=VPC,
        port=8000,
        ports=(8000,),
    )
    return dataclasses.replace(own, **fields)


def member(name: str = "gpu-1", of: TargetGroup | None = None, port: int = 8000) -> Membership:
    return Membership(name, of or group(), GroupTarget(host(name).instance_id, port))
