"""The folders of the plugins: documented in docs/architecture.md, and free of cycles. Types: of one name each."""

from __future__ import annotations

import ast
import collections
import graphlib
import re
import typing as t
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
SIDES = ("module_utils", "plugin_utils")
OURS = "ansible_collections.inference.fleet.plugins."

#: Ansible looks for classes of these names.
OF_ANSIBLE = {"ActionModule", "CallbackModule", "FilterModule", "LookupModule", "ModuleDocFragment"}
#: Both are in files that gateways run: a new name there would restart LiteLLM on every gateway.
ON_HOSTS = {"Refusal": {"roles/litellm/files/fleet_budgets.py", "roles/litellm/files/fleet_gateway.py"}}

_CALLS_THAT_MAKE_TYPES = {"NamedTuple", "NewType", "TypedDict", "namedtuple"}
_TYPE_NAME = re.compile(r"_?(?=\w*[a-z])[A-Z][A-Za-z0-9]*")


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


def find_types(source: str) -> t.Iterator[str]:
    """The classes of a file, and the aliases of types at its top level. A type variable is no type."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value:
            targets, value = [node.target], node.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and _TYPE_NAME.fullmatch(target.id) and _is_type(value):
                yield target.id


def _is_type(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in _CALLS_THAT_MAKE_TYPES
    return isinstance(value, (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class Engine: ...", ["Engine"]),
        ("class _Memory:\n    class Part: ...", ["_Memory", "Part"]),
        ("Event = dict[str, int]", ["Event"]),
        ("Event: t.TypeAlias = int | None", ["Event"]),
        ("Http = http.client", ["Http"]),
        ("Point = t.NamedTuple('Point', [])", ["Point"]),
        ("T = t.TypeVar('T')\nValue = t.TypeVar('Value')\nLIMITS = dict[str, int]\n_kinds = dict[str, int]", []),
    ],
)
def test_types_of_a_file_are_its_classes_and_its_aliases(source: str, expected: list[str]) -> None:
    assert list(find_types(source)) == expected


def test_no_two_types_have_one_name() -> None:
    places = collections.defaultdict(set)
    for pattern in ("plugins/**/*.py", "lab/**/*.py", "roles/*/files/**/*.py"):
        for path in ROOT.glob(pattern):
            for name in find_types(path.read_text()):
                places[name].add(path.relative_to(ROOT).as_posix())
    assert places.keys() >= OF_ANSIBLE
    twice = {name: where for name, where in places.items() if len(where) > 1 and name not in OF_ANSIBLE}
    assert twice == ON_HOSTS
