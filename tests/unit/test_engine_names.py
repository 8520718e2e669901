"""Engines' names appear only in their own modules and roles: nothing else depends on the engine."""

from __future__ import annotations

import ast
import fnmatch
import re
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, GATEWAY, KINDS

ROOT = Path(__file__).resolve().parents[2]
#: The documentation of a module, whose examples name an engine.
DOCUMENTATION = ("DOCUMENTATION", "EXAMPLES", "RETURN")

#: Files that name an engine or what gateways run, each with the reason. Patterns are of fnmatch.
EXCEPTIONS = {
    "plugins/filter/*.yml": "documentation, with examples",
    "playbooks/*.yml": "comments with commands to copy; and the gateways' own role is included by its name",
    "plugins/modules/litellm_*.py": "modules of the gateways' role, about its own database",
    "plugins/modules/prisma_client.py": "a module of the gateways' role, about its own database",
    "plugins/modules/gateway_store_info.py": "the name of a variable of the gateways' role",
    "plugins/module_utils/clients/schema.py": "a limit's names in what enforces it, which is one row",
    "plugins/module_utils/gateway/*.py": "what the gateways' role keeps in its stores, and the names of its variables",
    "plugins/plugin_utils/gateway/*.py": "the configuration of the gateways' role, and the names of its variables",
    "plugins/plugin_utils/monitoring/gateways.py": "the metrics of what gateways run",
    "plugins/plugin_utils/fleet/facts.py": "the names of the gateways' variables",
    "roles/gateway/*": "what may serve a gateway's clients, and the files of the gateways' role",
    "roles/gateway_store/*": "the stores of the gateways' role",
    "roles/edge/templates/haproxy.cfg.j2": "headers of what gateways run; comments are rendered, too",
    "roles/edge/vars/main.yml": "a comment",
    "roles/edge/files/one_model.lua": "a comment",
    "roles/gate/*": "the description of a variable",
    "roles/engine/files/request_guard.py": "a comment; the file is part of each release, and a change restarts engines",
    "roles/*/README.md": "documentation",
}
NAME = re.compile("|".join(KINDS), re.IGNORECASE)
ENGINE = re.compile("|".join(ENGINES), re.IGNORECASE)
#: Files in which also the names of engines proper may stand; the others are about what gateways run.
OF_ENGINES = (
    "plugins/filter/*.yml",
    "playbooks/*.yml",
    "roles/edge/templates/haproxy.cfg.j2",
    "roles/engine/files/request_guard.py",
    "roles/*/README.md",
)


def searched() -> t.Iterator[Path]:
    own = {ROOT / "roles" / name for name in KINDS} | {ROOT / "plugins/module_utils/engines"}
    for folder in ("plugins", "roles", "playbooks"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yml", ".j2", ".md", ".lua", ".service", ".conf") and not own & set(
                path.parents
            ):
                yield path


def lines_with(pattern: re.Pattern[str], path: Path) -> list[str]:
    """The lines of a file that match, without a module's documentation."""
    text = path.read_text()
    skipped: set[int] = set()
    if path.suffix == ".py":
        for node in ast.parse(text).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id in DOCUMENTATION for target in targets):
                skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line) and number not in skipped
    ]


def excepted(path: Path, patterns: t.Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(path.relative_to(ROOT).as_posix(), pattern) for pattern in patterns)


def test_no_file_names_an_engine_that_is_not_its_own() -> None:
    found = [line for path in searched() if not excepted(path, EXCEPTIONS) for line in lines_with(NAME, path)]
    assert found == []


def test_what_is_about_gateways_names_no_engine() -> None:
    found = [line for path in searched() if not excepted(path, OF_ENGINES) for line in lines_with(ENGINE, path)]
    assert found == []


@pytest.mark.parametrize("pattern", EXCEPTIONS)
def test_every_exception_is_needed(pattern: str) -> None:
    assert any(excepted(path, [pattern]) and lines_with(NAME, path) for path in searched())


def test_nothing_compares_an_engines_name() -> None:
    """A name may be used for a look-up, or to recognise a gateway's kind; it decides nothing else."""
    compared = []
    for path in searched():
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                sides = [side.value for side in (node.left, *node.comparators) if isinstance(side, ast.Constant)]
                compared += [f"{path.relative_to(ROOT)}:{node.lineno}" for side in sides if side in KINDS]
    assert compared == []
    assert GATEWAY not in ENGINES


def test_the_search_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    module = tmp_path / "plugins" / "modules" / "some.py"
    module.parent.mkdir(parents=True)
    for folder in ("roles", "playbooks"):
        (tmp_path / folder).mkdir()
    module.write_text('EXAMPLES = """\nengine: vllm\n"""\n\nif engine == "vllm":\n    pass\n')
    with pytest.raises(AssertionError, match=r"some\.py:5"):
        test_no_file_names_an_engine_that_is_not_its_own()
    with pytest.raises(AssertionError, match=r"some\.py:5"):
        test_nothing_compares_an_engines_name()
