"""The arguments of roles from the result of fleet_facts."""

from __future__ import annotations

import dataclasses
import re
import typing as t
from pathlib import Path

import yaml
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import Instance
from ansible_collections.inference.fleet.plugins.modules import fleet_facts
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.facts import HostFacts, HostPlan

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = "vars/arguments.yml"
_FACT = re.compile(r"{{ fleet_host\.(\w+)( \| mandatory\(fleet_host\.problem\))? }}")


def load(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_a_playbook_that_gives_arguments_has_the_facts_worked_out() -> None:
    for path in (ROOT / "playbooks").glob("*.yml"):
        begin, *plays = load(path)
        gives = any(ARGUMENTS in play.get("vars_files", []) for play in plays)
        assert ("begin_facts" in begin["vars"]) == gives, path.name


def test_arguments_are_documented_facts_and_fail_with_the_problem_where_one_is_missing() -> None:
    documented = yaml.safe_load(fleet_facts.RETURN)["hosts"]["contains"]
    named = {
        match[1]: bool(match[2])
        for value in load(ROOT / "playbooks" / ARGUMENTS).values()
        for match in _FACT.finditer(value)
    }
    assert len(named) > 8
    for name, is_guarded in named.items():
        assert is_guarded == (documented[name]["returned"] != "always"), name


def test_the_module_documents_what_the_facts_have() -> None:
    documented = yaml.safe_load(fleet_facts.RETURN)["hosts"]["contains"]
    own = {field.name for kind in (HostFacts, HostPlan) for field in dataclasses.fields(kind)} - {"plan"}
    assert set(documented) == own
    instance = Instance(0, "vllm", (0,), 8000).as_dict()
    assert set(documented["instances"]["contains"]) == set(instance)


def test_roles_get_arguments_and_read_no_facts_of_the_fleet() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "roles").rglob("*.[jy]*") if path.is_file()}
    assert texts
    for path, text in texts.items():
        assert "fleet_host." not in text, path
        assert "fleet_facts." not in text.replace("inference.fleet.fleet_facts", ""), path
