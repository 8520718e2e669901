# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A runtime: the virtual environment that an engine version runs from, installed by uv from a lock with hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import locked, read_json, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import (
    is_open,
    make_directories,
    open_tree,
    readable_by_all,
)

#: Written last: a runtime without it is incomplete.
MARKER = ".complete.json"

_UNSAFE = re.compile(r"[^a-z0-9.+-]")


def runtime_id(name: str, lock: str, python: str) -> str:
    """The runtime's directory name: its name, and a hash of everything that determines its content."""
    digest = hashlib.sha256(f"{python}\n{lock}".encode()).hexdigest()[:8]
    return f"{_UNSAFE.sub('-', name.lower())}-{digest}"


@dataclasses.dataclass(frozen=True)
class RuntimeSpec:
    """A runtime to install.

    Attributes:
        name: for people: engine, version, accelerator.
        root: the directory of all runtimes.
        lock: requirements with hashes.
        python: version that the lock is for, as ``3.12``.
        uv_requirement: the requirement of uv itself, with hashes; it is installed beside the runtimes.
        environment: for uv: index, mirror, proxy, cache.
        find_links: directories with further wheels.
        min_free_bytes: refuse below this much free disk.
        compile_bytecode: whether to compile at installation; otherwise each first import does, at the engine's start.
    """

    name: str
    root: str
    lock: str
    python: str
    uv_requirement: str
    environment: dict[str, str]
    find_links: list[str]
    min_free_bytes: int
    compile_bytecode: bool

    @property
    def id(self) -> str:
        return runtime_id(self.name, self.lock, self.python)

    @property
    def path(self) -> str:
        return os.path.join(self.root, self.id)

    @property
    def pythons(self) -> str:
        """The directory of uv's interpreters, for those that the host does not have."""
        return os.path.join(os.path.dirname(self.root), "python")

    @property
    def uv(self) -> str:
        digest = hashlib.sha256(self.uv_requirement.encode()).hexdigest()[:8]
        return os.path.join(os.path.dirname(self.root), f"uv-{digest}", "bin", "uv")


def lock_path(path: str) -> str:
    """The lock that is held while a runtime is installed or removed."""
    root, name = os.path.split(path)
    return os.path.join(root, f".{name}.lock")


def is_complete(path: str) -> bool:
    """Whether a runtime is complete, its Python still exists, and the engines' user can read it."""
    return _is_whole(path) and is_open(path)


def _is_whole(path: str) -> bool:
    return read_json(os.path.join(path, MARKER)) is not None and os.path.exists(os.path.join(path, "bin", "python"))


def install(spec: RuntimeSpec) -> list[str]:
    """Install a runtime unless it is complete. Safe to repeat after any interruption, and in parallel with another run.

    Returns:
        What was done, for people.

    Raises:
        FleetError: not enough disk, no such Python, a package that is unavailable or whose hash is wrong.
    """
    make_directories(spec.root)
    with locked(lock_path(spec.path), timeout=3600), readable_by_all():
        if is_complete(spec.path):
            return []
        if _is_whole(spec.path):
            _open(spec)
            return [f"let the engines' user read {spec.path}"]
        _check_disk(spec)
        _install_uv(spec)
        actions = [f"create {spec.path} with Python {spec.python}"]
        _uv(spec, "venv", "--quiet", "--python", spec.python, "--allow-existing", "--no-project", spec.path)
        lock_file = os.path.join(spec.path, "requirements.txt")
        write_atomically(lock_file, spec.lock)
        links = [word for directory in spec.find_links for word in ("--find-links", directory)]
        python = os.path.join(spec.path, "bin", "python")
        # sync, not install: it takes the lock as it is and does not resolve it again. With bytecode it compiles what an
        # interrupted run has left uncompiled, too.
        bytecode = ["--compile-bytecode"] if spec.compile_bytecode else []
        _uv(spec, "pip", "sync", "--quiet", "--python", python, "--require-hashes", *bytecode, *links, lock_file)
        actions.append(f"install {len(re.findall(r'^[a-zA-Z0-9]', spec.lock, re.MULTILINE))} packages")
        _open(spec)
        write_atomically(os.path.join(spec.path, MARKER), json.dumps({"name": spec.name, "python": spec.python}) + "\n")
        return actions


