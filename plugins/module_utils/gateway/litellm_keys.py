# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The clients as LiteLLM's database has them: a virtual key for each live key, and a team that is the client.

What a client spends and its bounds are the team's, so that a rotation of its keys changes neither. Pure.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.clients import schema
from ansible_collections.inference.fleet.plugins.module_utils.clients.schema import Kind, Limit
from ansible_collections.inference.fleet.plugins.module_utils.core import keys, times

#: Who made a row. Rows of others are never touched.
MAKER = "inference.fleet"

#: An advisory lock, so that of two that change the keys at once one waits for the other.
LOCK = 72707370

#: In front of a client's name, so that no team of somebody else's is meant.
_TEAM_PREFIX = "fleet-"

Row = dict[str, t.Any]
#: Rows by their identity.
Rows = dict[str, Row]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of LiteLLM's.

    Attributes:
        name: as PostgreSQL knows it.
        identity: the column that identifies a row.
        columns: those that are kept.
        made: the condition for rows of ours.
        marks: columns that say whose a row is, written once.
    """

    name: str
    identity: str
    columns: tuple[str, ...]
    made: str
    marks: tuple[tuple[str, t.Any], ...]

    @property
    def select(self) -> str:
        return f'SELECT {self.identity}, {", ".join(self.columns)} FROM "{self.name}" WHERE {self.made}'  # noqa: S608

    @property
    def insert(self) -> str:
        columns = [self.identity, *self.columns, *(column for column, _value in self.marks)]
        places = ", ".join(["%s"] * len(columns))
        return f'INSERT INTO "{self.name}" ({", ".join(columns)}) VALUES ({places})'  # noqa: S608

    @property
    def update(self) -> str:
        kept = ", ".join(f"{column} = %s" for column in self.columns)
        return f'UPDATE "{self.name}" SET {kept}, updated_at = now() WHERE {self.identity} = %s'  # noqa: S608

    @property
    def delete(self) -> str:
        return f'DELETE FROM "{self.name}" WHERE {self.identity} = %s AND {self.made}'  # noqa: S608

    def values(self, row: Row) -> list[t.Any]:
        return [row[column] for column in self.columns]


TEAMS = Table(
    "LiteLLM_TeamTable",
    "team_id",
    ("team_alias", *(row.litellm.team_column for row in schema.LIMITS if row.litellm.team_column)),
    f"metadata->>'made_by' = '{MAKER}'",
    (("admins", []), ("members", []), ("metadata", f'{{"made_by": "{MAKER}"}}')),
)
KEYS = Table(
    "LiteLLM_VerificationToken",
    "token",
    (
        *("key_alias", "key_name", "team_id"),
        *(row.litellm.key_column for row in schema.LIMITS if row.litellm.key_column),
    ),
    f"created_by = '{MAKER}'",
    (("created_by", MAKER),),
)


def team_id(client: str) -> str:
    """The team that is a client."""
    return f"{_TEAM_PREFIX}{client}"


def wanted(items: t.Iterable[t.Mapping[str, t.Any]]) -> tuple[Rows, Rows]:
    """The teams and the keys.

    Args:
        items: the hashes of all live keys, as module api_key returns them.

    Raises:
        FleetError: a hash is none, or a limit cannot be one.
    """
    items = list(items)
    keys.check_hashes(items)
    return {team_id(item["name"]): _team(item) for item in items}, {item["sha256"]: _key(item) for item in items}


def _team(item: t.Mapping[str, t.Any]) -> Row:
    limits = client_limits.check(item)
    columns = {row.litellm.team_column: _column(row, limits) for row in schema.LIMITS if row.litellm.team_column}
    return {"team_alias": item["name"], **columns}


def _key(item: t.Mapping[str, t.Any]) -> Row:
    fingerprint, limits = keys.hash_fingerprint(item["sha256"]), client_limits.check(item)
    return {
        "key_alias": f"{item['name']} {fingerprint}",
        "key_name": fingerprint,
        "team_id": team_id(item["name"]),
        **{row.litellm.key_column: _column(row, limits) for row in schema.LIMITS if row.litellm.key_column},
    }


def _column(row: Limit, limits: client_limits.Limits) -> t.Any:
    """A limit as PostgreSQL's adapter takes it, and returns it."""
    value = limits.get(row.name)
    if row.kind is Kind.MODELS:
        return sorted(value)
    if row.kind is Kind.AMOUNT and value is not None:
        return float(value)
    if row.kind is Kind.MOMENT and value:
        return datetime.datetime.fromtimestamp(times.seconds(value), datetime.timezone.utc).replace(tzinfo=None)
    return value or None


class Step(t.NamedTuple):
    """A statement, and what a person is told of it."""

    table: Table
    what: str
    identity: str
    row: Row

    def statement(self) -> tuple[str, list[t.Any]]:
        """The SQL and its parameters."""
        if self.what == "add":
            values = [*self.table.values(self.row), *(value for _column, value in self.table.marks)]
            return self.table.insert, [self.identity, *values]
        if self.what == "remove":
            return self.table.delete, [self.identity]
        return self.table.update, [*self.table.values(self.row), self.identity]

    def __str__(self) -> str:
        if self.table is KEYS:
            return f"{self.what} {self.row['key_alias']}"
        return f"{self.what} client {self.row['team_alias']}"


def steps(table: Table, there: Rows, asked: Rows) -> list[Step]:
    """What makes the rows of a table those that are asked for."""
    found = [Step(table, "add", identity, row) for identity, row in asked.items() if identity not in there]
    found += [
        Step(table, "change", identity, row)
        for identity, row in asked.items()
        if identity in there and there[identity] != row
    ]
    return found + [Step(table, "remove", identity, row) for identity, row in there.items() if identity not in asked]
