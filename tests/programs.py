"""The programs that roles install on hosts, for tests to import or to run."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EDGE = ROOT / "roles" / "edge" / "files"
SHARED = ROOT / "plugins" / "module_utils"
HAPROXY_SOCKET = SHARED / "edge" / "haproxy_socket.py"


def load(program: Path, name: str = "") -> types.ModuleType:
    """A program as a module, which is not run; of its own name, or of the one that it has on hosts."""
    name = name or program.stem
    spec = importlib.util.spec_from_file_location(name, program)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # Data classes, and programs that import each other, look it up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def install(directory: Path, *files: Path) -> None:
    """Put files into one directory, as roles do."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, directory)


def install_edge(directory: Path) -> Path:
    """The edge's programs, in a directory that is made."""
    install(directory, HAPROXY_SOCKET, EDGE / "edge_servers.py", EDGE / "edge_presence.py", EDGE / "key_usage.py")
    return directory
