"""The settings of a lab's load balancer, and the lab's Ansible variables: generated files in its state directory."""

from __future__ import annotations

import json
import typing as t

from lab import controller, files, hosts
from lab.state import Lab

#: As docs/aws.md wants them. The interval is AWS's shortest.
HEALTH_CHECK = {
    "HealthCheckIntervalSeconds": 5,
    "HealthCheckTimeoutSeconds": 4,
    "HealthyThresholdCount": 2,
    "UnhealthyThresholdCount": 2,
}
IDLE_TIMEOUT = 600
TARGET_GROUP = {
    # Not shorter than edge_drain_timeout. No run waits for it.
    "deregistration_delay.timeout_seconds": "600",
    "load_balancing.algorithm.type": "round_robin",
}
LOAD_BALANCER = {"idle_timeout.timeout_seconds": str(IDLE_TIMEOUT)}
#: For so many seconds a deregistered target still gets requests: not every part of a balancer knows at once.
SETTLE = 2.0
TARGET_GROUPS = [{"name": "fleet", "role": "inference"}, {"name": "fleet-gateways", "role": "gateway"}]
#: Auto Scaling: where its events go, and how long it waits for a heartbeat.
QUEUE = "fleet-events"
EVENT_PATTERN = {
    "source": ["aws.autoscaling", "aws.ec2"],
    "detail-type": [
        "EC2 Instance-launch Lifecycle Action",
        "EC2 Instance-terminate Lifecycle Action",
        "EC2 Spot Instance Interruption Warning",
        "EC2 Instance Rebalance Recommendation",
    ],
}
HOOK_TIMEOUT = 300
LARGEST_GROUP = 5
#: Longer than a balancer needs to notice: two checks, each second by HAProxy itself, else each 5 by a target group. On
#: a busy machine checks come late.
LAME_DUCK = {"health": 8, "registration": 15}


def engine_environment(lab: Lab) -> dict[str, str]:
    """Variables for uv and pip on a host: the shared cache, this machine's indexes, certificates and proxies."""
    given = controller.inherited(lab.gateway, lab.subnet)
    return {
        **given.proxies,
        **given.uv,
        "SSL_CERT_FILE": controller.HOST_BUNDLE,
        "UV_CACHE_DIR": hosts.UV_CACHE,
        # The cache is on another mount than the disk, so hard links are not possible, and a copy is 2 GB for each host.
        "UV_LINK_MODE": "symlink",
    }


def connection(lab: Lab) -> dict[str, t.Any]:
    return {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(lab.key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={lab.known_hosts} -o IdentitiesOnly=yes",
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def write(lab: Lab) -> None:
    """``vars.json``, read by inventories/lab, and ``scratch.json``, an inventory of the hosts outside the fleet."""
    variables = {"engine_pip_environment": engine_environment(lab)}
    fleet = {
        **variables,
        "fleet_url": f"{lab.balancer_url}/v1",
        "fleet_aws_endpoint": lab.ec2_endpoint,
        "fleet_target_groups": TARGET_GROUPS if lab.balancer == "registration" else [],
        "edge_lame_duck": LAME_DUCK[lab.balancer],
    }
    files.write_changed(lab.directory / "vars.json", json.dumps(fleet, indent=2) + "\n")
    scratch = {
        "scratch": {
            "hosts": {host.name: {"ansible_host": lab.address(host)} for host in lab.hosts.values() if not host.role},
            "vars": {**connection(lab), "fleet_accelerator": "cpu", "fleet_lab_name": lab.name, **variables},
        }
    }
    files.write_changed(lab.directory / "scratch.json", json.dumps(scratch, indent=2) + "\n")
