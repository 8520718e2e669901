# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the timer that writes a host's state as metrics."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_facts
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Write a host's state as metrics
description:
  - Installs C(inference-facts.timer). Every 30 seconds it writes what the host knows of itself to C(facts.prom) in the
    directory C(metrics) below O(state_dir), for the textfile collector of node exporter. The file is never half
    written.
  - In it are releases, gates, drains, a rollout's claim, expiry of clients and certificates, free disk space, GPUs with
    their XIDs, and what the edge's access log says of refused requests and of times by client. Nothing of a key is in
    it.
  - A reading that fails leaves out its own metrics. The metric C(fleet_look_problems) counts it and the journal of
    C(inference-facts.service) has the reason.
attributes:
  check_mode:
    support: full
    description: Reports what would be installed.
  diff_mode:
    support: full
    description: Shows the service before and after.
options:
  state:
    description: Whether the host's state is written.
    type: str
    choices: [present, absent]
    default: present
  host:
    description: The host's name, as label of C(fleet_info); so are O(tier), O(engine), O(ring) and O(model).
    type: str
    default: ""
  tier:
    description: The host's tier.
    type: str
    default: ""
  engine:
    description: What its instances run.
    type: str
    default: ""
  ring:
    description: Its ring in rollouts.
    type: str
    default: ""
  model:
    description: The model that it is to serve.
    type: str
    default: ""
  certificates:
    description: Files with certificates whose expiry is written.
    type: list
    elements: path
    default: []
  gpus:
    description: How many GPUs the host should have. V(0) looks at none.
    type: int
    default: 0
  nvidia_smi:
    description: The program C(nvidia-smi).
    type: str
    default: /usr/bin/nvidia-smi
  ignored_xids:
    description: XIDs that do not count for the verdict on a GPU.
    type: list
    elements: int
    default: []
  state_dir:
    description: The directory of the modules' records about the host.
    type: path
    default: /var/lib/inference
  engine_root:
    description: The directory of releases and instances.
    type: path
    default: /opt/inference
  unit_directory:
    description: The directory of systemd's units.
    type: path
    default: /etc/systemd/system
  program_path:
    description: Where the program is installed.
    type: path
    default: /etc/haproxy/facts.pyz
"""

EXAMPLES = r"""
- name: Write the host's state as metrics
  inference.fleet.edge_facts:
    host: "{{ inventory_hostname }}"
    tier: inference
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT, STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.facts import look, unit
from ansible_collections.inference.fleet.plugins.module_utils.services.archive import build_program
from ansible_collections.inference.fleet.plugins.module_utils.services.install import ServiceFiles

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **{name: {"type": "str", "default": ""} for name in look.LABELS},
    "certificates": {"type": "list", "elements": "path", "default": []},
    "gpus": {"type": "int", "default": 0},
    "nvidia_smi": {"type": "str", "default": "/usr/bin/nvidia-smi"},
    "ignored_xids": {"type": "list", "elements": "int", "default": []},
    "state_dir": {"type": "path", "default": STATE_DIRECTORY},
    "engine_root": {"type": "path", "default": ENGINE_ROOT},
    "unit_directory": {"type": "path", "default": "/etc/systemd/system"},
    "program_path": {"type": "path", "default": unit.PROGRAM_PATH},
}


def run(params: dict[str, t.Any], check: bool, want_diff: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    command = unit.LookCommand(
        params["program_path"],
        {name: params[name] for name in look.LABELS},
        params["certificates"],
        params["gpus"],
        params["nvidia_smi"],
        params["ignored_xids"],
        params["state_dir"],
        params["engine_root"],
    )
    files = ServiceFiles(unit.TIMER, params["unit_directory"], params["program_path"], check, timed=unit.SERVICE)
    before, after = files.unit_text(), ""
    written = os.path.join(command.output, look.FILE)
    if params["state"] == "present":
        after = unit.render_service(command)
        if not check:
            # The service may write in it, and has to find it.
            make_directories(command.output)
        files.install(build_program(look), unit.render_timer(), after)
    else:
        files.remove()
        # Metrics that are not written any more must not look as if they were.
        if os.path.lexists(written):
            files.actions.append(f"remove {written}")
            if not check:
                os.unlink(written)
    result: dict[str, t.Any] = {"changed": bool(files.actions), "actions": files.actions}
    if want_diff and before != after:
        header = f"{params['unit_directory']}/{unit.SERVICE}"
        result["diff"] = {"before": before, "after": after, "before_header": header, "after_header": header}
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode, module._diff))


if __name__ == "__main__":
    main()
