#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove which keys a host accepts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: key_proof
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Prove that a host accepts live keys and refuses dead ones
description:
  - Sends each live key to every edge of the host for a real chat completion, and each dead key to every edge and every
    engine, on every route; each of these must be refused with 401.
  - A key counts as accepted where the edge knows it but another rule refuses the request, such as the client's own
    limits or models, or a drain of the host.
  - Retries a busy service (429, 502, 503, 504, no connection) for O(patience) seconds.
  - Fails when an answer is wrong, and reports every such answer.
attributes:
  check_mode:
    support: full
    description: The requests are sent in check mode, too.
  diff_mode:
    support: none
    description: Nothing is ever changed.
options:
  live:
    description: The keys that must be accepted.
    type: list
    elements: dict
    default: []
    suboptions: &keys
      name:
        description: The client's name.
        type: str
        required: true
      key:
        description: The key.
        type: str
        required: true
  dead:
    description: The keys that must be refused.
    type: list
    elements: dict
    default: []
    suboptions: *keys
  edges:
    description: Base URLs of the host's edge, one for each of its ports. Certificates are not verified.
    type: list
    elements: str
    required: true
  engines:
    description: Base URLs of the host's instances, which must refuse the dead keys, too.
    type: list
    elements: str
    default: []
  model:
    description: The served model's name.
    type: str
    required: true
  completions:
    description:
      - How many of the live keys are tested with a completion, which takes GPU time; further ones are tested with the
        list of models.
    type: int
    default: 20
  timeout:
    description: Seconds for one request, all of it.
    type: float
    default: 60
  patience:
    description: Seconds for which a busy service is retried.
    type: float
    default: 30
  at_once:
    description: Requests in flight.
    type: int
    default: 4
"""

EXAMPLES = r"""
- name: Prove that the new key works and the old one is dead
  inference.fleet.key_proof:
    live:
      - {name: team-a, key: "{{ new_key }}"}
    dead:
      - {name: team-a, key: "{{ old_key }}"}
    edges: ["http://127.0.0.1:8000"]
    engines: ["http://127.0.0.1:8100"]
    model: Qwen/Qwen3-VL-8B-Instruct
"""

RETURN = r"""
answered:
  description: Clients and fingerprints of the live keys that every edge accepts.
  returned: always
  type: list
  elements: str
  sample: ["team-a sk-…1f0c9a2e"]
refused:
  description: How many requests with dead keys were refused.
  returned: always
  type: int
failures:
  description: A sentence for each wrong answer.
  returned: always
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys.proof import ClientKey, Prover
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, Reply, parse_url

_KEYS: dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "name": {"type": "str", "required": True},
        "key": {"type": "str", "required": True, "no_log": True},
    },
}
ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "live": _KEYS,
    "dead": _KEYS,
    "edges": {"type": "list", "elements": "str", "required": True},
    "engines": {"type": "list", "elements": "str", "default": []},
    "model": {"type": "str", "required": True},
    "completions": {"type": "int", "default": 20},
    "timeout": {"type": "float", "default": 60},
    "patience": {"type": "float", "default": 30},
    "at_once": {"type": "int", "default": 4},
}


def run(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Send the requests of the parameters; return the module's result."""
    live, dead = ([ClientKey(item["name"], item["key"]) for item in params[kind]] for kind in ("live", "dead"))
    if not params["edges"]:
        raise FleetError("edges is empty, so nothing could be proven. Give the base URL of the host's edge.")
    for url in (*params["edges"], *params["engines"]):
        parse_url(url)

    def ask(url: str, key: str, method: str, path: str, document: t.Any) -> Reply:
        client = HttpClient(url, key, params["timeout"], validate_certs=False)
        return client.get(path) if method == "GET" else client.post(path, document)

    prover = Prover(
        ask, params["edges"], params["engines"], params["model"], params["patience"], max(1, params["at_once"])
    )
    proof = prover.prove(live, dead, params["completions"])
    return {"answered": proof.answered, "refused": proof.refused, "failures": proof.failures}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = run(module.params)
    except FleetError as error:
        module.fail_json(msg=error.message, **error.details)
    if result["failures"]:
        module.fail_json(msg=" ".join(result["failures"]), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
