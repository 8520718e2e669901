"""The client that LiteLLM uses for its database: created atomically, for a matching engine."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gateway import prisma

LOCKS = Path(__file__).parents[5] / "roles/litellm/files/locks"
MODEL = {"engine": "abc123", "config": {}, "datasources": [], "datamodel": {"models": []}, "enumTypes": {}}

GENERATOR = """#!/usr/bin/env python3
import json, pathlib, sys
asked = json.loads(sys.stdin.readline())["params"]
package = pathlib.Path(asked["generator"]["output"]["value"])
package.mkdir()
(package / "client.py").write_text(asked["datamodel"])
print("a warning", file=sys.stderr)
print(json.dumps(ANSWER), file=sys.stderr)
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    schema = tmp_path / "runtime/lib/python3.11/site-packages/litellm/proxy/schema.prisma"
    schema.parent.mkdir(parents=True)
    schema.write_text("# the schema\n")
    program(tmp_path / "runtime/bin/python", "#!/bin/sh\n")
    return tmp_path / "runtime"


def generator(runtime: Path, answer: dict[str, object]) -> None:
    program(runtime / "bin/prisma-client-py", GENERATOR.replace("ANSWER", repr(answer)))


def test_the_client_is_made_from_the_schema(runtime: Path, tmp_path: Path) -> None:
    generator(runtime, {"id": 1, "result": None})
    client = tmp_path / "client"
    prisma.generate(str(runtime), str(client), MODEL)
    assert (client / prisma.PACKAGE / "client.py").read_text() == "# the schema\n"
    assert (client / prisma.PROGRAM).readlink() == Path("/bin/true")


def test_one_that_fails_leaves_nothing_that_would_be_used(runtime: Path, tmp_path: Path) -> None:
    generator(runtime, {"id": 1, "error": {"message": "no such type"}})
    client = tmp_path / "client"
    with pytest.raises(FleetError, match="no such type"):
        prisma.generate(str(runtime), str(client), MODEL)
    assert not client.exists()
    generator(runtime, {"id": 1, "result": None})
    prisma.generate(str(runtime), str(client), MODEL)
    assert client.is_dir()


def test_a_runtime_without_litellm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="has no LiteLLM"):
        prisma.schema_of(str(tmp_path))


def test_an_engine_that_fits_has_no_problem(tmp_path: Path) -> None:
    engine = program(tmp_path / "engine", "#!/bin/sh\necho query-engine abc123\n")
    assert prisma.engine_problem(str(engine), "abc123") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("#!/bin/sh\necho query-engine other\n", "it is 'query-engine other', and LiteLLM's client needs abc123"),
        ("#!/bin/sh\necho cannot open libssl.so.3 >&2; exit 127\n", "does not run on this host: cannot open libssl"),
        ("not a program", "does not run on this host"),
    ],
)
def test_an_engine_that_does_not_run_or_match_is_reported(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in str(prisma.engine_problem(str(program(tmp_path / "engine", text)), "abc123"))


def test_each_lock_says_what_prisma_makes_of_the_schema() -> None:
    for name in yaml.safe_load((LOCKS / "locks.yml").read_text()):
        model = json.loads((LOCKS / f"{name}.prisma.json").read_text())
        assert len(model["engine"]) == 40
        names = {one["name"] for one in model["datamodel"]["models"]}
        assert {"LiteLLM_TeamTable", "LiteLLM_VerificationToken"} <= names
        assert "prisma==" in (LOCKS / f"{name}.txt").read_text()
