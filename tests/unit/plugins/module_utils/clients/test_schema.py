"""The rows themselves, and that everything else follows from them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import subprocess
import sys
import types
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.filter.keys import key_rows
from ansible_collections.inference.fleet.plugins.module_utils.clients import limits, schema
from ansible_collections.inference.fleet.plugins.module_utils.clients.schema import Enforcer, Kind, Limit, LiteLLM
from ansible_collections.inference.fleet.plugins.module_utils.gateway import litellm_keys
from ansible_collections.inference.fleet.plugins.module_utils.keys import tags
from ansible_collections.inference.fleet.plugins.modules import api_key, edge_keys
from ansible_collections.inference.fleet.plugins.plugin_utils.variables import checks

from tests import clients_table
from tests.unit.conftest import RunModule
from tests.unit.litellm.conftest import SCHEMA, load
from tests.unit.plugins.module_utils.keys.key_stores import client

ROOT = Path(__file__).resolve().parents[5]
NAMES = [row.name for row in schema.LIMITS]


def test_each_row_has_a_name_and_a_place_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES)
    fields = [row.edge_field for row in schema.LIMITS if row.edge_field]
    assert sorted(fields) == list(range(1, len(fields) + 1))
    for names in ("caller", "team", "team_column", "key_column"):
        used = [getattr(row.litellm, names) for row in schema.LIMITS if getattr(row.litellm, names)]
        assert len(set(used)) == len(used), names


def test_each_row_has_a_field_first_those_that_every_edge_enforces() -> None:
    for row in schema.LIMITS:
        assert row.edge_field, row.name
        assert (row.edge_field > 4) == (row.enforcer is Enforcer.GATEWAY), row.name
        assert not row.period_of or row.period_of in NAMES


def test_each_example_is_one() -> None:
    for row in schema.LIMITS:
        assert limits.check({"name": "a", row.name: yaml.safe_load(row.example)}).get(row.name), row.name


def test_gateways_can_load_the_file_without_the_collection() -> None:
    # The standard library alone: no packages of this environment, no path of these tests.
    subprocess.run([sys.executable, "-I", "-S", str(SCHEMA)], check=True)
    copied = yaml.safe_load((ROOT / "roles/litellm/vars/main.yml").read_text())["__litellm_files"]
    assert "__litellm_shared ~ '/clients/schema.py'" in copied["client_schema.py"]


def test_the_table_in_the_documentation_has_the_rows() -> None:
    text = clients_table.PAGE.read_text()
    assert clients_table.written(text) == text, "run: python -m tests.clients_table"


def test_variables_are_validated_by_the_same_options() -> None:
    taken = checks.FLEET["fleet_clients"]["options"]
    assert {**taken, "name": None} == {**limits.spec(), "name": None}


def test_no_other_file_lists_the_limits() -> None:
    """A row is enough: a copy of the rows elsewhere would need the same change."""
    listed = re.compile(r"\b(?:max_concurrent|tokens_per_minute|budget_period)\b")
    files = [path for part in ("plugins", "roles", "playbooks") for path in (ROOT / part).rglob("*")]
    found = {
        str(path.relative_to(ROOT))
        for path in files
        if path.suffix in (".py", ".yml", ".j2") and listed.search(path.read_text())
    }
    # The others enforce some of them.
    assert found == {
        "plugins/module_utils/accountant/bounds.py",
        "plugins/module_utils/clients/schema.py",
        "roles/edge/templates/haproxy.cfg.j2",
    }


#: A limit that the collection does not have, for the tests below.
NEW = Limit(
    "images_per_minute",
    Kind.COUNT,
    Enforcer.BOTH,
    "The most images a minute.",
    "30",
    unit="images/min",
    edge_field=8,
    litellm=LiteLLM("ipm_limit", "team_ipm_limit", "ipm_limit"),
    since=2,
)


@pytest.fixture
def one_more(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[types.ModuleType]:
    """A collection with one more row, as if from its start; the module that gateways load."""
    modules = [litellm_keys, checks, api_key, edge_keys]
    before = [dict(vars(module)) for module in modules]
    monkeypatch.setattr(schema, "LIMITS", (*schema.LIMITS, NEW))
    for module in modules:
        importlib.reload(module)
    for name in ("client_schema", "fleet_clients"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(load("client_schema", SCHEMA), "LIMITS", schema.LIMITS)
    yield load("fleet_clients")
    for module, content in zip(modules, before):
        vars(module).update(content)


def test_one_row_is_all_that_one_more_limit_needs(
    one_more: types.ModuleType, run_module: RunModule, tmp_path: Path
) -> None:
    store = {"path": str(tmp_path / "keys.json"), "state": "present"}

    # Options and validation.
    wrong = {"name": "a", NEW.name: 0}
    assert (
        f"{NEW.name} of client a is 0. Give a whole number of 1"
        in run_module("api_key", {**store, "clients": [wrong]})["msg"]
    )
    problem = checks.value_problem("fleet_clients", [wrong], checks.FLEET["fleet_clients"])
    assert problem.startswith(f"{NEW.name} of client a is 0.")

    # The key store, what it shows, and its tags.
    kept = run_module("api_key", {**store, "clients": [{"name": "a", NEW.name: "30"}]})
    assert (kept["clients"][0][NEW.name], kept["hashes"][0][NEW.name]) == (30, 30)
    document = json.loads((tmp_path / "keys.json").read_text())
    assert (document["version"], document["clients"]["a"][NEW.name]) == (2, 30)
    whole = dataclasses.replace(client(), limits=limits.Limits({NEW.name: 30}))
    written = tags.of("a", whole)
    assert written[f"inference-fleet:{NEW.name}"] == "30"
    assert tags.client("a", written, whole.current, None, None).limits == whole.limits
    changed = run_module("api_key", {**store, "clients": [{"name": "a", NEW.name: 40}]}, diff=True)
    assert changed["actions"] == [f"change {NEW.name} of a"]
    assert f"{NEW.name}=40" in changed["diff"]["after"]

    # The edge, the gateways' file, and what a gateway makes of it.
    names = ("path", "origin_path", "engine_key_map", "hold_map", "presence_path", "config_path", "socket")
    places = {name: str(tmp_path / name) for name in names}
    clients_file = tmp_path / "clients.json"
    clients_file.touch()
    taken = run_module(
        "edge_keys",
        {**places, "gateway_clients": str(clients_file), "keys": changed["hashes"], "origin": changed["store"]},
    )
    assert taken["actions"][0].endswith("(40 images/min)")
    assert (tmp_path / "path").read_text().endswith("v=2|a|0|0|0||0|0|0|40\n")
    known = next(iter(one_more.parse(json.loads(clients_file.read_text())).values()))
    assert known.counted_by_litellm(for_team=False)["ipm_limit"] == 40
    assert known.counted_by_litellm(for_team=True)["team_ipm_limit"] == 40

    # LiteLLM's database, the operators' table and the documentation.
    teams, _keys = litellm_keys.wanted(changed["hashes"])
    assert teams["fleet-a"]["ipm_limit"] == 40
    assert "ipm_limit" in litellm_keys.TEAMS.columns
    [row] = key_rows({**changed, "clients": [{**changed["clients"][0], "due": None}]}, {})
    assert row["limits"] == "40 images/min"
    page = clients_table.written(clients_table.PAGE.read_text())
    assert f"| `{NEW.name}` | a whole number, 1 or more | `30` | The most images a minute. |" in page


def test_a_collection_without_the_row_refuses_the_store_and_keeps_it(
    run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    store = {"path": str(path), "state": "present"}
    assert run_module("api_key", {**store, "clients": [{"name": "a"}]})["changed"]
    assert json.loads(path.read_text())["version"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(schema, "LIMITS", (*schema.LIMITS, NEW))
        importlib.reload(api_key)
        # A store of before is read, and gets the version only with the limit.
        assert not run_module("api_key", {**store, "clients": [{"name": "a"}]})["changed"]
        assert run_module("api_key", {**store, "clients": [{"name": "a", NEW.name: 30}]})["changed"]
    importlib.reload(api_key)
    before = path.read_text()
    assert json.loads(before)["version"] == 2
    message = run_module("api_key", {**store, "clients": [{"name": "a"}]})["msg"]
    assert f"The key store {path} has version 2; this collection knows version 1. Nothing was changed." in message
    assert path.read_text() == before


def test_a_gateway_takes_known_limits_and_logs_the_others(
    one_more: types.ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    document = {"version": 1, "keys": {"h": "a"}, "clients": {"a": {"budget": 5.0, NEW.name: 30}}}
    monkeypatch.setattr(one_more.client_schema, "LIMITS", schema.LIMITS[:-1])
    assert one_more.parse(document)["h"].budget == 5.0
    assert f"This gateway does not enforce {NEW.name} yet" in caplog.text
