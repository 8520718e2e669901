"""python -m tests.matrix [--reports DIRECTORY] [CELL ...]"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.matrix import environments
from tests.matrix.cells import CELLS, TARGETS, Cell, choose
from tests.project import ROOT

#: Code that runs on hosts, with its tests.
HOST_TESTS = (
    "tests/unit/plugins/module_utils",
    "tests/unit/plugins/modules",
    "tests/unit/engine",
    "tests/unit/edge",
    "tests/unit/monitoring",
)
#: The part of it that needs boto3: key stores are used on the controller.
CONTROLLER_TESTS = ("test_api_key_errors.py", "test_secrets_manager.py", "test_store_aws.py", "test_store_server.py")

#: ruff and mypy do what pylint would. Its settings there forbid the name `_`, and subprocess outside of modules.
SKIPPED = ("--skip-test", "pylint")


def environment(*directories: Path, **more: str) -> dict[str, str]:
    """A shell in which these directories' programs come first, without Ansible's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
    # pyenv's shims include Pythons that do not run, and ansible-test takes them.
    inherited = [path for path in os.environ["PATH"].split(os.pathsep) if Path(path).name != "shims"]
    return {**kept, "PATH": os.pathsep.join([*map(str, directories), *inherited]), **more}


def check_core(cell: Cell, programs: Path, reports: Path) -> None:
    """Unit and inventory tests with this ansible-core, then its ansible-test sanity, also for the Pythons of hosts."""
    pytest(programs, reports / f"{cell.name}.xml", "tests/unit", "tests/inventory")
    home = environments.make_home(programs)
    variables = environment(programs, environments.link_pythons(TARGETS), HOME=str(home))
    command = [str(programs / "ansible-test"), "sanity", "--color", "no", "--python", "default", *SKIPPED]
    run(command, environments.copy_collection(), variables)


def check_target(cell: Cell, programs: Path, reports: Path) -> None:
    """Unit tests of the code for hosts, with this Python."""
    ignored = [f"--ignore-glob=**/{name}" for name in CONTROLLER_TESTS]
    pytest(programs, reports / f"{cell.name}.xml", *ignored, *HOST_TESTS)


def pytest(programs: Path, report: Path, *words: str) -> None:
    command = [str(programs / "python"), "-m", "pytest", "-n", "2", f"--junitxml={report}", *words]
    run(command, ROOT, environment(programs))


def run(command: list[str], directory: Path, variables: dict[str, str]) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, cwd=directory, env=variables, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix")
    parser.add_argument("--reports", type=Path, default=environments.PLACE, help="where JUnit files go")
    parser.add_argument("cells", nargs="*", help=f"of {' '.join(cell.name for cell in CELLS)}; all without any")
    arguments = parser.parse_args()
    try:
        cells = choose(arguments.cells)
        for cell in cells:
            began = time.monotonic()
            print(f"== {cell.name}", flush=True)
            check = check_core if cell.kind == "core" else check_target
            check(cell, environments.prepare(cell), arguments.reports)
            print(f"== {cell.name} passed in {time.monotonic() - began:.0f} s", flush=True)
    except (ValueError, environments.Missing) as error:
        print(f"script/test matrix: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
