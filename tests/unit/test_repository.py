"""Consistency between files of this repository."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))


def load(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text())


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role: str) -> None:
    defaults = load(ROOT / "roles" / role / "defaults" / "main.yml") or {}
    specs = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    documented: dict[str, t.Any] = {}
    for entry, spec in specs.items():
        for name, option in spec.get("options", {}).items():
            assert option.get("description"), f"{role}/{entry}: {name} has no description"
            if not option.get("required"):
                assert name in defaults, f"{role}/{entry}: {name} is in argument_specs but not in defaults"
                # A template can be the documented default only of a string: antsibull-docs converts the others.
                is_template = "{{" in str(defaults[name])
                if is_template and option["type"] in ("bool", "dict", "float", "int"):
                    assert "default" not in option, f"{role}/{entry}: {name} has a template for a default"
                elif not is_template or option["type"] in ("str", "path"):
                    assert option.get("default") == defaults[name], f"{role}/{entry}: the defaults of {name} differ"
            documented[name] = option
    assert set(defaults) <= set(documented), f"{role}: not in argument_specs: {set(defaults) - set(documented)}"


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_a_role_has_its_prefix(role: str) -> None:
    for kind, prefix in (("defaults", f"{role}_"), ("vars", f"__{role}_")):
        path = ROOT / "roles" / role / kind / "main.yml"
        if path.exists():
            assert [name for name in load(path) or {} if not name.startswith(prefix)] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_a_spec(role: str) -> None:
    specs = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    included = set()
    for path in [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("molecule/**/*.yml")]:
        text = path.read_text()
        for match in re.finditer(rf"name: inference\.fleet\.{role}\n\s+tasks_from: (\w+)", text):
            included.add(match[1])
    assert included <= set(specs)


@functools.cache
def converged_roles() -> set[str]:
    """The roles that a molecule scenario includes: by itself, by its playbooks, or by a role that includes another."""
    texts = [path.read_text() for path in ROOT.glob("molecule/*/converge.yml")]
    if any("site.yml" in text for text in texts):
        texts += [path.read_text() for path in (ROOT / "playbooks").glob("tasks/*.yml")]
        texts.append((ROOT / "playbooks" / "site.yml").read_text())
    found: set[str] = set()
    while texts:
        named = {role for text in texts for role in re.findall(r"(?:name|role): inference\.fleet\.(\w+)\b", text)}
        new = (named & set(ROLES)) - found
        found |= new
        texts = [path.read_text() for role in new for path in (ROOT / "roles" / role / "tasks").glob("*.yml")]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_a_readme_and_a_scenario(role: str) -> None:
    assert (ROOT / "roles" / role / "README.md").exists()
    assert role in converged_roles(), f"no molecule scenario converges role {role}"


def test_the_action_group_lists_every_module() -> None:
    assert load(ROOT / "meta" / "runtime.yml")["action_groups"]["fleet"] == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_unit_test(module: str) -> None:
    """Where the module documents an action plugin, that of the action."""
    assert any((ROOT / f"tests/unit/plugins/{kind}/test_{module}.py").exists() for kind in ("modules", "action"))


def test_modules_on_hosts_use_the_standard_library_only() -> None:
    foreign = set()
    for path in [*ROOT.glob("plugins/modules/*.py"), *ROOT.glob("plugins/module_utils/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            # A relative import is ours.
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                ours = name.startswith(("ansible.module_utils", "ansible_collections.inference.fleet."))
                if not ours and name.split(".")[0] not in sys.stdlib_module_names:
                    foreign.add(f"{path.name}: {name}")
    # Code that needs a database runs with the Python of LiteLLM's runtime. On hosts, the
    # modules beside fetch.py have these names.
    assert foreign == {"postgresql.py: psycopg", "fetch.py: model_ranges", "fetch.py: model_workers"}


def test_no_file_names_a_path_of_one_machine() -> None:
    words = re.compile(r"(?<![\w.])/(?:work|root)/\w")
    found = []
    for path in tracked():
        if path == Path(__file__) or path.suffix in {".safetensors", ".png"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if words.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_every_lock_has_hashes_and_no_addresses() -> None:
    for path in [*ROOT.glob("requirements/*.txt"), *ROOT.glob("roles/*/files/locks/*.txt")]:
        text = path.read_text()
        assert "://" not in text, path
        requirements = re.split(r"\n(?=[a-zA-Z0-9])", text)
        assert all("--hash=sha256:" in requirement for requirement in requirements if requirement.strip()), path


@pytest.mark.parametrize("language", ["", ".zh-CN"])
def test_documentation_names_every_playbook_role_and_module(language: str) -> None:
    playbooks = [path.name for path in ROOT.glob("playbooks/*.yml")]
    for page, names in ((f"README{language}.md", playbooks), (f"docs/reference{language}.md", [*ROLES, *MODULES])):
        text = (ROOT / page).read_text()
        assert [name for name in names if name not in text] == [], page


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_a_readme_is_short(readme: str) -> None:
    assert len((ROOT / readme).read_text().splitlines()) <= 250


def test_links_between_pages_lead_to_files_and_headings() -> None:
    broken = []
    for page in (path for path in tracked() if path.suffix == ".md"):
        for target in re.findall(r"(?<!`)\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_driver_that_is_demanded_is_the_one_that_the_locks_need() -> None:
    locks = [lock for path in ROOT.glob("roles/*/files/locks/locks.yml") for lock in load(path).values()]
    needed = max(int(lock["min_driver"]) for lock in locks if "min_driver" in lock)
    assert int(load(ROOT / "roles" / "gpu_driver" / "defaults" / "main.yml")["gpu_driver_min_version"]) == needed


def test_every_scenario_begins_by_removing_what_a_killed_run_left() -> None:
    for path in [ROOT / ".config" / "molecule" / "config.yml", *ROOT.glob("molecule/*/molecule.yml")]:
        own = (yaml.safe_load(path.read_text()) or {}).get("scenario", {}).get("test_sequence")
        assert own is None or own[0] == "destroy", path


def test_what_roles_write_on_hosts_states_owner_group_and_mode() -> None:
    missing = []
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        for task in tasks_of(yaml.safe_load(path.read_text()) or []):
            if task.get("delegate_to") == "localhost":
                continue
            for name in ("assemble", "blockinfile", "copy", "file", "get_url", "lineinfile", "template", "unarchive"):
                options = task.get(f"ansible.builtin.{name}")
                if options and options.get("state") not in ("absent", "link"):
                    missing += [
                        (path.name, task["name"], option)
                        for option in ("owner", "group", "mode")
                        if option not in options
                    ]
    assert missing == []


def tasks_of(tasks: list[dict[str, t.Any]]) -> t.Iterator[dict[str, t.Any]]:
    """The tasks of a file, including those of its blocks."""
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_of(task.get(part, []))


def test_every_user_of_a_role_has_a_group_of_its_own() -> None:
    users = [
        task["ansible.builtin.user"]
        for path in ROOT.glob("roles/*/tasks/*.yml")
        for task in tasks_of(yaml.safe_load(path.read_text()) or [])
        if "ansible.builtin.user" in task
    ]
    assert users
    assert all(user.get("group") == user["name"] for user in users)


def test_no_task_that_runs_once_is_to_ignore_an_unreachable_host() -> None:
    """Ansible ends the play for all hosts where a task with run_once finds one unreachable, ignored or not."""
    paths = [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/tasks/*.yml")]
    ignoring = [
        (str(path.relative_to(ROOT)), task)
        for path in paths
        for task in tasks_of(yaml.safe_load(path.read_text()) or [])
        if task.get("ignore_unreachable")
    ]
    assert ignoring
    assert [(path, task["name"]) for path, task in ignoring if "run_once" in task] == []


def test_nothing_asks_our_own_hosts_through_a_proxy_of_the_environment() -> None:
    """urllib and Ansible's uri use any proxy that they find; http.client and open_directly() use none."""
    opening = re.compile(r"\burlopen\(|\brequests\.(get|post|request|Session)\(")
    sources = [path for path in tracked() if path.suffix == ".py" and path != Path(__file__)]
    assert [str(path) for path in sources if opening.search(path.read_text())] == []
    tasks = re.compile(r"^( +)ansible\.builtin\.uri:\n((?:\1 +.*\n)+)", re.MULTILINE)
    texts = {path: path.read_text() for path in tracked() if path.suffix == ".yml"}
    asked = [(path, task[2]) for path, text in texts.items() for task in tasks.finditer(text)]
    assert asked
    assert [str(path) for path, options in asked if "use_proxy: false" not in options] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("plugins/modules/*.py")), ids=lambda path: path.stem)
