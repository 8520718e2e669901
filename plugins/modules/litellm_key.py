# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the clients' virtual keys in LiteLLM's database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: litellm_key
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Keep the clients' virtual keys in LiteLLM's database
description:
  - Each live key is a virtual key in LiteLLM, known by its hash, and each client a team. A client's spending and limits
    belong to the team. During a rotation a client has two keys; when the old one is removed, the spending stays.
  - The database gets hashes and fingerprints; no key is passed to this module.
  - A table of its own in the database records from which key store, and which generation of it, the keys were last
    taken. It refuses keys of an older generation or of another store, as hosts do with M(inference.fleet.edge_keys).
  - All changes are one transaction. Keys and teams of others are never touched.
  - Runs with the Python of LiteLLM's runtime, which has psycopg, on one host that reaches the database.
  - LiteLLM caches a key that it has seen for a minute. The edge in front of it, which M(inference.fleet.edge_keys)
    updates, refuses a removed key at once.
attributes:
  check_mode:
    support: full
    description: Reports what would be done.
  diff_mode:
    support: full
    description: Shows clients' names and keys' fingerprints.
options:
  state:
    description:
      - With V(present) the database has exactly O(keys).
      - With V(absent) the keys of O(clients), and the clients, are removed.
    type: str
    choices: [present, absent]
    default: present
  keys:
    description: With O(state=present), the hashes of all live keys, as module M(inference.fleet.api_key) returns them.
    type: list
    elements: dict
  origin:
    description: With O(state=present), where O(keys) come from, as M(inference.fleet.api_key) returned it with them.
    type: dict
  adopt:
    description:
      - Give up the store with this identity, from which the database has its keys; V(true) for any.
    type: str
    default: ""
  clients:
    description: With O(state=absent), the clients' names.
    type: list
    elements: str
  database_url:
    description: The address, V(postgresql://USER:PASSWORD@HOST:PORT/DATABASE).
    type: str
    required: true
  timeout:
    description: Seconds for the database to answer.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Look up the live keys
  inference.fleet.api_key:
    state: read
  register: keys_known

- name: Sync them to LiteLLM's database
  inference.fleet.litellm_key:
    keys: "{{ keys_known.hashes }}"
    origin: "{{ keys_known.store }}"
    database_url: "{{ litellm_database_url }}"
  vars:
    ansible_python_interpreter: /opt/inference/runtimes/litellm-1.108.7-0123456789ab/bin/python

- name: Remove a client
  inference.fleet.litellm_key:
    state: absent
    clients: [team-a]
    database_url: "{{ litellm_database_url }}"
  vars:
    ansible_python_interpreter: /opt/inference/runtimes/litellm-1.108.7-0123456789ab/bin/python
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: ["add client team-a", "add team-a sk-…1f0c9a2e"]
spent:
  description: Each client's spending so far, by its name, in the unit of the prices.
  returned: success
  type: dict
  sample: {"team-a": 12.5}
"""

import contextlib
import json
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.gateway import litellm_keys, postgresql
from ansible_collections.inference.fleet.plugins.module_utils.keys import origin as _origin

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    # Hashes of 256 random bits do not reveal the key.
    "keys": {"type": "list", "elements": "dict", "no_log": False},
    "origin": {"type": "dict"},
    "adopt": {"type": "str", "default": ""},
    "clients": {"type": "list", "elements": "str"},
    "database_url": {"type": "str", "required": True, "no_log": True},
    "timeout": {"type": "float", "default": 10},
}

REQUIRED_IF = [("state", "present", ["keys", "origin"]), ("state", "absent", ["clients"])]

_TABLE = "inference_fleet_key_origin"
_MAKE = f'CREATE TABLE IF NOT EXISTS "{_TABLE}" (id INTEGER PRIMARY KEY, document TEXT NOT NULL)'
_THERE = f"SELECT to_regclass('\"{_TABLE}\"') IS NOT NULL"
_READ = f'SELECT document FROM "{_TABLE}"'  # noqa: S608
_FORGET = f'DELETE FROM "{_TABLE}"'  # noqa: S608
_KEEP = f'INSERT INTO "{_TABLE}" (id, document) VALUES (1, %s)'  # noqa: S608
_SPENT = f'SELECT team_alias, spend FROM "{litellm_keys.TEAMS.name}" WHERE {litellm_keys.TEAMS.made}'  # noqa: S608


def run(params: dict[str, t.Any], check: bool, want_diff: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    address = postgresql.parse(params["database_url"])
    asked = litellm_keys.wanted(params["keys"]) if params["state"] == "present" else None
    with contextlib.closing(postgresql.connect(address, params["timeout"])) as database:
        try:
            with database.transaction():
                database.execute("SELECT pg_advisory_xact_lock(%s)", (litellm_keys.LOCK,))
                there = _rows(database, litellm_keys.TEAMS), _rows(database, litellm_keys.KEYS)
                teams, keys = asked or _without(*there, params["clients"])
                if asked:
                    _take(database, params, there[1], f"Database {address.place}", check)
                steps = litellm_keys.steps(litellm_keys.TEAMS, there[0], teams)
                steps += litellm_keys.steps(litellm_keys.KEYS, there[1], keys)
                for step in () if check else steps:
                    database.execute(*step.statement())
            spent = dict(database.execute(_SPENT).fetchall())
        except FleetError:
            raise
        except Exception as error:
            raise FleetError(f"The database {address.place} does not take the keys: {error}") from None
    result: dict[str, t.Any] = {"changed": bool(steps), "actions": [str(step) for step in steps], "spent": spent}
    if want_diff and steps:
        result["diff"] = {"before": _shown(*there), "after": _shown(teams, keys)}
    return result


def _take(database: t.Any, params: dict[str, t.Any], there: litellm_keys.Rows, here: str, check: bool) -> None:
    """Refuse keys that are older than the database's, or of another store; else record where they come from."""
    brought = _origin.read(params["origin"])
    found = database.execute(_READ).fetchone() if database.execute(_THERE).fetchone()[0] else None
    taken = _origin.parse(json.loads(found[0]) if found else None, f"Table {_TABLE} of {here[:1].lower()}{here[1:]}")
    parts = {_origin.KEYS: _origin.keys_digest(params["keys"])}
    _origin.check(taken, brought, parts, params["adopt"], here)
    if taken is None:
        live = [item["sha256"] for item in params["keys"]]
        _origin.check_unclaimed(list(there), live, brought, params["adopt"], here)
    now_taken = _origin.take(taken, brought, parts)
    if now_taken != taken and not check:
        for statement, values in ((_MAKE, ()), (_FORGET, ()), (_KEEP, (json.dumps(now_taken.document()),))):
            database.execute(statement, values)


def _rows(database: t.Any, table: litellm_keys.Table) -> litellm_keys.Rows:
    return {
        identity: dict(zip(table.columns, values)) for identity, *values in database.execute(table.select).fetchall()
    }


def _without(
    teams: litellm_keys.Rows, keys: litellm_keys.Rows, clients: t.Collection[str]
) -> tuple[litellm_keys.Rows, litellm_keys.Rows]:
    gone = {litellm_keys.team_id(client) for client in clients}
    return (
        {identity: row for identity, row in teams.items() if identity not in gone},
        {identity: row for identity, row in keys.items() if row["team_id"] not in gone},
    )


def _shown(teams: litellm_keys.Rows, keys: litellm_keys.Rows) -> str:
    lines = [f"client {row['team_alias']} {_bounds(row)}".rstrip() for row in teams.values()]
    lines += [row["key_alias"] for row in keys.values()]
    return "".join(f"{line}\n" for line in sorted(lines))


def _bounds(team: litellm_keys.Row) -> str:
    return ", ".join(f"{name}: {value}" for name, value in team.items() if name != "team_alias" and value)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=REQUIRED_IF, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode, module._diff))


if __name__ == "__main__":
    main()
