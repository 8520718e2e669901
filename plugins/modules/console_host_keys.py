# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: console_host_keys
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Learn the SSH host keys of a new EC2 instance from its console
description:
  - On its first boot cloud-init prints an instance's host keys to the console. C(ec2:GetConsoleOutput) gives that text
    over AWS's API, so the keys are known before the first connection, and host key checking stays on.
  - It waits for the keys and writes them to the known hosts file of the user that runs Ansible. It replaces those of
    the same address, because EC2 gives the address of an instance that is gone to a new one. Keys that are known
    already stay if the console has none any more, as on an instance that runs for long.
  - It works on the controller through boto3.
attributes:
  check_mode:
    support: full
    description: Reads the console, and writes nothing.
  diff_mode:
    support: none
    description: Returns the fingerprints.
options:
  address:
    description: What SSH connects to, an address or a name.
    type: str
    required: true
  port:
    description: The port of its sshd.
    type: int
    default: 22
  path:
    description: The known hosts file.
    type: path
    default: ~/.ssh/known_hosts
  timeout:
    description: Seconds to wait for the keys.
    type: float
    default: 600
extends_documentation_fragment: inference.fleet.ec2_instance
"""

EXAMPLES = r"""
- name: Learn its host keys
  inference.fleet.console_host_keys:
    instance: "{{ aws_instance_id }}"
    region: "{{ fleet_region }}"
    address: "{{ ansible_host }}"
"""

RETURN = r"""
fingerprints:
  description: The fingerprints of the keys that are known now, as C(ssh-keygen -l) shows them.
  returned: success
  type: list
  elements: str
"""
