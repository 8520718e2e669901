# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the clients' keys in the key store."""

from __future__ import annotations

DOCUMENTATION = r"""
module: api_key
version_added: 0.1.0
author:
  - inference.fleet contributors
short_description: Make, remove and look up clients' API keys in the key store
description:
  - Runs on the controller. The store holds the keys; the edges get only their hashes, by module
    M(inference.fleet.edge_keys).
  - A key is C(sk-) and 256 random bits. It is shown only where O(reveal) asks for it.
attributes:
  check_mode:
    support: full
    description: Changes nothing. The hash and fingerprint of a key that would be made are those of a key that never is.
  diff_mode:
    support: full
    description: Shows clients' names and keys' fingerprints.
options:
  state:
    description:
      - With V(present) each client has a key; one that has none gets one.
      - With V(absent) the clients and their keys are gone.
      - With V(info) nothing is changed; without O(clients) every client is returned.
    type: str
    choices: [present, absent, info]
    default: present
  clients:
    description: The clients.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Lower case letters, digits, dots, dashes and underscores.
        type: str
        required: true
  exclusive:
    description: With O(state=present), remove the clients that are not listed.
    type: bool
    default: false
  reveal:
    description: With O(state=info) and exactly one client, return its current key. Such a task needs C(no_log).
    type: bool
    default: false
  path:
    description: The store's file. Only its owner may read it; its directory is made the same way.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Give each client a key
  inference.fleet.api_key:
    clients:
      - name: team-a
      - name: gateway
    path: ~/.local/state/inference-fleet/keys.json
  delegate_to: localhost
  register: keys

- name: Look up one key
  inference.fleet.api_key:
    state: info
    clients:
      - name: team-a
    reveal: true
    path: ~/.local/state/inference-fleet/keys.json
  delegate_to: localhost
  no_log: true
  register: key
"""

RETURN = r"""
clients:
  description: The clients that were asked for, without their keys.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The client.
      type: str
      returned: always
    fingerprint:
      description: Of the current key.
      type: str
      returned: always
      sample: sk-…1f0c9a2e
    created:
      description: When the current key was made.
      type: str
      returned: always
      sample: "2026-11-22T12:00:00Z"
hashes:
  description: Name and hash of every live key of these clients, for module M(inference.fleet.edge_keys). Not secret.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The client.
      type: str
      returned: always
    sha256:
      description: The key's hash.
      type: str
      returned: always
key:
  description: The client's current key.
  returned: with O(reveal)
  type: str
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: ["add team-a sk-…1f0c9a2e"]
"""

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils import _keys
from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils._key_store import (
    Client,
    Clients,
    FileKeyStore,
    KeyStore,
    new_key,
)

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "choices": ["present", "absent", "info"], "default": "present"},
    "clients": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str", "required": True}},
    },
    "exclusive": {"type": "bool", "default": False},
    "reveal": {"type": "bool", "default": False, "no_log": False},
    "path": {"type": "path", "required": True},
}


def run(params: dict[str, t.Any], check: bool, want_diff: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    state, exclusive, reveal = params["state"], params["exclusive"], params["reveal"]
    names = _keys.check_client_names(item["name"] for item in params["clients"])
    if exclusive and (state != "present" or not names):
        raise FleetError(
            "exclusive removes every client that is not listed: give state present and at least one client."
        )
    if reveal and (state != "info" or len(names) != 1):
        raise FleetError("reveal returns one client's key: give state info and exactly one client.")
    store: KeyStore = FileKeyStore(params["path"])
    with contextlib.ExitStack() as stack:
        if state != "info" and not check:
            stack.enter_context(store.locked())
        before = store.load()
        changes = _changes(before, state, names, exclusive)
        if changes and not check:
            store.save(changes)
    after = {name: client for name, client in {**before, **changes}.items() if client}
    shown = sorted(after) if state == "info" and not names else [name for name in names if name in after]
    if state == "info":
        _demand(names, after, params["path"])
    result: dict[str, t.Any] = {
        "changed": bool(changes),
        "clients": [_summary(name, after[name]) for name in shown],
        "hashes": [{"name": name, "sha256": _keys.sha256(key.key)} for name in shown for key in after[name].live()],
        "actions": _actions(before, changes),
    }
    if reveal:
        result["key"] = after[names[0]].current.key
    if want_diff and changes:
        result["diff"] = {"before": _listed(before), "after": _listed(after)}
    return result


def _changes(before: Clients, state: str, names: list[str], exclusive: bool) -> dict[str, Client | None]:
    if state == "absent":
        return {name: None for name in names if name in before}
    if state == "info":
        return {}
    changes: dict[str, Client | None] = {name: Client(new_key()) for name in names if name not in before}
    if exclusive:
        changes.update({name: None for name in before if name not in names})
    return changes


def _demand(names: list[str], clients: Clients, path: str) -> None:
    missing = [name for name in names if name not in clients]
    if missing:
        known = ", ".join(sorted(clients)) or "none"
        raise FleetError(
            f"The key store {path} has no client {', '.join(missing)}. It has: {known}. "
            "Add the client to fleet_clients and run playbooks/keys.yml."
        )


def _summary(name: str, client: Client) -> dict[str, t.Any]:
    return {"name": name, "fingerprint": client.current.fingerprint, "created": client.current.created}


def _actions(before: Clients, changes: dict[str, Client | None]) -> list[str]:
    return [
        f"add {name} {client.current.fingerprint}" if client else f"remove {name} {before[name].current.fingerprint}"
        for name, client in sorted(changes.items())
    ]


def _listed(clients: Clients) -> str:
    return "".join(f"{name} {key.fingerprint}\n" for name in sorted(clients) for key in clients[name].live())


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = run(module.params, module.check_mode, module._diff)
    except FleetError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
