# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names the hosts of an EC2 inventory after their tag Name, where the name is usable."""

from __future__ import annotations

DOCUMENTATION = """
name: host_names
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Names the hosts of an EC2 inventory after their tag Name
description:
  - Renames the hosts that C(amazon.aws.aws_ec2) added by their instance ids to the value of their tag C(Name). Their
    variables C(fleet_name_tag) and C(fleet_state) have the tag and the state.
  - A name that several instances share gets the instance id appended, V(NAME_i-0123456789abcdef0), so that each stays a
    separate host. The only running one keeps the plain name beside stopped ones.
  - A host keeps its instance id when it has no C(Name), or one that Ansible cannot use.
  - A warning lists every name that is shared or not used, with the instance ids.
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

from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.names import Ec2Instance, name_hosts


class InventoryModule(BaseInventoryPlugin):
    """See DOCUMENTATION."""

    NAME = "inference.fleet.host_names"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith((".yml", ".yaml"))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        instances = [
            Ec2Instance(name, str(host.vars["fleet_name_tag"]), str(host.vars["fleet_state"]))
            for name, host in inventory.hosts.items()
            if "fleet_name_tag" in host.vars
        ]
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
