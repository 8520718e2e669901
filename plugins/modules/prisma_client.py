# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate the Prisma client that LiteLLM uses for its database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_client
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Generate the Prisma client that LiteLLM uses for its database
description:
  - Generates the Python code of the client from LiteLLM's schema, with the generator in the Python package C(prisma) of
    LiteLLM's runtime. Needs neither Node nor the network.
  - The directory is made atomically, and never changed afterwards; another schema gets another directory.
  - Does not include the query engine, a program of Prisma's. With O(engine) it is tested.
attributes:
  check_mode:
    support: full
    description: Reports whether the client would be made.
  diff_mode:
    support: none
    description: The code is generated.
options:
  runtime:
    description: The Python environment with LiteLLM and C(prisma).
    type: path
    required: true
  path:
    description: The client's directory.
    type: path
    required: true
  model:
    description: Prisma's model of LiteLLM's schema, the JSON of the lock's C(prisma.json).
    type: json
    required: true
  engine:
    description:
      - The query engine's file on this host, which must be the one that the client is generated for.
      - Without it, the engine is not tested.
    type: path
"""

EXAMPLES = r"""
- name: Make the client
  inference.fleet.prisma_client:
    runtime: /opt/inference/runtimes/litellm-1.108.7-0123456789ab
    path: /opt/inference/runtimes/litellm-1.108.7-0123456789ab/prisma
    model: "{{ lookup('ansible.builtin.file', 'locks/litellm-1.108.7.prisma.json') }}"
"""

RETURN = r"""
path:
  description: The client's directory.
  returned: success
  type: str
engine_version:
  description: The query engine that it needs, a commit of Prisma's.
  returned: success
  type: str
"""

import json
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.gateway import prisma

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "runtime": {"type": "path", "required": True},
    "path": {"type": "path", "required": True},
    "model": {"type": "json", "required": True},
    "engine": {"type": "path"},
}


def run(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    model = json.loads(params["model"])
    changed = not os.path.isdir(params["path"])
    if changed and not check:
        prisma.generate(params["runtime"], params["path"], model)
    if params["engine"]:
        problem = prisma.engine_problem(params["engine"], model["engine"])
        if problem:
            raise FleetError(
                f"The query engine of litellm_query_engine cannot be used: {problem}. Take the file query-engine of "
                f"Prisma's commit {model['engine']} for this host's system; see the README of role litellm."
            )
    return {"changed": changed, "path": params["path"], "engine_version": model["engine"]}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