def _open(spec: RuntimeSpec) -> None:
    """Let the engines' user read it. Files that uv links from its cache may come from a stricter umask."""
    for tree in (spec.path, spec.pythons):
        if os.path.isdir(tree):
            open_tree(tree)


def _check_disk(spec: RuntimeSpec) -> None:
    free = shutil.disk_usage(spec.root).free
    if free < spec.min_free_bytes:
        gib = 1024**3
        raise FleetError(
            f"Failed to install the runtime {spec.id}: {spec.root} has {free / gib:.1f} GiB free and it needs "
            f"{spec.min_free_bytes / gib:.1f} GiB. Free space there, or put engine_root on a larger disk."
        )


def _install_uv(spec: RuntimeSpec) -> None:
    with locked(os.path.join(spec.root, ".uv.lock"), timeout=600):
        if os.path.exists(spec.uv):
            return
        directory = os.path.dirname(os.path.dirname(spec.uv))
        requirement = os.path.join(spec.root, ".uv.txt")
        write_atomically(requirement, spec.uv_requirement)
        pip = os.path.join(directory, "bin", "pip")
        words = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement", requirement]
        for command in (["python3", "-m", "venv", directory], [pip, *words]):
            done = subprocess.run(command, env=_environment(spec), capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(directory, ignore_errors=True)
                raise FleetError(
                    f"Failed to install uv ({' '.join(command[:3])}): {(done.stderr or done.stdout).strip()[-800:]} "
                    "It comes from the package index: set index, mirror or proxy in engine_pip_environment."
                )


def _environment(spec: RuntimeSpec) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("HOME", "LANG", "PATH") if name in os.environ}
    return {
        **inherited,
        "UV_NO_CONFIG": "1",
        # The host's trusted certificates count, including those of an organisation's own mirror or proxy.
        "UV_SYSTEM_CERTS": "1",
        "UV_PYTHON_INSTALL_DIR": spec.pythons,
        **spec.environment,
    }


def _uv(spec: RuntimeSpec, *words: str) -> None:
    try:
        done = subprocess.run([spec.uv, *words], env=_environment(spec), capture_output=True, text=True, check=False)
    except OSError as error:
        raise FleetError(f"Failed to run uv at {spec.uv}: {error}. Remove its directory and run again.") from error
    if done.returncode:
        raise FleetError(_explain_uv(spec, done.stderr))


def _explain_uv(spec: RuntimeSpec, stderr: str) -> str:
    text = re.sub(r"[^\x20-\x7e]+", " ", stderr).strip()
    advice = "Its whole output is in this message; run again when the cause is gone: what was installed is kept."
    if re.search(r"No interpreter found|No Python|python-downloads", text):
        advice = (
            f"The host has no Python {spec.python} and uv could not bring one: set engine_pip_environment with "
            "UV_PYTHON_INSTALL_MIRROR, or install that Python."
        )
    elif re.search(r"hash mismatch|Hash mismatch", text):
        advice = "A downloaded package is not the one in the lock: check the mirror in engine_pip_environment."
    elif re.search(r"No solution found|no version of", text):
        advice = (
            "The index does not have a package of the lock: check index or mirror in engine_pip_environment, or add "
        )
        advice += "engine_find_links."
    elif re.search(r"dns error|Connection refused|connect|timed out|Could not connect", text):
        advice = "The package index cannot be reached: set index, mirror or proxy in engine_pip_environment."
    elif "No space left" in text:
        advice = f"The disk under {spec.root} or uv's cache is full."
    return f"Failed to install the runtime {spec.id}: {text[-1500:]} {advice}"
