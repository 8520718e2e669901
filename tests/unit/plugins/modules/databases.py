"""SQLite in place of PostgreSQL, with the interface of psycopg that the modules use. Molecule tests the real ones."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
import types
import typing as t

import pytest

URL = "postgresql://litellm:a-secret@10.0.0.7:5432/litellm"


class Error(Exception):
    """As psycopg's."""


class Database:
    """A database that survives its connections.

    Attributes:
        refusal: the error of a connection; None accepts it.
        lists: the columns that are arrays.
    """

    def __init__(self, lists: t.Collection[str] = ()) -> None:
        self.refusal: str | None = None
        self.lists = lists
        self.asked: list[str] = []
        self._inner = sqlite3.connect(":memory:", isolation_level=None)
        self._inner.create_function("now", 0, lambda: "now")
        for name in ("pg_advisory_lock", "pg_advisory_xact_lock"):
            self._inner.create_function(name, 1, lambda _key: None)
        self._inner.create_function("to_regclass", 1, self._to_regclass)

    def connect(self, _url: str, **_options: t.Any) -> Database:
        if self.refusal is not None:
            raise Error(self.refusal)
        return self

    def execute(self, text: str, values: t.Sequence[t.Any] = ()) -> t.Any:
        self.asked.append(text)
        known = [json.dumps(value) if isinstance(value, list) else value for value in values]
        # What SQLite writes otherwise.
        text = text.replace("%s", "?").replace("DEFAULT now()", "DEFAULT (now())")
        try:
            if not values and text.count(";") > 1:
                return self._inner.executescript(f"BEGIN;{text}COMMIT;")
            return _Answer(self._inner.execute(text, known), self.lists)
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._inner.execute("ROLLBACK")
            raise Error(str(error)) from None

    @contextlib.contextmanager
    def transaction(self) -> t.Iterator[None]:
        self._inner.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._inner.execute("ROLLBACK")
            raise
        self._inner.execute("COMMIT")

    def close(self) -> None:
        """It stays for the next connection."""

    def rows(self, text: str) -> list[tuple[t.Any, ...]]:
        return self._inner.execute(text).fetchall()

    def _to_regclass(self, name: str) -> str | None:
        found = re.sub('"', "", name)
        there = self._inner.execute("SELECT name FROM sqlite_master WHERE name = ?", (found,)).fetchone()
        return there[0] if there else None


class _Answer:
    def __init__(self, cursor: sqlite3.Cursor, lists: t.Collection[str]) -> None:
        names = [column[0] for column in cursor.description or ()]
        self._rows = [
            tuple(json.loads(value) if name in lists and value else value for name, value in zip(names, row))
            for row in cursor.fetchall()
        ]

    def fetchall(self) -> list[tuple[t.Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[t.Any, ...] | None:
        return self._rows[0] if self._rows else None

    def __iter__(self) -> t.Iterator[tuple[t.Any, ...]]:
        return iter(self._rows)


def install(monkeypatch: pytest.MonkeyPatch, database: Database) -> Database:
    """Let modules that import psycopg use this database."""
    module = types.ModuleType("psycopg")
    vars(module).update(connect=database.connect, Error=Error)
    monkeypatch.setitem(sys.modules, "psycopg", module)
    return database
