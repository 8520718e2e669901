"""LiteLLM starts with its database where that answers, and without it where it does not."""

from __future__ import annotations

import types

import pytest

from tests.unit.litellm.conftest import load

GIVEN = {
    "DATABASE_URL": "postgresql://litellm:secret@10.0.0.7/litellm",
    "FLEET_PRISMA": "/opt/inference/prisma/x",
    "PYTHONPATH": "/opt/inference/instances/0/current",
    "PATH": "/usr/bin",
    "PORT": "4001",
}


@pytest.fixture
def start() -> types.ModuleType:
    return load("fleet_start")


def test_with_the_database_it_has_prismas_client(start: types.ModuleType) -> None:
    made = start.environment(GIVEN, None)
    assert made["DATABASE_URL"] == GIVEN["DATABASE_URL"]
    assert made["PYTHONPATH"] == "/opt/inference/instances/0/current:/opt/inference/prisma/x"
    assert made["PATH"] == "/opt/inference/prisma/x/bin:/usr/bin"
    assert made["FLEET_DATABASE"] == "1"
    assert made["PORT"] == "4001"


def test_without_it_litellm_knows_of_none(start: types.ModuleType) -> None:
    made = start.environment(GIVEN, "connection refused")
    assert not {"DATABASE_URL", "FLEET_PRISMA", "FLEET_DATABASE"} & set(made)
    assert made["PYTHONPATH"] == GIVEN["PYTHONPATH"]
    assert made["PATH"] == GIVEN["PATH"]


def test_a_gateway_that_never_had_one_starts_as_it_is(start: types.ModuleType) -> None:
    assert start.environment({"PATH": "/usr/bin"}, "there is none") == {"PATH": "/usr/bin"}
