# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a host before any change."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_preflight
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Check that a host can be configured as the inventory says
description:
  - Checks system, ports and disk of a host in one execution and reports every problem at once.
  - Changes nothing.
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  ports:
    description: The ports that the host's services will listen on.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: The port.
        type: int
        required: true
      purpose:
        description: What it is for, for the message.
        type: str
        required: true
      units:
        description: Patterns of the systemd units that may use it.
        type: list
        elements: str
        required: true
      variable:
        description: The variable that sets another port, for the message.
        type: str
        required: true
  disks:
    description: Directories, which need not exist, and the free GiB that they need.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The directory.
        type: path
        required: true
      free_gib:
        description: GiB that must be free.
        type: float
        required: true
      unless:
        description: A pattern of paths; where one exists the space is in use already and not required again.
        type: str
        default: ""
      variable:
        description: The variable that selects another disk, for the message.
        type: str
        required: true
  packages:
    description: Packages of the distribution, and the version that each must have, installed or to be had.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The package.
        type: str
        required: true
      at_least:
        description: The first version that does, in numbers and dots.
        type: str
        required: true
      why:
        description: What needs it, and what to do otherwise, for the message.
        type: str
        required: true
  systems:
    description: Supported versions by distribution, by the names of C(/etc/os-release).
    type: dict
    default: {}
extends_documentation_fragment: inference.fleet.programs
"""

EXAMPLES = r"""
- name: Check the edge's port
  inference.fleet.host_preflight:
    systems: {debian: ["12"], ubuntu: ["22.04", "24.04"]}
    ports:
      - port: 8000
        purpose: the edge
        units: [haproxy.service]
        variable: edge_port
"""

RETURN = r"""
problems:
  description: The problems, one sentence each. The module fails when there is any.
  returned: always
  type: list
  elements: str
system:
  description: Distribution and version.
  returned: always
  type: str
  sample: ubuntu 24.04
"""

import glob
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text
from ansible_collections.inference.fleet.plugins.module_utils.engines.programs import (
    PROGRAMS_ARGUMENT,
    missing_programs,
)
from ansible_collections.inference.fleet.plugins.module_utils.instances.preflight import (
    free_bytes,
    package_problems,
    port_problems,
    read_listeners,
    read_os_release,
    read_package_version,
    system_problems,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "port": {"type": "int", "required": True},
                    "purpose": {"type": "str", "required": True},
                    "units": {"type": "list", "elements": "str", "required": True},
                    "variable": {"type": "str", "required": True},
                },
            },
            "disks": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "free_gib": {"type": "float", "required": True},
                    "unless": {"type": "str", "default": ""},
                    "variable": {"type": "str", "required": True},
                },
            },
            "packages": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "at_least": {"type": "str", "required": True},
                    "why": {"type": "str", "required": True},
                },
            },
            "programs": PROGRAMS_ARGUMENT,
            "systems": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    os_release = read_os_release()
    init = (read_text("/proc/1/comm") or "").strip()
    problems = system_problems(init, os.uname().machine, os_release, params["systems"])
    problems += port_problems(params["ports"], read_listeners())
    problems += missing_programs(params["programs"])
    versions = {item["name"]: read_package_version(item["name"]) for item in params["packages"]}
    problems += package_problems(params["packages"], versions)
    for disk in params["disks"]:
        free = free_bytes(disk["path"]) / 1024**3
        if free < disk["free_gib"] and not (disk["unless"] and glob.glob(disk["unless"])):
            problems.append(
                f"{disk['path']} has {free:.1f} GiB free and needs {disk['free_gib']:.1f} GiB. "
                f"Free space there, or set {disk['variable']} to a directory on a larger disk."
            )
    system = f"{os_release.get('ID', '')} {os_release.get('VERSION_ID', '')}"
    if problems:
        module.fail_json(msg=" ".join(problems), problems=problems, system=system)
    module.exit_json(changed=False, problems=[], system=system)


if __name__ == "__main__":
    main()
