# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until an engine instance serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_ready
version_added: 0.1.0
author:
  - inference.fleet contributors
short_description: Wait until engine instances serve
description:
  - Waits until the C(/health) of each instance is 200 while its unit stays up.
  - When the engine ends instead, fails at once with the reason that its journal holds (memory, context length, a bad
    argument, the driver, …) and what to do about it.
  - Readiness is no proof that the instance answers well; M(inference.fleet.chat_smoke) is.
attributes:
  check_mode:
    support: full
    description: Does not wait in check mode, since nothing was started.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  instances:
    description:
      - The instances to wait for, as P(inference.fleet.instances#filter) gives them.
      - C(unit) and C(engine_port) of each are read.
    type: list
    elements: dict
    required: true
  timeout:
    description: Seconds to wait for each.
    type: int
    default: 1200
"""

EXAMPLES = r"""
- name: Wait for the instance
  inference.fleet.engine_ready:
    instances:
      - unit: vllm@0.service
        engine_port: 8100
"""

RETURN = r"""
seconds:
  description: How long each instance took, by unit.
  returned: success
  type: dict
reason:
  description: A short name for the reason, such as V(max_model_len) or V(out_of_memory).
  returned: failure
  type: str
journal:
  description: The last lines of the unit's journal.
  returned: failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils._ready import wait_until_ready


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "required": True},
            "timeout": {"type": "int", "default": 1200},
        },
        supports_check_mode=True,
    )
    seconds = {}
    if not module.check_mode:
        for instance in module.params["instances"]:
            try:
                took = wait_until_ready(instance["unit"], instance["engine_port"], module.params["timeout"])
            except FleetError as error:
                module.fail_json(msg=error.message, **error.details)
            seconds[instance["unit"]] = round(took, 1)
    module.exit_json(changed=False, seconds=seconds)


if __name__ == "__main__":
    main()
