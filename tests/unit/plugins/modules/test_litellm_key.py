"""The clients' virtual keys in LiteLLM's database: exactly the live ones; other rows are untouched."""

from __future__ import annotations

import hashlib
import typing as t

import pytest

from tests.unit.conftest import Result, RunModule
from tests.unit.plugins.modules.databases import URL, Database, install

TABLES = (
    'CREATE TABLE "LiteLLM_TeamTable" (team_id PRIMARY KEY, team_alias, models, rpm_limit, tpm_limit, '
    "max_parallel_requests, max_budget, budget_duration, admins, members, metadata, spend DEFAULT 0.0, updated_at)",
    'CREATE TABLE "LiteLLM_VerificationToken" (token PRIMARY KEY, key_alias, key_name, team_id, models, expires, '
    "created_by, spend DEFAULT 0.0, updated_at)",
)


class Keep(t.Protocol):
    def __call__(self, *items: dict[str, t.Any], check: bool = False, **more: t.Any) -> Result: ...


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    one = install(monkeypatch, Database(lists=("models",)))
    for table in TABLES:
        one.execute(table)
    return one


@pytest.fixture
def keep(database: Database, run_module: RunModule) -> Keep:
    generations: list[str] = []

    def run(*items: dict[str, t.Any], check: bool = False, **more: t.Any) -> Result:
        """With a generation of its own for each change, as the store has it, unless the test gives one."""
        content = str(items)
        if not generations or generations[-1] != content:
            generations.append(content)
        arguments = {"database_url": URL, "keys": list(items), "origin": origin(len(generations)), **more}
        return run_module("litellm_key", arguments, check=check, diff=True)

    return run


def item(name: str, key: str, **more: t.Any) -> dict[str, t.Any]:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}


def origin(generation: int, store: str = "a1" * 16, **more: t.Any) -> dict[str, t.Any]:
    return {"id": store, "generation": generation, "name": "the key store /k.json", **more}


def names(database: Database) -> list[str]:
    return sorted(row[0] for row in database.rows('SELECT key_alias FROM "LiteLLM_VerificationToken"'))


def test_each_live_key_is_known_and_a_second_run_changes_nothing(database: Database, keep: Keep) -> None:
    first = keep(item("a", "1"), item("b", "2", models=["m"], requests_per_minute=5))
    assert first["changed"]
    assert first["actions"][:2] == ["add client a", "add client b"]
    assert len(names(database)) == 2
    assert first["spent"] == {"a": 0.0, "b": 0.0}
    again = keep(item("a", "1"), item("b", "2", models=["m"], requests_per_minute=5))
    assert (again["changed"], again["actions"]) == (False, [])


def test_what_was_spent_stays_through_a_rotation(database: Database, keep: Keep) -> None:
    keep(item("a", "old"))
    database.execute("UPDATE \"LiteLLM_TeamTable\" SET spend = 1.5 WHERE team_id = 'fleet-a'")
    both = keep(item("a", "old"), item("a", "new"))
    assert [action.split()[0] for action in both["actions"]] == ["add"]
    assert len(names(database)) == 2
    after = keep(item("a", "new"))
    assert [action.split()[0] for action in after["actions"]] == ["remove"]
    assert after["spent"] == {"a": 1.5}
    assert after["diff"]["before"].count("sk-…") == 2


def test_a_check_changes_nothing(database: Database, keep: Keep) -> None:
    assert keep(item("a", "1"), check=True)["changed"]
    assert names(database) == []


def test_what_others_have_made_is_left_alone(database: Database, keep: Keep) -> None:
    database.execute(
        "INSERT INTO \"LiteLLM_VerificationToken\" (token, key_alias, created_by) VALUES ('x', 'theirs', 'u')"
    )
    database.execute("INSERT INTO \"LiteLLM_TeamTable\" (team_id, team_alias, metadata) VALUES ('t', 'theirs', '{}')")
    assert "theirs" not in keep(item("a", "1"))["spent"]
    keep(state="absent", clients=["a", "theirs"], keys=None)
    assert names(database) == ["theirs"]
    assert database.rows('SELECT team_id FROM "LiteLLM_TeamTable"') == [("t",)]


