# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_status
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Read what AWS says about hosts
description:
  - Reads the state of hosts in their target groups (C(fleet_target_groups)), and the events that EC2 has scheduled for
    their instances. It changes nothing, and asks no host.
  - A call that fails does not fail the task. RV(notes) has the reason then.
  - Run it once for all hosts. It makes no call for hosts without C(aws_instance_id), and none about target groups
    without C(fleet_target_groups).
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  hosts:
    description: The hosts.
    type: list
    elements: str
    required: true
seealso:
  - module: inference.fleet.balancer_settings
"""

EXAMPLES = r"""
- name: Read what AWS says about the hosts
  inference.fleet.aws_status:
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true
  register: aws_status
"""

RETURN = r"""
hosts:
  description: What is known of each host, by its name. A host without anything has no entry.
  returned: always
  type: dict
  contains:
    balancer:
      description: Its state in its target groups.
      returned: if it is in any
      type: str
      sample: healthy 2/2
    events:
      description: What EC2 has scheduled for it, in UTC; empty for nothing.
      returned: if it is an instance of EC2 and the events were read
      type: str
      sample: system-reboot 2026-12-03 02:00
columns:
  description: Which of C(balancer) and C(events) any host has; the columns of a table.
  returned: always
  type: list
  elements: str
notes:
  description: Why something could not be read.
  returned: always
  type: list
  elements: str
"""
