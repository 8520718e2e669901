# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configure the distribution's node exporter on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_exporter
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Configure the distribution's node exporter
description:
  - Configures the distribution's node exporter to listen on loopback, and to read the text files of O(textfiles), in
    which modules and services of this collection write the host's state.
  - The module does not install the package; RV(package) says whether to. The settings are there before it, so that it
    never listens anywhere else.
  - A node exporter of somebody else is left as it is and named.
attributes:
  check_mode:
    support: full
    description: Reports what would be done.
  diff_mode:
    support: none
    description: RV(actions) has what was done.
options:
  state:
    description:
      - Whether it runs. V(auto) makes it run where the edge knows the client that reads metrics (O(metrics_client)),
        and where it is configured already. A key that is away for a while thus removes nothing.
    type: str
    choices: [auto, present, absent]
    default: present
  host:
    description: The host's name, for messages.
    type: str
    default: ""
  port:
    description: The loopback port. V(0) configures none.
    type: int
    default: 9100
  textfiles:
    description: The directory of the text files. It is created.
    type: path
    default: /var/lib/inference/metrics
  metrics_client:
    description: The client that may read metrics through the edge.
    type: str
    default: ""
  keys_map:
    description: The edge's map of keys.
    type: path
    default: /etc/haproxy/maps/keys.map
  unit_directory:
    description: The directory of systemd's units.
    type: path
    default: /etc/systemd/system
"""

EXAMPLES = r"""
- name: Configure node exporter where the client monitoring can read it
  inference.fleet.node_exporter:
    state: auto
    metrics_client: monitoring
  register: exporter

- name: Install it where it is wanted and missing
  ansible.builtin.apt:
    name: "{{ exporter.package }}"
  when: exporter.package | length > 0
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
exporter:
  description: The node exporter of the host; V(ours), V(absent), V(foreign) or V(off).
  returned: success
  type: str
package:
  description: The package to install; empty for none.
  returned: success
  type: str
  sample: prometheus-node-exporter
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.clients import edge_values
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.facts import exporter
from ansible_collections.inference.fleet.plugins.module_utils.facts.exporter import NodeExporter
from ansible_collections.inference.fleet.plugins.module_utils.facts.look import METRICS_DIRECTORY

AUTO = "auto"
PRESENT = "present"
ABSENT = "absent"
OFF = "off"

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "choices": [AUTO, PRESENT, ABSENT], "default": PRESENT},
    "host": {"type": "str", "default": ""},
    "port": {"type": "int", "default": 9100},
    "textfiles": {"type": "path", "default": METRICS_DIRECTORY},
    "metrics_client": {"type": "str", "default": ""},
    "keys_map": {"type": "path", "default": edge_state.KEYS_MAP_PATH},
    "unit_directory": {"type": "path", "default": "/etc/systemd/system"},
}


def run(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    node = NodeExporter(params["unit_directory"], params["port"], check)
    whose, warnings, made = OFF, [], []
    if not _is_wanted(params, node.is_ours):
        node.remove()
    else:
        if not os.path.isdir(params["textfiles"]):
            made.append(f"make {params['textfiles']}")
            if not check:
                make_directories(params["textfiles"])
        whose, found = node.configure(exporter.render_exporter(params["port"], params["textfiles"]))
        if whose == exporter.FOREIGN:
            warnings.append(
                f"{params['host'] or 'This host'} has a node exporter of somebody else ({found}). It stays as it is. "
                f"Let it read the host's state with --collector.textfile.directory={params['textfiles']}, or set "
                "edge_node_exporter: false (on a monitoring host monitoring_exporter: false)."
            )
    return {
        "changed": bool(made or node.actions),
        "actions": made + node.actions,
        "exporter": whose,
        "package": exporter.PACKAGE if whose == exporter.ABSENT else "",
        "warnings": warnings,
    }


def _is_wanted(params: dict[str, t.Any], is_ours: bool) -> bool:
    if params["state"] == ABSENT or not params["port"]:
        return False
    if params["state"] == PRESENT or is_ours:
        return True
    entries = edge_state.parse_map(read_text(params["keys_map"]) or "")
    return params["metrics_client"] in {edge_values.parse(value)[0] for _digest, value in entries} - {""}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