def test_a_client_that_is_gone_takes_its_keys_along(database: Database, keep: Keep) -> None:
    keep(item("a", "1"), item("a", "2"), item("b", "3"))
    gone = keep(state="absent", clients=["a"], keys=None)
    assert len(gone["actions"]) == 3
    assert gone["spent"] == {"b": 0.0}
    assert not keep(state="absent", clients=["a"], keys=None)["changed"]


def test_a_database_that_refuses_is_reported_without_its_password(database: Database, keep: Keep) -> None:
    database.refusal = 'FATAL: password authentication failed for user "litellm" with a-secret'
    failed = keep(item("a", "1"))
    assert failed["failed"]
    assert "PostgreSQL at 10.0.0.7:5432/litellm (litellm_database_url) refuses: FATAL: password" in failed["msg"]
    assert "a-secret" not in failed["msg"]


def test_all_of_it_or_nothing(database: Database, keep: Keep) -> None:
    database.execute('DROP TABLE "LiteLLM_VerificationToken"')
    assert "does not take the keys" in keep(item("a", "1"))["msg"]
    assert database.rows('SELECT team_id FROM "LiteLLM_TeamTable"') == []


def test_a_foreign_client_is_not_taken_over(database: Database, keep: Keep) -> None:
    database.execute(
        "INSERT INTO \"LiteLLM_TeamTable\" (team_id, team_alias, metadata) VALUES ('fleet-a', 'theirs', '{}')"
    )
    assert "does not take the keys" in keep(item("a", "1"))["msg"]
    assert database.rows('SELECT team_alias FROM "LiteLLM_TeamTable"') == [("theirs",)]
    assert names(database) == []


def test_of_two_at_once_one_waits(database: Database, keep: Keep) -> None:
    keep(item("a", "1"))
    asked = [text for text in database.asked if not text.startswith("CREATE")]
    assert asked[0] == "SELECT pg_advisory_xact_lock(%s)"


def test_older_keys_and_those_of_another_store_are_refused(database: Database, keep: Keep) -> None:
    keep(item("a", "old"), origin=origin(1))
    keep(item("a", "new"), origin=origin(2))
    late = keep(item("a", "old"), origin=origin(1))["msg"]
    assert "Database 10.0.0.7:5432/litellm has generation 2 of key store a1a1a1a1…" in late
    assert "this run brought generation 1" in late
    foreign = keep(item("a", "x"), origin=origin(9, "b2" * 16))["msg"]
    assert "belongs to key store a1a1a1a1…" in foreign
    assert "this run's is store b2b2b2b2…" in foreign
    assert "A generation has one content" in keep(item("a", "x"), origin=origin(2))["msg"]
    assert len(names(database)) == 1
    assert keep(item("a", "x"), origin=origin(9, "b2" * 16), adopt="a1" * 16)["changed"]
    assert not keep(item("a", "x"), origin=origin(9, "b2" * 16))["changed"]


def test_a_database_without_a_record_is_adopted_where_the_store_has_its_keys(database: Database, keep: Keep) -> None:
    keep(item("a", "1"), item("b", "2"))
    database.execute('DROP TABLE "inference_fleet_key_origin"')
    assert "does not know: sk-…" in keep(item("a", "1"))["msg"]
    assert keep(item("a", "1"), origin=origin(1, retired=[item("b", "2")["sha256"]]))["changed"]


def test_a_check_keeps_no_origin(database: Database, keep: Keep) -> None:
    keep(item("a", "1"), check=True)
    assert database.rows("SELECT name FROM sqlite_master WHERE name = 'inference_fleet_key_origin'") == []
