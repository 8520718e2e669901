"""The environment of a cell: its Python, its packages, and the collection as ansible-test needs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

from tests.matrix.cells import Cell
from tests.project import ROOT

PLACE = ROOT / ".cache" / "matrix"
UV = ROOT / ".venv" / "bin" / "uv"

#: In place of get-pip.py, which ansible-test would download from a server other than a package index.
GET_PIP = '''\
"""Install pip from the package index, with the one that comes with Python."""
import ensurepip
import os
import subprocess
import sys

ensurepip.bootstrap()
# ensurepip has set it to nothing, and the index's settings are in it.
os.environ.pop("PIP_CONFIG_FILE", None)
words = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *words]))
'''


class Missing(Exception):
    """This machine lacks what a cell needs."""


def python_candidates(version: str) -> t.Iterator[Path]:
    """The candidates for a Python on this machine."""
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield Path(on_path)
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(versions.glob(f"{version}.*/bin/python"), reverse=True)


def runs(python: Path, version: str) -> bool:
    """Whether it is this version; a pyenv shim may exist without running."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def find_python(version: str) -> Path:
    """A Python of this machine, else one that uv downloads.

    Raises:
        Missing: there is none, and uv could not get one.
    """
    for python in python_candidates(version):
        if runs(python, version):
            return python
    for words in (["find", "--no-python-downloads"], ["install"], ["find"]):
        done = subprocess.run([UV, "python", *words, version], capture_output=True, text=True, check=False)
        if words[0] == "find" and done.returncode == 0:
            return Path(done.stdout.strip())
    raise Missing(
        f"Python {version} is not on this machine (PATH, pyenv), and uv could not download it. Install it, or name "
        "other cells: script/test matrix -- CELL..."
    )


def prepare(cell: Cell) -> Path:
    """Create the cell's environment, and return the directories of its programs."""
    place = PLACE / cell.name
    python = place / "bin" / "python"
    if not (python.exists() and runs(python, cell.python)):
        found = find_python(cell.python)
        subprocess.run([UV, "venv", "--quiet", "--clear", "--python", found, place], check=True)
    locks = [ROOT / "requirements" / name for name in cell.locks]
    subprocess.run([UV, "pip", "sync", "--quiet", "--require-hashes", "--python", python, *locks], check=True)
    # The collections of the controller's package `ansible`, or, for hosts, the part of Ansible that is sent to them.
    add_to_path(python, link_collections() if cell.kind == "core" else link_module_utils())
    return place / "bin"


def add_to_path(python: Path, directory: Path) -> None:
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    (Path(packages) / "matrix.pth").write_text(f"{directory}\n", encoding="utf-8")


def controller_packages() -> Path:
    return next((ROOT / ".venv" / "lib").glob("python3.*")) / "site-packages"


def link_collections() -> Path:
    """The collections that this one depends on."""
    directory = PLACE / "collections"
    directory.mkdir(parents=True, exist_ok=True)
    link(directory / "ansible_collections", controller_packages() / "ansible_collections")
    return directory


def link_module_utils() -> Path:
    """Ansible's module_utils alone: nothing else of Ansible is on a host, or supports its Python."""
    package = PLACE / "module_utils" / "ansible"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    link(package / "module_utils", controller_packages() / "ansible" / "module_utils")
    return package.parent


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def copy_collection() -> Path:
    """The files of the checkout in a separate repository: ansible-test follows links and gets the files from git."""
    root = PLACE / "sanity"
    fleet = root / "ansible_collections" / "inference" / "fleet"
    shutil.rmtree(root, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        source, copy = ROOT / name, fleet / name
        # The link in collections/ leads back to the checkout.
        if name.startswith("collections/") or not (source.is_symlink() or source.exists()):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet"], cwd=fleet, check=True)
    subprocess.run(["git", "add", "--all"], cwd=fleet, check=True)
    for source in (controller_packages() / "ansible_collections").iterdir():
        if source.name in ("amazon", "community"):
            link(fleet.parents[1] / source.name, source)
    return fleet


def link_pythons(versions: t.Iterable[str]) -> Path:
    """The Pythons under their names: on PATH ansible-test may find a pyenv shim that does not run."""
    directory = PLACE / "pythons"
    directory.mkdir(parents=True, exist_ok=True)
    for version in versions:
        link(directory / f"python{version}", find_python(version))
    return directory


def make_home(programs: Path) -> Path:
    """A home for ansible-test, with the stand-in for get-pip.py and this user's settings of the package index."""
    home = PLACE / "home"
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for name in (".config", ".pip"):
        if (Path.home() / name).exists():
            link(home / name, Path.home() / name)
    source = next(programs.parent.glob("lib/*/site-packages/ansible_test/_internal/python_requirements.py"))
    versions = set(re.findall(r"pip=['\"]([\d.]+)['\"]", source.read_text(encoding="utf-8")))
    if not versions:
        raise Missing(f"{source} does not say which pip ansible-test installs")
    for version in versions:
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(GET_PIP, encoding="utf-8")
    return home