def test_documentation_of_modules_is_yaml(path: Path) -> None:
    documented = {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in ("DOCUMENTATION", "EXAMPLES", "RETURN")
    }
    assert set(documented) == {"DOCUMENTATION", "EXAMPLES", "RETURN"}
    for name, text in documented.items():
        assert isinstance(yaml.safe_load(text), (dict, list, type(None))), name


def test_the_directory_of_the_engines_is_written_down_once() -> None:
    """Python has it in core/paths.py, role engine as the default of engine_root. A standalone program on a host can use
    neither, and some tasks need the path without that role."""
    code = {
        path.name
        for path in ROOT.glob("plugins/**/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and str(node.value).startswith("/opt/inference")
    }
    assert code == {"paths.py", "fetch.py"}
    settings = [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("playbooks/**/*.yml")]
    named = {str(path.relative_to(ROOT)): path.read_text().count("/opt/inference") for path in settings}
    assert {path: count for path, count in named.items() if count} == {
        "playbooks/check_secrets.yml": 1,
        "roles/engine/defaults/main.yml": 1,
        "roles/engine/meta/argument_specs.yml": 1,
        "roles/preflight/defaults/main.yml": 1,
        "roles/preflight/meta/argument_specs.yml": 1,
    }


def test_a_receipt_notes_every_package_that_roles_install() -> None:
    engine = load(ROOT / "roles/engine/vars/main.yml")
    installed = {*engine["__engine_packages_common"], "haproxy", "python3-venv"}
    installed.update(*engine["__engine_packages_accelerator"].values())
    assert set(load(ROOT / "roles/receipt/defaults/main.yml")["receipt_packages"]) == installed


def test_tests_run_every_example() -> None:
    """The end-to-end test most of them, and part ``long`` those whose runtimes it installs."""
    run: list[str] = []
    for path in ("tests/e2e/test_fleet.py", "tests/integration/clients/test_examples.py"):
        (found,) = (
            node.value
            for node in ast.parse((ROOT / path).read_text()).body
            if isinstance(node, ast.AnnAssign) and node.value and ast.unparse(node.target) == "EXAMPLES"
        )
        run += ast.literal_eval(found)
    assert sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_file()) == sorted(run)


def test_the_guides_name_every_example() -> None:
    examples = [path.name for path in (ROOT / "examples").iterdir() if path.is_file()]
    for page in ("guide.md", "guide.zh-CN.md"):
        text = (ROOT / "docs" / page).read_text()
        assert [name for name in examples if f"](../examples/{name})" not in text] == [], page


def test_both_pages_on_clients_say_the_same_of_applications() -> None:
    """The settings in their blocks, but for comments, and the sources of what they say."""
    settings: set[tuple[str, ...]] = set()
    sources: set[tuple[str, ...]] = set()
    for name, heading in (("clients.md", "## Applications"), ("clients.zh-CN.md", "## 应用")):
        text = (ROOT / "docs" / name).read_text().partition(heading)[2]
        blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        assert blocks
        settings.add(tuple(re.sub(r" +#.*", "", block) for _language, block in blocks))
        sources.add(tuple(sorted(re.findall(r"https://[^)\s]+(?=\))", text))))
        assert all(yaml.safe_load(block) for language, block in blocks if language == "yaml")
    assert len(settings) == len(sources) == 1
