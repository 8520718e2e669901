# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell an edge whose keys it accepts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_keys
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Make an edge accept exactly these client keys
description:
  - Makes the map in which the edge looks up the hash of a client's key have exactly the wanted entries, in its file and
    in every running HAProxy process. No process is reloaded, no connection is dropped, and a lookup sees the old or the
    new map, nothing between.
  - The key that the edge shows to the engines is told in the same way, from the file that M(inference.fleet.engine_key)
    keeps.
  - On a gateway, LiteLLM gets the same hashes with the limits that it enforces, and the edge the key that it shows to
    the inference hosts.
  - What somebody changed in the file or at run time is put right.
  - Where HAProxy does not run, only the file is written, which it reads when it starts.
  - The host keeps from which key store, and which generation of it, it took its keys last. It refuses keys of an older
    generation, of another store, and other keys of the same generation. Keys from before it kept that are replaced
    when the store knows all of them.
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
      - Without it the keys stay as the file says; it is made if it is missing.
    type: list
    elements: dict
  origin:
    description:
      - From where O(keys) or O(upstream_key) come; needed with them. C(store) of the execution of module
        M(inference.fleet.api_key) that returned them, and of no other one.
    type: dict
  origin_path:
    description: The file in which the host keeps it, readable by root only.
    type: path
    default: /etc/haproxy/maps/keys.origin.json
  adopt:
    description:
      - The identity of the store that the host's keys come from and that is given up on purpose, or V(true) for any.
    type: str
    default: ""
  path:
    description: The map's file.
    type: path
    default: /etc/haproxy/maps/keys.map
  config_path:
    description: HAProxy's configuration, which says what version of the map it reads where HAProxy does not run.
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
    description: On a gateway, the key that it is a client of the inference hosts with. Without it the key stays.
    type: str
  upstream_key_map:
    description: The map's file for that key, readable by root only.
    type: path
    default: /etc/haproxy/maps/upstream_key.map
  gateway_clients:
    description: On a gateway, the file in which LiteLLM looks its clients up. Where there is none, none is made.
    type: path
    default: /etc/inference/gateway_clients.json
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
  description: Whether the map is in an earlier version, because the HAProxy that runs reads no later one yet.
  returned: success
  type: bool
taken:
  description: Which generation of which key store the host has taken now; none where it has none.
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
unclaimed:
  description: The hashes of keys that the host has from before it kept where they come from.
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
from ansible_collections.inference.fleet.plugins.module_utils.edge.keys_map import KeysMap
from ansible_collections.inference.fleet.plugins.module_utils.edge.maps import EdgeMap
from ansible_collections.inference.fleet.plugins.module_utils.engines import key as engine_key
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import GATEWAY_ENGINE
from ansible_collections.inference.fleet.plugins.module_utils.gateway import clients
from ansible_collections.inference.fleet.plugins.module_utils.keys import origin as _origin

ENGINE_TITLE = "What the edge shows to the engines. Written by module edge_keys."
UPSTREAM_TITLE = "What this gateway shows to the inference hosts. Written by module edge_keys."
#: The names under which HAProxy's configuration looks them up.
ENGINE = "engine"
UPSTREAM = "upstream"

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "keys": {
        "type": "list",
        "elements": "dict",
        # Hashes of 256 random bits tell nobody the key.
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
        # This before anything else: keys that are written and not known to be would be replaced by older ones.
        further = _keep_origin(params["origin_path"], taken, now_taken, check)
        # The process before the edge, which lets in only clients that the process knows.
        further += _write_clients(params, check)
        if changed and not check:
            edge_map.make(wanted)
        further += _tell_engine_key(params, workers, check)
        further += _tell_upstream_key(params, workers, check)
        actions += further
    result: dict[str, t.Any] = {
        "changed": changed or bool(further),
        "clients": sorted({edge_values.parse(value)[0] for _digest, value in wanted}),
        "count": len(wanted),
        "live": bool(live),
        "outdated": edge_map.file_version < edge_values.VERSION,
        "taken": now_taken.document() if now_taken else None,
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
    """The record of what the host has taken, once this run's keys are its own; what it refuses is raised."""
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
    """Have the host know from where its keys come; what was done."""
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


def _tell_engine_key(params: dict[str, t.Any], workers: list[haproxy.Worker], check: bool) -> list[str]:
    """Have the edge show the key that the engines' file has; what was done."""
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


def _tell_upstream_key(params: dict[str, t.Any], workers: list[haproxy.Worker], check: bool) -> list[str]:
    """Have the edge show this key to the inference hosts; what was done."""
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
    """Write the clients for what the gateway runs; what was done."""
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
