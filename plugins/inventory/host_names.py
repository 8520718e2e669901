# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names the hosts of an EC2 inventory after their tags, where the name is usable."""

from __future__ import annotations

DOCUMENTATION = """
name: host_names
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Names the hosts of an EC2 inventory after their tags
description:
  - Renames the hosts that C(amazon.aws.aws_ec2) added by their instance ids to the value of their tag
    C(inference:name), else of C(Name).
  - A name that several instances share gets the instance id appended, V(NAME_i-0123456789abcdef0), so that each stays a
    separate host. One that has it by C(inference:name) keeps the plain name beside those that have it by C(Name). The
    only running one keeps it beside stopped ones.
  - A host of an Auto Scaling group without C(inference:name) always gets the instance id appended. The group gives all
    of its instances one C(Name), and names do not change when it grows.
  - A host keeps its instance id when it has no such tag, or one that Ansible cannot use.
  - A warning lists every name that is shared or not used, with the instance ids.
  - A value of the tag C(inference:state) other than V(joining) and V(leaving) is an error.
  - The variables C(fleet_name_tag), C(fleet_own_name_tag), C(fleet_scaling_group) and C(fleet_state_tag) have the tags,
    and C(fleet_state) has the state.
  - Ansible must read the file after that of C(amazon.aws.aws_ec2); it reads a directory in alphabetical order.
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [inference.fleet.host_names]
"""

EXAMPLES = """
# inventories/aws/host_names.yml
plugin: inference.fleet.host_names
"""

import typing as t

from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.names import (
    Ec2Instance,
    name_hosts,
    state_problems,
)


class InventoryModule(BaseInventoryPlugin):
    """See DOCUMENTATION."""

    NAME = "inference.fleet.host_names"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith((".yml", ".yaml"))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        instances = [
            Ec2Instance(
                id=name,
                tag=str(host.vars["fleet_name_tag"]),
                state=str(host.vars["fleet_state"]),
                own_tag=str(host.vars.get("fleet_own_name_tag", "")),
                scaling_group=str(host.vars.get("fleet_scaling_group", "")),
                state_tag=str(host.vars.get("fleet_state_tag", "")),
            )
            for name, host in inventory.hosts.items()
            if "fleet_name_tag" in host.vars
        ]
        problems = state_problems(instances)
        if problems:
            raise AnsibleParserError(" ".join(problems))
        naming = name_hosts(instances, inventory.groups)
        for note in naming.notes:
            self.display.warning(note)
        for old, new in naming.names.items():
            if old != new:
                rename(inventory, old, new)


def rename(inventory: t.Any, old: str, new: str) -> None:
    """Rename a host; its variables and groups stay."""
    host = inventory.hosts[old]
    groups = [group.name for group in inventory.groups.values() if host in group.hosts]
    inventory.remove_host(host)
    inventory.add_host(new)
    for group in groups:
        inventory.add_child(group, new)
    for name, value in host.vars.items():
        inventory.set_variable(new, name, value)
