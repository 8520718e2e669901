# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrate LiteLLM's database to its version."""

from __future__ import annotations

DOCUMENTATION = r"""
module: litellm_migration
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Migrate LiteLLM's database to its version
description:
  - Applies LiteLLM's migrations that the database does not have yet, in order, and waits for the end of each. Prisma's
    own table, C(_prisma_migrations), records them.
  - Runs with the Python of LiteLLM's runtime, which has psycopg; needs neither Node nor Prisma's schema engine.
  - A second caller waits for the first one. A migration that fails is rolled back and reported by name, and nothing
    after it is applied.
  - Messages have host, port and database, and never the password.
attributes:
  check_mode:
    support: full
    description: Reports which migrations are missing.
  diff_mode:
    support: none
    description: The names are returned.
options:
  database_url:
    description: The address, V(postgresql://USER:PASSWORD@HOST:PORT/DATABASE).
    type: str
    required: true
  runtime:
    description: The Python environment with LiteLLM.
    type: path
    required: true
  timeout:
    description: Seconds for the database to answer.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Migrate the database to LiteLLM's version
  inference.fleet.litellm_migration:
    database_url: "{{ litellm_database_url }}"
    runtime: /opt/inference/runtimes/litellm-1.108.7-0123456789ab
  vars:
    ansible_python_interpreter: /opt/inference/runtimes/litellm-1.108.7-0123456789ab/bin/python
  run_once: true
  no_log: true
"""

RETURN = r"""
applied:
  description: The migrations that were applied, or in check mode would be.
  returned: success
  type: list
  elements: str
database:
  description: Host, port and database.
  returned: success
  type: str
  sample: 10.0.0.7:5432/litellm
"""

import contextlib
import typing as t
import uuid

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.gateway import migrations, postgresql

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "database_url": {"type": "str", "required": True, "no_log": True},
    "runtime": {"type": "path", "required": True},
    "timeout": {"type": "float", "default": 10},
}

_APPLIED = 'SELECT migration_name, finished_at IS NOT NULL, rolled_back_at IS NOT NULL FROM "_prisma_migrations"'
_BEGIN = 'INSERT INTO "_prisma_migrations" (id, checksum, migration_name) VALUES (%s, %s, %s)'
_END = 'UPDATE "_prisma_migrations" SET finished_at = now(), applied_steps_count = 1 WHERE id = %s'
_FAIL = 'UPDATE "_prisma_migrations" SET rolled_back_at = now(), logs = %s WHERE id = %s'


def run(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    known = migrations.found_in(params["runtime"])
    address = postgresql.parse(params["database_url"])
    with contextlib.closing(postgresql.connect(address, params["timeout"])) as database:
        if check:
            missing = migrations.pending(known, _applied(database))
        else:
            database.execute("SELECT pg_advisory_lock(%s)", (migrations.LOCK,))
            database.execute(migrations.RECORD)
            missing = migrations.pending(known, _applied(database))
            for migration in missing:
                _apply(database, migration, address.place)
    return {"changed": bool(missing), "applied": [migration.name for migration in missing], "database": address.place}


def _applied(database: t.Any) -> list[migrations.Applied]:
    if not database.execute("SELECT to_regclass('\"_prisma_migrations\"') IS NOT NULL").fetchone()[0]:
        return []
    return [migrations.Applied(*row) for row in database.execute(_APPLIED)]


def _apply(database: t.Any, migration: migrations.Migration, place: str) -> None:
    identity = str(uuid.uuid4())
    database.execute(_BEGIN, (identity, migration.checksum, migration.name))
    try:
        # Without parameters it is sent as one query, which the server rolls back as a whole when a part of it fails.
        database.execute(migration.sql)
    except Exception as error:
        database.execute(_FAIL, (str(error), identity))
        raise FleetError(
            f"LiteLLM's migration {migration.name} fails in the database {place}: {error}. It was taken back, and no "
            "later one was applied. The gateways were not touched."
        ) from None
    database.execute(_END, (identity,))


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
