# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set the keys that an edge accepts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_keys
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Make an edge accept exactly these client keys
description:
  - Makes the map in which the edge looks up the hash of a client's key have exactly the wanted entries, in its file and
    in every running HAProxy process. No process is reloaded, no connection is dropped, and a lookup sees either the
    old or the new map.
  - The key that the edge shows to the engines is set in the same way, from the file that M(inference.fleet.engine_key)
    keeps.
  - On a gateway, LiteLLM gets the same hashes with the limits that it enforces, and the edge gets the key that it sends
    to the inference hosts.
  - Manual changes in the file or at run time are reverted.
  - Where HAProxy does not run, only the file is written, which it reads at start.
  - The host records from which key store, and which generation of it, it last took its keys. It refuses keys of an
    older generation, of another store, and different keys of the same generation. Keys without such a record are
    replaced when the store knows all of them.
  - Ends the hold of an edge whose host was away, because its keys are those of the store afterwards. Without O(keys)
    the hold stays.
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: full
    description: Shows clients' names and keys' fingerprints.
options:
  keys:
    description:
      - The hashes of all live keys, as module M(inference.fleet.api_key) returns them.
      - Without it the keys stay as in the file; the file is created if missing.
    type: list
    elements: dict
  origin:
    description:
      - Where O(keys) or O(upstream_key) come from; required with them. It is C(store) of the same result of module
        M(inference.fleet.api_key).
    type: dict
  origin_path:
    description: The file in which the host keeps O(origin), readable by root only.
    type: path
    default: /etc/haproxy/maps/keys.origin.json
  adopt:
    description:
      - Give up the store with this identity, from which the host has its keys; V(true) for any.
    type: str
    default: ""
  path:
    description: The map's file.
    type: path
    default: /etc/haproxy/maps/keys.map
  config_path:
    description: HAProxy's configuration, which determines the map's version where HAProxy does not run.
    type: path
    default: /etc/haproxy/haproxy.cfg
  engine_key_path:
    description: The file with the key that the edge shows to the engines.
    type: path
    default: /etc/inference/engine_key.env
  engine_key_map:
    description: The map's file for that key, readable by root only.
    type: path
    default: /etc/haproxy/maps/engine_key.map
  upstream_key:
    description: On a gateway, the key that it sends to the inference hosts. Without it the key stays.
    type: str
  upstream_key_map:
    description: The map's file for that key, readable by root only.
    type: path
    default: /etc/haproxy/maps/upstream_key.map
  gateway_clients:
    description: On a gateway, the file in which LiteLLM looks its clients up. It is not created where it is missing.
    type: path
    default: /etc/inference/gateway_clients.json
  hold_map:
    description: The map that lets HAProxy refuse every request until the keys of a host that was away are confirmed.
    type: path
    default: /etc/haproxy/maps/hold.map
  presence_path:
    description: The file in which the host records when it ran, and why its edge is held.
    type: path
    default: /var/lib/inference/presence.json
extends_documentation_fragment:
  - inference.fleet.client_limits.hashes
  - inference.fleet.haproxy_sockets
"""

EXAMPLES = r"""
- name: Accept the keys of these clients and no others
  inference.fleet.edge_keys:
    keys: "{{ keys.hashes }}"
    origin: "{{ keys.store }}"

- name: Make sure that the map is there
  inference.fleet.edge_keys:
"""

RETURN = r"""
clients:
  description: The names of the clients that have a key now.
  returned: success
  type: list
  elements: str
count:
  description: The number of live keys.
  returned: success
  type: int
live:
  description: Whether a running HAProxy has the map; if not, only the file was written.
  returned: success
  type: bool
outdated:
  description: Whether the map has an earlier version, because the running HAProxy cannot read a later one yet.
  returned: success
  type: bool
taken:
  description: The key store and generation that the host has taken; none where there is none.
  returned: success
  type: dict
  contains:
    store:
      description: The store's identity.
      type: str
      returned: always
    name:
      description: Where the store is.
      type: str
      returned: always
    parts:
      description: By C(keys) and C(upstream), C(generation) and C(digest) of what was taken last.
      type: dict
      returned: always
held:
  description: Since when and why the edge is held, C(since) and C(why); none where it is not, or no longer.
  returned: success
  type: dict
