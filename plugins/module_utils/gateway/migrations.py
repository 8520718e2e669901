# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The migrations of LiteLLM's database: all of them, and the pending ones.

Prisma's own table records what was applied, so that Prisma's program could continue where this ends.
"""

from __future__ import annotations

import dataclasses
import hashlib
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: Prisma's advisory lock, so that no two programs migrate at the same time.
LOCK = 72707369

RECORD = """
CREATE TABLE IF NOT EXISTS "_prisma_migrations" (
  "id" VARCHAR(36) PRIMARY KEY NOT NULL,
  "checksum" VARCHAR(64) NOT NULL,
  "finished_at" TIMESTAMPTZ,
  "migration_name" VARCHAR(255) NOT NULL,
  "logs" TEXT,
  "rolled_back_at" TIMESTAMPTZ,
  "started_at" TIMESTAMPTZ NOT NULL DEFAULT now(),
  "applied_steps_count" INTEGER NOT NULL DEFAULT 0
)"""


@dataclasses.dataclass(frozen=True)
class Migration:
    """A step of the schema.

    Attributes:
        name: of its directory; their order is that of the steps.
        sql: its statements.
    """

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class Applied(t.NamedTuple):
    """A row of the record."""

    name: str
    finished: bool
    rolled_back: bool


def found_in(runtime: str) -> list[Migration]:
    """The migrations in a runtime's LiteLLM, in order.

    Raises:
        FleetError: it has none.
    """
    files = sorted(
        Path(runtime).glob("lib/python*/site-packages/litellm_proxy_extras/migrations/*/migration.sql"),
        key=lambda file: file.parent.name,
    )
    if not files:
        raise FleetError(f"{runtime} has no migrations of LiteLLM's database.")
    return [Migration(file.parent.name, file.read_text(encoding="utf-8")) for file in files]


def pending(known: t.Iterable[Migration], applied: t.Iterable[Applied]) -> list[Migration]:
    """The pending migrations.

    Raises:
        FleetError: one was started and did not finish.
    """
    rows = [row for row in applied if not row.rolled_back]
    broken = sorted({row.name for row in rows if not row.finished})
    if broken:
        raise FleetError(
            f"The database's record says that {', '.join(broken)} began and did not end. See what became "
            "of it: see the database's log, put the schema right or restore a backup, and set finished_at or "
            "rolled_back_at of its row in _prisma_migrations."
        )
    done = {row.name for row in rows}
    return [migration for migration in known if migration.name not in done]
