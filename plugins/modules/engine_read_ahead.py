#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read into memory what the start of a release reads from the disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_read_ahead
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Read into memory what an instance's next start reads from the disk
description:
  - Reads the weights and the bytecode of a release into the kernel's page cache, and its libraries where its runtime is
    not the one that the instance runs. Run before an instance is drained, it moves this time from the part of a change
    in which the instance does not serve to the one in which it does.
  - What is in memory already is not read again, so a second run reads nothing.
  - It takes no memory from programs. It reads what there is room for, within O(seconds), and leaves the rest to the
    start.
  - A file that cannot be read is left out. The start will name it.
attributes:
  check_mode:
    support: full
    description: Looks, and reads nothing.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  release:
    description: The release that the instance is to start, as M(inference.fleet.engine_release) names it.
    type: str
    required: true
  index:
    description: The index of the instance.
    type: int
    required: true
  root:
    description: The directory of runtimes, releases and instances.
    type: path
    default: /opt/inference
  seconds:
    description: Seconds that it may take.
    type: float
    default: 60
  reserve_mib:
    description: MiB of the available memory that nothing is read into, for what the engines take meanwhile.
    type: int
    default: 4096
seealso:
  - module: inference.fleet.engine_change
"""

EXAMPLES = r"""
- name: Read ahead what the start will read
  inference.fleet.engine_read_ahead:
    release: "{{ staged.instances[0].release }}"
    index: 0
"""

RETURN = r"""
present_mib:
  description: MiB that were in memory before.
  returned: success
  type: int
read_mib:
  description: MiB that were read.
  returned: success
  type: int
left_mib:
  description: MiB that are not in memory, for lack of room or time, or in check mode.
  returned: success
  type: int
seconds:
  description: How long reading took.
  returned: success
  type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.page_cache import available_memory
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT
from ansible_collections.inference.fleet.plugins.module_utils.instances.reading import files_of, read_ahead
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Releases

MEMINFO = "/proc/meminfo"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "str", "required": True},
            "index": {"type": "int", "required": True},
            "root": {"type": "path", "default": ENGINE_ROOT},
            "seconds": {"type": "float", "default": 60.0},
            "reserve_mib": {"type": "int", "default": 4096},
        },
        supports_check_mode=True,
    )
    params = module.params
    files = files_of(Releases(params["root"]), params["index"], params["release"])
    with open(MEMINFO, encoding="ascii") as lines:
        available = available_memory(lines)
    done = read_ahead(files, available, params["reserve_mib"] << 20, params["seconds"], module.check_mode)
    module.exit_json(
        changed=False,
        present_mib=done.present >> 20,
        read_mib=done.read >> 20,
        left_mib=done.left >> 20,
        seconds=round(done.seconds, 1),
    )


if __name__ == "__main__":
    main()
