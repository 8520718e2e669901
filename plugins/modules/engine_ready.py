# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until an engine instance serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_ready
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Wait until engine instances serve
description:
  - Waits until the C(/health) of each instance is 200 while its unit stays up.
  - When the engine exits instead, fails at once with the reason from its journal (memory, context length, an invalid
    argument, the driver, …) and what to do about it.
  - Readiness does not prove that the instance answers well; M(inference.fleet.chat_smoke) does.
  - An action plugin of the same name runs it. With O(journal) it waits in slices, and records after each what the
    engines are doing.
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
      - The instances to wait for, as M(inference.fleet.fleet_facts) gives them.
      - It reads C(unit) and C(engine_port) of each. Where C(serves) is false its requests come to another host, and it
        only has to run.
    type: list
    elements: dict
    required: true
  timeout:
    description:
      - Seconds that each may take from start to serving. Waiting for the weights does not count.
      - All are waited for in parallel.
    type: int
    default: 1200
  journal:
    description:
      - A rollout's journal on the controller, which gets an event C(progress) of each instance every few seconds.
      - Empty for none.
    type: str
    default: ""
  slice:
    description:
      - Return after about this many seconds with RV(ready=false) and RV(progress), instead of waiting to the end.
      - V(0) waits until the instances serve, one has exited, or O(timeout) is over.
    type: float
    default: 0
  since:
    description: With O(slice), RV(since) of the first slice.
    type: float
  restarts:
    description: With O(slice), RV(restarts) of the first slice, so that a restart between two slices is detected.
    type: dict
"""

EXAMPLES = r"""
- name: Wait for the instance
  inference.fleet.engine_ready:
    instances:
      - unit: vllm@0.service
        engine_port: 8100

- name: Wait for the instances of a host in a rollout
  inference.fleet.engine_ready:
    instances: "{{ engine_instances }}"
    journal: "{{ rollout_journal }}"
"""

RETURN = r"""
ready:
  description: Whether all instances serve; false only at the end of a slice.
  returned: success
  type: bool
seconds:
  description: How long each serving instance took, by unit.
  returned: success
  type: dict
progress:
  description:
    - What each instance is doing.
    - C(phase) is V(checking) or V(downloading) while the start waits for the weights, then V(preparing), V(importing),
      V(loading), V(compiling), V(profiling), V(capturing), V(warming_up) or V(serving).
    - C(percent) is how much of the phase is done, null where the engine does not report it.
    - C(seconds) is the time of waiting so far.
  returned: with O(slice)
  type: list
  elements: dict
  sample:
    - unit: vllm@0.service
      phase: loading
      text: loading the weights, 5 of 9 files
      percent: 56
      seconds: 14.2
since:
  description: Unix time on the host at which the first slice began.
  returned: with O(slice)
  type: float
restarts:
  description: How often systemd had restarted each unit at the first look, by unit.
  returned: with O(slice)
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

import math
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.instances.ready import port_to_check, wait_a_slice

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "instances": {"type": "list", "elements": "dict", "required": True},
    "timeout": {"type": "int", "default": 1200},
    # Read by the action plugin.
    "journal": {"type": "str", "default": ""},
    "slice": {"type": "float", "default": 0},
    "since": {"type": "float"},
    "restarts": {"type": "dict"},
}


def run(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Wait as the parameters say; return the module's result."""
    if check:
        return {"changed": False, "ready": True, "seconds": {}}
    ports = {instance["unit"]: port_to_check(instance) for instance in params["instances"]}
    restarts = {unit: int(count) for unit, count in (params["restarts"] or {}).items()}
    seen = wait_a_slice(ports, params["timeout"], params["slice"] or math.inf, params["since"], restarts)
    result = {"changed": False, "ready": len(seen.seconds) == len(ports), "seconds": _rounded(seen.seconds)}
    if not params["slice"]:
        return result
    return {**result, "progress": seen.progress, "since": seen.since, "restarts": seen.restarts}


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {unit: round(took, 1) for unit, took in seconds.items()}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
