"""The module that generates Prisma's client: once, and only with a matching engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.conftest import RunModule
from tests.unit.plugins.module_utils.gateway.test_prisma import MODEL, generator, program, runtime

__all__ = ["runtime"]


@pytest.fixture
def arguments(runtime: Path, tmp_path: Path) -> dict[str, object]:
    generator(runtime, {"id": 1, "result": None})
    return {"runtime": str(runtime), "path": str(tmp_path / "client"), "model": json.dumps(MODEL)}


def test_it_is_made_once(arguments: dict[str, object], run_module: RunModule) -> None:
    first = run_module("prisma_client", arguments)
    assert (first["changed"], first["engine_version"]) == (True, "abc123")
    assert not run_module("prisma_client", arguments)["changed"]


def test_a_check_makes_nothing(arguments: dict[str, object], run_module: RunModule) -> None:
    assert run_module("prisma_client", arguments, check=True)["changed"]
    assert not Path(str(arguments["path"])).exists()


def test_an_engine_of_another_version_is_refused(
    arguments: dict[str, object], run_module: RunModule, tmp_path: Path
) -> None:
    engine = program(tmp_path / "engine", "#!/bin/sh\necho query-engine other\n")
    failed = run_module("prisma_client", {**arguments, "engine": str(engine)})
    assert "query engine of litellm_query_engine cannot be used: it is 'query-engine other'" in failed["msg"]
    program(engine, "#!/bin/sh\necho query-engine abc123\n")
    assert not run_module("prisma_client", {**arguments, "engine": str(engine)})["changed"]
