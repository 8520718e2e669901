"""The folders of the plugins: documented in docs/architecture.md, and free of cycles."""

from __future__ import annotations

import ast
import graphlib
import re
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
SIDES = ("module_utils", "plugin_utils")
OURS = "ansible_collections.inference.fleet.plugins."


def folders() -> set[str]:
    return {f"{side}/{path.name}" for side in SIDES for path in (PLUGINS / side).iterdir() if any(path.glob("*.py"))}


def imports(path: Path) -> t.Iterator[str]:
    """The folders that a file imports from, as `module_utils/core`."""
    here = ["plugins", *path.relative_to(PLUGINS).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if node.level:
            name = ".".join([*here[: -node.level], *module.split(".")])
        elif module.startswith(OURS):
            name = module.removeprefix(OURS.removesuffix("plugins."))
        else:
            continue
        parts = name.split(".")[1:]
        if parts[0] in SIDES and len(parts) > 1:
            yield "/".join(parts[:2])


def graph() -> dict[str, set[str]]:
    return {
        folder: {other for path in (PLUGINS / folder).rglob("*.py") for other in imports(path)} - {folder}
        for folder in folders()
    }


def test_no_module_stands_outside_of_a_folder() -> None:
    assert [path.name for side in SIDES for path in (PLUGINS / side).glob("*.py")] == []


def test_the_architecture_page_describes_every_folder_and_no_other() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    described = re.findall(r"^\| `((?:module|plugin)_utils/\w+)` \| \S", page, re.MULTILINE)
    assert len(described) == len(set(described))
    assert set(described) == folders()


def test_files_that_the_architecture_page_names_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    known = {path.relative_to(PLUGINS / side).as_posix() for side in SIDES for path in (PLUGINS / side).rglob("*.py")}
    subjects = {folder.split("/")[1] for folder in folders()}
    named = {name for name in re.findall(r"`(\w+/\w+\.py)`", page) if name.split("/")[0] in subjects}
    assert named
    assert named <= known


def test_hosts_never_need_what_only_the_controller_has() -> None:
    for folder, others in graph().items():
        if folder.startswith("module_utils/"):
            assert not [other for other in others if other.startswith("plugin_utils/")], folder
    for module in (PLUGINS / "modules").glob("*.py"):
        assert not [other for other in imports(module) if other.startswith("plugin_utils/")], module.name


def test_folders_have_no_cycles() -> None:
    arrows = graph()
    assert sum(map(len, arrows.values())) > len(arrows), "the imports were not read"
    graphlib.TopologicalSorter(arrows).prepare()
