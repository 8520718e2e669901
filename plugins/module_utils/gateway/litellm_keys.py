# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The clients in LiteLLM's database: a virtual key for each live key, and a team for each client.

Spending and limits belong to the team, so that a rotation of its keys changes neither. Pure.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.clients import schema
from ansible_collections.inference.fleet.plugins.module_utils.clients.schema import Kind, Limit
from ansible_collections.inference.fleet.plugins.module_utils.core import keys, times

#: The creator of our rows. Rows of others are never touched.
MAKER = "inference.fleet"

#: An advisory lock, so that concurrent changes of the keys wait for each other.
LOCK = 72707370

#: The prefix of a client's team, which keeps it apart from other teams.
_TEAM_PREFIX = "fleet-"

Row = dict[str, t.Any]
#: Rows by their identity.
Rows = dict[str, Row]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in LiteLLM's database.

    Attributes:
        name: as PostgreSQL knows it.
        identity: the column that identifies a row.
        columns: the columns that we write.
        made: the condition for our rows.
        marks: columns that mark a row as ours, written once.
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
    """The team of a client."""
    return f"{_TEAM_PREFIX}{client}"


def wanted(items: t.Iterable[t.Mapping[str, t.Any]]) -> tuple[Rows, Rows]:
    """The teams and the keys.

    Args:
        items: the hashes of all live keys, as module api_key returns them.

    Raises:
        FleetError: a hash or a limit is invalid.
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
    """A limit in the form of PostgreSQL's adapter."""
    value = limits.get(row.name)
    if row.kind is Kind.MODELS:
        return sorted(value)
    if row.kind is Kind.AMOUNT and value is not None:
        return float(value)
    if row.kind is Kind.MOMENT and value:
        return datetime.datetime.fromtimestamp(times.seconds(value), datetime.timezone.utc).replace(tzinfo=None)
    return value or None


class Statement(t.NamedTuple):
    """A statement, and its description for messages."""

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


def steps(table: Table, there: Rows, asked: Rows) -> list[Statement]:
    """The statements that make a table have the wanted rows."""
    found = [Statement(table, "add", identity, row) for identity, row in asked.items() if identity not in there]
    found += [
        Statement(table, "change", identity, row)
        for identity, row in asked.items()
        if identity in there and there[identity] != row
    ]
    return found + [
        Statement(table, "remove", identity, row) for identity, row in there.items() if identity not in asked
    ]