unclaimed:
  description: The hashes of keys whose origin the host did not record.
  returned: success
  type: list
  elements: str
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: ["add team-a sk-…1f0c9a2e"]
"""

import contextlib
import json
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.clients import edge_values
from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import (
    locked,
    read_json,
    read_text,
    write_atomically,
)
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy, state
from ansible_collections.inference.fleet.plugins.module_utils.edge import hold as edge_hold
from ansible_collections.inference.fleet.plugins.module_utils.edge.keys_map import KeysMap
from ansible_collections.inference.fleet.plugins.module_utils.edge.maps import EdgeMap
from ansible_collections.inference.fleet.plugins.module_utils.engines import key as engine_key
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import GATEWAY_ENGINE
from ansible_collections.inference.fleet.plugins.module_utils.gateway import clients
from ansible_collections.inference.fleet.plugins.module_utils.keys import origin as _origin

ENGINE_TITLE = "What the edge shows to the engines. Written by module edge_keys."
UPSTREAM_TITLE = "What this gateway shows to the inference hosts. Written by module edge_keys."
#: Their names in HAProxy's configuration.
ENGINE = "engine"
UPSTREAM = "upstream"

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "keys": {
        "type": "list",
        "elements": "dict",
        # Hashes of 256 random bits do not reveal the key.
        "no_log": False,
        "options": {
            "name": {"type": "str", "required": True},
            "sha256": {"type": "str", "required": True},
            "slot": {"type": "str"},
            **client_limits.spec(),
        },
    },
    "origin": {"type": "dict"},
    "origin_path": {"type": "path", "default": state.KEYS_ORIGIN_PATH},
    "adopt": {"type": "str", "default": ""},
    "path": {"type": "path", "default": state.KEYS_MAP_PATH},
    "config_path": {"type": "path", "default": state.CONFIG_PATH},
    "engine_key_path": {"type": "path", "default": state.ENGINE_KEY_PATH, "no_log": False},
    "engine_key_map": {"type": "path", "default": state.ENGINE_KEY_MAP_PATH, "no_log": False},
    "upstream_key": {"type": "str", "no_log": True},
    "upstream_key_map": {"type": "path", "default": state.UPSTREAM_KEY_MAP_PATH, "no_log": False},
    "gateway_clients": {"type": "path", "default": clients.PATH},
    "hold_map": {"type": "path", "default": edge_hold.MAP_PATH},
    "presence_path": {"type": "path", "default": edge_hold.PRESENCE_PATH},
    **haproxy.SOCKET_ARGUMENTS,
}

REQUIRED_BY = {"keys": ["origin"], "upstream_key": ["origin"]}


def run(params: dict[str, t.Any], check: bool, want_diff: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    given = None if params["keys"] is None else _wanted(params["keys"])
    with contextlib.ExitStack() as stack:
        if not check:
            make_directories(os.path.dirname(params["path"]))
            stack.enter_context(locked(f"{params['path']}.lock"))
        workers = haproxy.workers(params["socket"], params["master_socket"])
        edge_map = KeysMap(params["path"], workers, params["config_path"])
        before = edge_map.entries()
        taken = _origin.parse(read_json(params["origin_path"]), params["origin_path"])
        unclaimed = [] if taken else [hashed for hashed, _value in before or []]
        now_taken = _take(params, taken, unclaimed)
        wanted = (before or []) if given is None else given
        changed = edge_map.differs(wanted)
        live = edge_map.live_entries()
        actions = _actions(before, wanted, live) if changed else []
        # First of all: keys without a record of their origin could be replaced by older ones.
        further = _keep_origin(params["origin_path"], taken, now_taken, check)
        # The gateway's process before the edge, which admits only clients that the process knows.
        further += _write_clients(params, check)
        if changed and not check:
            edge_map.make(wanted)
        further += _set_engine_key(params, workers, check)
        further += _set_upstream_key(params, workers, check)
        hold = edge_hold.Hold(params["hold_map"], params["presence_path"], workers)
        hold.ensure(check)
        held = hold.held()
        if given is not None:
            # Last of all: from here on the host serves.
            further += hold.release(check)
            held = held if check else None
        actions += further
    result: dict[str, t.Any] = {
        "changed": changed or bool(further),
        "clients": sorted({edge_values.parse(value)[0] for _digest, value in wanted}),
        "count": len(wanted),
        "live": bool(live),
        "outdated": edge_map.file_version < edge_values.VERSION,
        "taken": now_taken.document() if now_taken else None,
        "held": held._asdict() if held else None,
        "unclaimed": [] if now_taken else unclaimed,
        "actions": actions,
    }
    if want_diff and changed:
        result["diff"] = {"before": _shown(before or []), "after": _shown(wanted)}
    return result


def _wanted(items: list[dict[str, t.Any]]) -> state.Entries:
    keys = api_keys.check_hashes(items)
    limits = {item["sha256"]: client_limits.check(item) for item in items}
    return [(key.sha256, edge_values.render(key.name, limits[key.sha256])) for key in keys]


def _take(params: dict[str, t.Any], taken: _origin.Taken | None, unclaimed: list[str]) -> _origin.Taken | None:
    """The host's record once it has this run's keys; raises where it refuses them."""
    parts: dict[str, str] = {}
    if params["keys"] is not None:
        parts[_origin.KEYS] = _origin.keys_digest(params["keys"])
    if params["upstream_key"]:
        parts[_origin.UPSTREAM] = api_keys.sha256(params["upstream_key"])
    if not parts:
        return taken
    brought = _origin.read(params["origin"])
    _origin.check(taken, brought, parts, params["adopt"])
    if taken is None:
        live = [item["sha256"] for item in params["keys"] or []]
        _origin.check_unclaimed(unclaimed, live, brought, params["adopt"])
    return _origin.take(taken, brought, parts)


def _keep_origin(path: str, taken: _origin.Taken | None, now_taken: _origin.Taken | None, check: bool) -> list[str]:
    """Record on the host where its keys come from; return the actions."""
    if now_taken == taken or now_taken is None:
        return []
    if not check:
        try:
            make_directories(os.path.dirname(path))
            write_atomically(path, json.dumps(now_taken.document(), indent=1) + "\n", mode=0o600)
        except OSError as error:
            raise FleetError(
                f"{path} cannot be written ({error.strerror}), so the keys stay as they were. Free the disk or correct "
                "the directory's rights, then run again."
            ) from error
    return [f"take generation {now_taken.generation} of key {now_taken.said}"]


def _set_engine_key(params: dict[str, t.Any], workers: list[haproxy.Worker], check: bool) -> list[str]:
    """Let the edge send the key of the engines' file; return the actions."""
    keys = engine_key.parse(read_text(params["engine_key_path"]) or "")
    if keys is None:
        return []
    edge_map = EdgeMap(params["engine_key_map"], ENGINE_TITLE, workers, mode=0o600)
    wanted = [(ENGINE, keys.current)]
    if not edge_map.differs(wanted):
        return []
    if not check:
        edge_map.make(wanted)
    return [f"show the engines' key {api_keys.fingerprint(keys.current)}"]


