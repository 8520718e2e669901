"""LiteLLM starts with its database where it answers, and without it otherwise."""

from __future__ import annotations

import pathlib
import sys
import types

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.net import proxies

from tests.unit.litellm.conftest import load

GIVEN = {
    "DATABASE_URL": "postgresql://litellm:secret@10.0.0.7/litellm",
    "FLEET_PRISMA": "/opt/inference/runtimes/x/prisma",
    "PYTHONPATH": "/opt/inference/instances/0/current",
    "PATH": "/usr/bin",
    "PORT": "4001",
}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.setitem(sys.modules, "proxies", proxies)
    return load("fleet_start")


def test_with_the_database_it_has_prismas_client(start: types.ModuleType) -> None:
    made = start.environment(GIVEN, None)
    assert made["DATABASE_URL"] == GIVEN["DATABASE_URL"]
    assert made["PYTHONPATH"] == "/opt/inference/instances/0/current:/opt/inference/runtimes/x/prisma"
    assert made["PATH"] == "/opt/inference/runtimes/x/prisma/bin:/usr/bin"
    assert made["FLEET_DATABASE"] == "1"
    assert made["PORT"] == "4001"


@pytest.mark.parametrize(
    ("libpqs", "prismas"),
    [
        ("", ""),
        ("?sslmode=require", "?sslmode=require"),
        (
            "?sslmode=verify-full&sslrootcert=/etc/ssl/rds.pem&schema=x",
            "?sslmode=require&schema=x&sslaccept=strict&sslcert=%2Fetc%2Fssl%2Frds.pem",
        ),
        ("?sslmode=verify-ca&sslrootcert=system", "?sslmode=require&sslaccept=strict"),
    ],
)
def test_prisma_verifies_what_libpq_would(start: types.ModuleType, libpqs: str, prismas: str) -> None:
    url = "postgresql://litellm:s%40cret@10.0.0.7:5432/litellm"
    assert start.environment({**GIVEN, "DATABASE_URL": url + libpqs}, None)["DATABASE_URL"] == url + prismas


def test_without_its_database_litellm_gets_no_address(start: types.ModuleType) -> None:
    made = start.environment(GIVEN, "connection refused")
    assert not {"DATABASE_URL", "FLEET_PRISMA"} & set(made)
    assert made["FLEET_DATABASE"] == "0"
    assert made["PYTHONPATH"] == GIVEN["PYTHONPATH"]
    assert made["PATH"] == GIVEN["PATH"]


def test_a_gateway_without_a_database_keeps_its_environment(start: types.ModuleType) -> None:
    assert start.environment({"PATH": "/usr/bin"}, None) == proxies.exempt_own({"PATH": "/usr/bin"})


def test_litellm_asks_the_edge_beside_it_past_any_proxy(start: types.ModuleType) -> None:
    made = start.environment({"http_proxy": "http://proxy.example:3128", "NO_PROXY": "internal.example"}, None)
    assert made["no_proxy"].split(",")[:3] == ["internal.example", "localhost", "127.0.0.1"]


def program(path: pathlib.Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_query_engine_that_runs_is_no_problem(start: types.ModuleType, tmp_path: pathlib.Path) -> None:
    engine = program(tmp_path / "query-engine", "#!/bin/sh\necho query-engine 393a\n")
    assert start.prisma_problem(str(tmp_path), engine) is None


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        ("#!/bin/sh\necho libssl is missing >&2; exit 127\n", 0o755, "query-engine ends with 127: libssl is missing"),
        ("#!/bin/sh\nkill -9 $$\n", 0o755, "query-engine ends with -9"),
        ("\x7fELF half of it", 0o755, "Exec format error"),
        ("#!/bin/sh\n", 0o644, "Permission denied"),
        ("#!/bin/sh\nexec sleep 60\n", 0o755, "timed out"),
    ],
)
def test_litellm_starts_without_its_database_where_the_query_engine_does_not_run(
    start: types.ModuleType,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    mode: int,
    problem: str,
) -> None:
    monkeypatch.setattr(start, "PATIENCE", 0.5)
    engine = program(tmp_path / "query-engine", text, mode)
    given = {**GIVEN, "FLEET_PRISMA": str(tmp_path), "PRISMA_QUERY_ENGINE_BINARY": engine}
    assert problem in start.problem_of(given)


def test_a_query_engine_or_a_client_that_is_gone_is_named(start: types.ModuleType, tmp_path: pathlib.Path) -> None:
    assert f"No such file or directory: '{tmp_path}/query-engine'" in start.prisma_problem(
        str(tmp_path), f"{tmp_path}/query-engine"
    )
    assert start.prisma_problem(f"{tmp_path}/client", "/bin/true") == f"Prisma's client: there is no {tmp_path}/client"


def test_after_two_starts_without_an_answer_litellm_starts_without_its_database(
    start: types.ModuleType, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "litellm-0.tries"
    problems = [start.tries_problem(file) for _ in range(6)]
    problem = "LiteLLM ended 2 times with it before anybody was answered"
    # Then with and without it in turns, so that it recovers by itself.
    assert problems == [None, None, problem, None, problem, None]


def test_the_count_of_starts_begins_again_after_an_answer(start: types.ModuleType, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "litellm-0.tries"
    for _ in range(2):
        assert start.tries_problem(file) is None
    file.unlink()
    assert start.tries_problem(file) is None
    file.write_text("what is that")
    assert start.tries_problem(file) is None


def test_a_count_that_cannot_be_written_keeps_nothing_from_its_start(
    start: types.ModuleType, tmp_path: pathlib.Path
) -> None:
    assert start.tries_problem(tmp_path / "missing" / "litellm-0.tries") is None
