"""LiteLLM's database is migrated to its version once, in order, and the migration stops at a failure."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from tests.unit.conftest import Result, RunModule
from tests.unit.plugins.modules.databases import URL, Database, install

GOOD = {"1_first": "CREATE TABLE a (x);\nCREATE TABLE b (x);\n", "2_second": "CREATE TABLE c (x);\n"}


class Migrate(t.Protocol):
    def __call__(self, migrations: dict[str, str], *, check: bool = False) -> Result: ...


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    return install(monkeypatch, Database())


@pytest.fixture
def migrate(database: Database, run_module: RunModule, tmp_path: Path) -> Migrate:
    def run(migrations: dict[str, str], *, check: bool = False) -> Result:
        folder = tmp_path / "lib/python3.11/site-packages/litellm_proxy_extras/migrations"
        for name, text in migrations.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "migration.sql").write_text(text)
        return run_module("litellm_migration", {"database_url": URL, "runtime": str(tmp_path)}, check=check)

    return run


def tables(database: Database) -> set[str]:
    return {row[0] for row in database.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_all_are_applied_once_in_their_order(database: Database, migrate: Migrate) -> None:
    first = migrate(GOOD)
    assert (first["changed"], first["applied"]) == (True, ["1_first", "2_second"])
    assert {"a", "b", "c"} <= tables(database)
    assert first["database"] == "10.0.0.7:5432/litellm"
    again = migrate(GOOD)
    assert (again["changed"], again["applied"]) == (False, [])


def test_a_later_version_applies_what_is_new(database: Database, migrate: Migrate) -> None:
    migrate(GOOD)
    assert migrate({**GOOD, "3_third": "CREATE TABLE d (x);"})["applied"] == ["3_third"]


def test_a_migration_takes_the_lock_first(database: Database, migrate: Migrate) -> None:
    migrate(GOOD)
    assert database.asked[0] == "SELECT pg_advisory_lock(%s)"


def test_a_check_says_what_is_missing(database: Database, migrate: Migrate) -> None:
    assert migrate(GOOD, check=True)["applied"] == ["1_first", "2_second"]
    assert tables(database) == set()


def test_one_that_fails_is_taken_back_named_and_tried_again(database: Database, migrate: Migrate) -> None:
    bad = {**GOOD, "2_second": "CREATE TABLE c (x);\nCREATE TABLE a (x);\n", "3_third": "CREATE TABLE d (x);"}
    failed = migrate(bad)
    assert "migration 2_second fails in the database 10.0.0.7:5432/litellm: table a already exists" in failed["msg"]
    assert not {"c", "d"} & tables(database)
    assert migrate({**bad, "2_second": "CREATE TABLE c (x);"})["applied"] == ["2_second", "3_third"]


def test_one_that_did_not_end_stops_all(database: Database, migrate: Migrate) -> None:
    migrate(GOOD)
    database.execute("INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ('i', 'c', '3_third')")
    failed = migrate({**GOOD, "3_third": "CREATE TABLE d (x);"})
    assert "says that 3_third began and did not end" in failed["msg"]
    assert "d" not in tables(database)


def test_without_psycopg_it_says_with_which_python_to_run(migrate: Migrate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    assert "run it with the Python of LiteLLM's runtime" in migrate(GOOD)["msg"]
