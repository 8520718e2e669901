# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: target_group
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Register hosts in their target groups, and deregister them
description:
  - Takes hosts out of the target groups of C(fleet_target_groups) and puts them back, all hosts of a turn at once, with
    one call of AWS's API for each group. It works on the controller and makes no connection.
  - Which targets a host is follows from its variables. C(fleet_target_groups) has the groups, C(fleet_region),
    C(aws_instance_id), C(aws_vpc_id) and C(ansible_host) come from the inventory, and the ports are those that the
    host's edge serves. A host without target groups, or with C(balancer_mode=health), is left alone.
  - A group that does not exist, is in another region or VPC, has another port or another target type, or is used by no
    listener is an error before anything is changed.
  - It needs boto3 and credentials with the policy C(controller_target_groups) of docs/aws-iam.json.
attributes:
  check_mode:
    support: full
    description: Looks, and says what it would register or deregister; does not wait.
  diff_mode:
    support: full
    description: Shows each target that moves, with its state before and after.
options:
  state:
    description:
      - V(looked) reads what the groups say of the hosts.
      - V(deregistered) takes the hosts out, waits until every group says C(draining), and then O(settle) seconds. It
        never waits for C(unused), which AWS says only after the deregistration delay. If it fails halfway, the hosts
        are registered again.
      - V(registered) registers what is not registered or drains, and waits until every group calls the hosts
        C(healthy).
    type: str
    required: true
    choices: [looked, deregistered, registered]
  hosts:
    description: The hosts, by their names in the inventory; without it the host of the task.
    type: list
    elements: str
  instances:
    description:
      - With O(state=deregistered), for each host the indexes of the instances that are about to be out, one after the
        other. Only the groups whose port then loses its last serving instance are touched, which takes O(status).
      - A host that is not named goes out as a whole.
    type: dict
    default: {}
  status:
    description:
      - The name of the variable in which each host has the result of M(inference.fleet.fleet_status).
      - With O(state=registered), only ports are registered on which an instance serves that is not drained, and whose
        last gate passed. Without a status the host is registered on all its ports.
    type: str
    default: ""
  controller:
    description:
      - With O(state=registered), this controller as rollouts name it. With O(status), a host that the rollout of
        another controller holds is left to that one.
    type: str
    default: ""
  take_over:
    description: With O(state=registered), register a host even if the rollout of another controller holds it.
    type: bool
    default: false
  settle:
    description: Seconds for which requests still come to a target after it is seen as draining.
    type: float
    default: 10
  healthy_timeout:
    description: Seconds to wait until a registered target is healthy.
    type: float
    default: 120
  accept_last:
    description: Deregister a host even if a group has no other healthy target.
    type: bool
    default: false
  journal:
    description: A rollout's journal on the controller, for the steps; empty for none.
    type: str
    default: ""
  report:
    description: Return what fails in RV(problem) and RV(problems) instead of failing, so that a rollout records it.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Take a host out of its target groups
  inference.fleet.target_group:
    state: deregistered
    hosts: [llm-1]
  run_once: true

- name: Put every host of the play back
  inference.fleet.target_group:
    state: registered
    hosts: "{{ ansible_play_hosts }}"
  run_once: true
"""

RETURN = r"""
hosts:
  description: The hosts that are in target groups, by name.
  returned: always
  type: dict
  contains:
    summary:
      description: The host's state in all its groups, such as V(healthy 2/2) or V(unused:) with AWS's reason.
      type: str
      returned: always
    targets:
      description: Group, ARN, region, id, port, state, reason and description of each target.
      type: list
      elements: dict
      returned: always
    out:
      description: Whether the host, or one of its ports, was to be deregistered.
      type: bool
      returned: always
problem:
  description: With O(report=true), what failed for all hosts; empty for nothing.
  returned: always
  type: str
problems:
  description: With O(report=true), for each host that is not healthy in its groups, why.
  returned: always
  type: dict
look:
  description: The groups, the hosts' targets, and the health of every target of the groups.
  returned: unless it failed
  type: dict
"""
