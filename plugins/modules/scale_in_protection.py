# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scale_in_protection
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Keep Auto Scaling groups from ending hosts of a rollout
description:
  - Protects hosts that an Auto Scaling group started from scale-in, and takes that back, with one call for each group.
    It works on the controller and makes no connection. Hosts without the tag C(aws:autoscaling:groupName), and those
    that are not in service in their group, are left alone.
  - What a user has protected stays so. A rollout notes on the host what it protects (M(inference.fleet.rollout_claim)),
    before it does, so that any later run takes it back.
  - It needs boto3 and credentials with the policy C(controller_target_groups) of docs/aws-iam.json.
attributes:
  check_mode:
    support: full
    description: Only looks.
  diff_mode:
    support: none
    description: The result says what is protected.
options:
  state:
    description:
      - V(looked) reads the protection of O(hosts), V(protected) protects them.
      - V(unprotected) takes the protection from those that O(claims) says were protected for a rollout, unless the
        rollout of another controller holds them.
    type: str
    required: true
    choices: [looked, protected, unprotected]
  hosts:
    description: The hosts, by their names in the inventory.
    type: list
    elements: str
    default: []
  claims:
    description: The name of the variable in which each host has the result of M(inference.fleet.rollout_claim).
    type: str
    default: ""
  controller:
    description: This controller, as rollouts name it.
    type: str
    default: ""
  report:
    description: Return what fails in RV(problem) instead of failing.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Protect the hosts of the rollout
  inference.fleet.scale_in_protection:
    state: protected
    hosts: "{{ rollout_planned.plan.hosts | list }}"
  run_once: true
"""

RETURN = r"""
hosts:
  description: Group, lifecycle state and protection, before the task, of each host that is in an Auto Scaling group.
  returned: always
  type: dict
problem:
  description: With O(report=true), what failed; empty for nothing.
  returned: always
  type: str
"""
