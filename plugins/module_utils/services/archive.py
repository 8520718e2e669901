# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A service's program with everything of ours that it imports, in one archive that Python runs."""

from __future__ import annotations

import ast
import inspect
import io
import os
import sys
import types
import typing as t
import zipfile

_OURS = "ansible_collections.inference.fleet.plugins."
# A zip has no older moment. One moment for all, so that the same sources are the same bytes.
_MOMENT = (1980, 1, 1, 0, 0, 0)


def build_program(module: types.ModuleType, data: t.Mapping[str, str] | None = None) -> bytes:
    """The archive that runs the module's ``main()``; equal sources make equal bytes.

    Args:
        module: of ``module_utils``; one of ``plugin_utils`` only on the controller, which has its sources.
        data: text files that the program reads through its loader, by their paths in the archive.
    """
    sources = _closure(module.__name__)
    files = {f"{name.replace('.', '/')}.py": text for name, text in sources.items()}
    for path in list(files):
        parent = os.path.dirname(path)
        while parent:
            files.setdefault(f"{parent}/__init__.py", "")
            parent = os.path.dirname(parent)
    files.update(data or {})
    files["__main__.py"] = f"from {module.__name__} import main\n\nmain()\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(files):
            file.writestr(zipfile.ZipInfo(path, _MOMENT), files[path])
    return archive.getvalue()


def _closure(name: str) -> dict[str, str]:
    """The sources of a module and of everything of ours that it imports, by their full names."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found[one] = inspect.getsource(sys.modules[one])
        waiting += _imported(found[one], one)
    return found


def _imported(source: str, name: str) -> list[str]:
    """The modules of ours that a source imports: of ``from x import y`` both x and x.y may be one."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom):
            continue
        parent = ".".join(name.split(".")[: -node.level]) + "." if node.level else ""
        base = f"{parent}{node.module or ''}".rstrip(".")
        if f"{base}.".startswith(_OURS):
            modules += [one for one in (base, *(f"{base}.{alias.name}" for alias in node.names)) if _is_module(one)]
    return modules


def _is_module(name: str) -> bool:
    # An import of a module imports its packages, too. A folder has no source.
    module = sys.modules.get(name)
    return module is not None and not hasattr(module, "__path__")
