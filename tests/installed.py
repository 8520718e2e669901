"""The collection as a user has it: built, installed into an empty path, and run from the user's own directory."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLEET = Path("collections/ansible_collections/inference/fleet")
#: The one of docs/install.md, without YAML output of failures.
CONFIGURATION = """\
[defaults]
inventory = hosts
collections_path = collections
[ssh_connection]
pipelining = true
"""


def galaxy(*words: str, directory: Path) -> None:
    """Run ansible-galaxy, without the checkout's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    subprocess.run(
        [Path(sys.executable).parent / "ansible-galaxy", "collection", *words], cwd=directory, env=kept, check=True
    )


def build(directory: Path) -> Path:
    """Build the artifact, whatever else is in the directory."""
    galaxy("build", "--force", "--output-path", str(directory), str(ROOT), directory=directory)
    return max(directory.glob("inference-fleet-*.tar.gz"), key=lambda path: path.stat().st_mtime)


def files(artifact: Path) -> set[str]:
    with tarfile.open(artifact) as archive:
        return {member.name for member in archive.getmembers() if not member.isdir()}


def install(artifact: Path, directory: Path) -> None:
    """Install it into a user's directory, which gets a configuration but no inventory.

    The collections that it depends on are those of the controller's environment.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ansible.cfg").write_text(CONFIGURATION, encoding="utf-8")
    galaxy("install", "--offline", "--no-deps", "-p", "collections", str(artifact), directory=directory)


if __name__ == "__main__":
    # For Molecule: python -m tests.installed DIRECTORY
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    install(build(place), place)