def _set_upstream_key(params: dict[str, t.Any], workers: list[haproxy.Worker], check: bool) -> list[str]:
    """Let the edge send this key to the inference hosts; return the actions."""
    key = params["upstream_key"]
    if not key:
        return []
    edge_map = EdgeMap(params["upstream_key_map"], UPSTREAM_TITLE, workers, mode=0o600)
    wanted = [(UPSTREAM, key)]
    if not edge_map.differs(wanted):
        return []
    if not check:
        edge_map.make(wanted)
    return [f"show the inference hosts the key {api_keys.fingerprint(key)}"]


def _write_clients(params: dict[str, t.Any], check: bool) -> list[str]:
    """Write the clients for the gateway's process; return the actions."""
    path = params["gateway_clients"]
    known = read_text(path)
    if known is None or params["keys"] is None:
        return []
    wanted = clients.render(clients.document(params["keys"]))
    if known == wanted:
        return []
    if not check:
        write_atomically(path, wanted, mode=0o600)
    return [f"give {GATEWAY_ENGINE.title} {len(params['keys'])} keys"]


def _actions(before: state.Entries | None, wanted: state.Entries, live: list[state.Entries]) -> list[str]:
    known, asked = dict(before or []), dict(wanted)
    actions = [f"add {_label(entry)}" for entry in wanted if entry[0] not in known]
    actions += [f"limit {_label(entry)}" for entry in wanted if known.get(entry[0], entry[1]) != entry[1]]
    actions += [f"remove {_label(entry)}" for entry in sorted(known.items()) if entry[0] not in asked]
    if before is None:
        actions.append("make the map's file")
    for entries in live:
        if sorted(entries) != sorted(known.items()):
            actions.append("bring the running HAProxy in line with the file")
    return actions or ["write the map again"]


def _label(entry: tuple[str, str]) -> str:
    digest, value = entry
    name, limits = edge_values.parse(value)
    bounds = "; ".join(client_limits.brief(limits))
    return f"{name} {api_keys.hash_fingerprint(digest)}{f' ({bounds})' if bounds else ''}"


def _shown(entries: state.Entries) -> str:
    return "".join(f"{label}\n" for label in sorted(_label(entry) for entry in entries))


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_by=REQUIRED_BY, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode, module._diff))


if __name__ == "__main__":
    main()
