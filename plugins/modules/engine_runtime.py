# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install an engine's runtime."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_runtime
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Install the virtual environment that an engine version runs from
description:
  - Installs a runtime with uv from a lock with hashes, in a directory named after its content.
  - Only a complete runtime is used. The next run continues an interrupted installation.
  - Runtimes are shared by releases; a changed argument of an engine installs nothing.
  - A link beside O(root), one for each engine, keeps the runtime from being pruned until a release with it is staged.
attributes:
  check_mode:
    support: full
    description: Reports what would be installed.
  diff_mode:
    support: none
    description: A runtime is replaced as a whole.
options:
  name:
    description: Its name, for people and as the first part of the directory's name.
    type: str
    required: true
  root:
    description: The directory of all runtimes.
    type: path
    default: /opt/inference/runtimes
  lock:
    description: The requirements, one exact version with hashes per package.
    type: str
    required: true
  python:
    description: The Python version that O(lock) is for. uv installs one where the host has none.
    type: str
    required: true
  uv_requirement:
    description: The requirement of uv itself, with hashes. It is installed beside O(root), once.
    type: str
    required: true
  environment:
    description: Environment of uv, for index, mirror, proxy and cache.
    type: dict
    default: {}
  find_links:
    description: Directories on the host with further wheels.
    type: list
    elements: path
    default: []
  min_free_gib:
    description: Refuse when the disk has less than this many GiB free.
    type: float
    default: 12
  compile_bytecode:
    description: Compile bytecode at installation, so that no start of an engine has to.
    type: bool
    default: true
extends_documentation_fragment: inference.fleet.programs
"""

EXAMPLES = r"""
- name: Install vLLM
  inference.fleet.engine_runtime:
    name: vllm-0.32.0-cuda
    lock: "{{ lookup('ansible.builtin.file', 'locks/vllm-0.32.0-cuda.txt') }}"
    python: "3.12"
    uv_requirement: "{{ lookup('ansible.builtin.file', 'uv.txt') }}"
"""

RETURN = r"""
id:
  description: The directory's name.
  returned: success
  type: str
  sample: vllm-0.32.0-cuda-1f0c9a2e
path:
  description: The directory.
  returned: success
  type: str
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT
from ansible_collections.inference.fleet.plugins.module_utils.engines.programs import (
    PROGRAMS_ARGUMENT,
    missing_programs,
)
from ansible_collections.inference.fleet.plugins.module_utils.instances.staging import Staging, runtime_link
from ansible_collections.inference.fleet.plugins.module_utils.runtimes.runtime import RuntimeSpec, install, is_complete


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "root": {"type": "path", "default": f"{ENGINE_ROOT}/runtimes"},
            "lock": {"type": "str", "required": True},
            "python": {"type": "str", "required": True},
            "uv_requirement": {"type": "str", "required": True},
            "environment": {"type": "dict", "default": {}},
            "find_links": {"type": "list", "elements": "path", "default": []},
            "min_free_gib": {"type": "float", "default": 12.0},
            "compile_bytecode": {"type": "bool", "default": True},
            "programs": PROGRAMS_ARGUMENT,
        },
        supports_check_mode=True,
    )
    params = module.params
    spec = RuntimeSpec(
        name=params["name"],
        root=params["root"],
        lock=params["lock"],
        python=params["python"],
        uv_requirement=params["uv_requirement"],
        environment={key: str(value) for key, value in params["environment"].items()},
        find_links=params["find_links"],
        min_free_bytes=int(params["min_free_gib"] * 1024**3),
        compile_bytecode=params["compile_bytecode"],
    )
    try:
        if module.check_mode:
            actions = [] if is_complete(spec.path) else [f"install {spec.path} with Python {spec.python}"]
        else:
            Staging(os.path.dirname(spec.root)).keep(runtime_link(spec.name.split("-")[0]), "runtimes", spec.id)
            actions = install(spec)
            missing = missing_programs(params["programs"], os.path.join(spec.path, "bin", "python"))
            if missing:
                raise FleetError(" ".join(missing) + " Nothing was stopped.")
    except FleetError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=bool(actions), id=spec.id, path=spec.path, actions=actions)


if __name__ == "__main__":
    main()
