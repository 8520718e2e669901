#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record the memory that a host's engines reported at start."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_memory
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: The memory that the engines of a host reported at their last start
description:
  - Reads the size of the KV cache and of the loaded model from the journal of each instance since its process started,
    and keeps it in a file for each instance, because a journal is not kept for ever.
  - M(inference.fleet.vram_fit) uses such a file instead of an estimate.
  - An instance that does not run, or whose journal no longer has the figures, has the record of its last start.
attributes:
  check_mode:
    support: full
    description: Reads, and writes no file.
  diff_mode:
    support: none
    description: Writing a record is no change.
options:
  instances:
    description:
      - The instances, as M(inference.fleet.fleet_facts) gives them. The module reads C(index), C(unit) and C(name),
        which names the file.
    type: list
    elements: dict
    required: true
  root:
    description: The directory of runtimes, releases and instances.
    type: path
    default: /opt/inference
  record_dir:
    description: The directory of the records.
    type: path
    default: /var/lib/inference/memory
seealso:
  - module: inference.fleet.vram_fit
"""

EXAMPLES = r"""
- name: Record the engines' memory figures
  inference.fleet.engine_memory:
    instances: "{{ engine_instances }}"
"""

RETURN = r"""
instances:
  description: One entry for each instance.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The instance's name.
      type: str
    path:
      description: The file of its record.
      type: str
    record:
      description:
        - The record of its last start, null where there is none. C(memory) is what the engine reported, C(release),
          C(version), C(model_path), C(gpu), C(tensor_parallel_size), C(fraction), C(kv_cache_dtype) and C(quantization)
          are of that start.
      type: dict
"""

import json
import os
import subprocess
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT
from ansible_collections.inference.fleet.plugins.module_utils.core.processes import started_at
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import journal, unit_state
from ansible_collections.inference.fleet.plugins.module_utils.engines.memory import engine_memory
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import kind_of_unit
from ansible_collections.inference.fleet.plugins.module_utils.instances.memory import DIRECTORY, record_of
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Releases

RUN_DIRECTORY = "/run/inference"

# As much of a journal as an engine writes in a day; its memory figures are at the beginning.
_LINES = 20000


def gpu_name() -> str:
    """The name of the host's first GPU; empty where there is none that answers."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()


def look(params: dict[str, t.Any], check: bool) -> list[dict[str, t.Any]]:
    """The record of each instance; writes its file again where the engine reported something.

    Args:
        params: the module's.
        check: write nothing.
    """
    releases = Releases(params["root"])
    results = []
    for instance in params["instances"]:
        path = os.path.join(params["record_dir"], f"{instance['name']}.json")
        kept = read_json(path)
        record = _present(instance, releases) or (kept if isinstance(kept, dict) else None)
        if record != kept and not check:
            make_directories(params["record_dir"])
            write_atomically(path, json.dumps(record, indent=1) + "\n")
        results.append({"name": instance["name"], "path": path, "record": record})
    return results


def _present(instance: dict[str, t.Any], releases: Releases) -> dict[str, t.Any] | None:
    state = unit_state(instance["unit"])
    began = started_at(state.pid) if state.is_running and state.pid else None
    release = (read_text(os.path.join(RUN_DIRECTORY, str(instance["index"]), "release")) or "").strip()
    manifest = releases.manifest(release)
    if began is None or not manifest:
        return None
    memory = engine_memory(journal(instance["unit"], since=began - 0.1, lines=_LINES), kind_of_unit(instance["unit"]))
    return record_of(memory, release, manifest, gpu_name(), times.moment(began))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "required": True},
            "root": {"type": "path", "default": ENGINE_ROOT},
            "record_dir": {"type": "path", "default": DIRECTORY},
        },
        supports_check_mode=True,
    )
    try:
        results = look(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(msg=error.message, **error.details)
    except OSError as error:
        module.fail_json(msg=f"The record under {module.params['record_dir']} cannot be written: {error.strerror}.")
    module.exit_json(changed=False, instances=results)


if __name__ == "__main__":
    main()
