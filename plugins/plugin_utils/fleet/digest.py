# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A digest of everything that determines a host's wanted state."""

from __future__ import annotations

import hashlib
import json
import os
import typing as t
from pathlib import Path

#: This collection.
COLLECTION = Path(__file__).absolute().parents[3]

# Settings of a run, not of a host; and what EC2 says of the instance. What counts of that has a name of its own
# (fleet_instance_type, …).
_NOT_OF_THE_HOST = ("ansible_", "aws_", "gate_", "join_", "leave_", "rollout_", "scaling_", "tune_")
_MAGIC = frozenset(
    (
        # A host that joins is as it will be as a member.
        "fleet_admit",
        "fleet_state",
        "fleet_state_tag",
        "group_names",
        "groups",
        "hostvars",
        "inventory_dir",
        "inventory_file",
        "inventory_hostname_short",
        "omit",
        "playbook_dir",
        "vars",
    )
)
# A weight file on the controller is not read for this; its size and time count.
_READ_BYTES = 16 * 1024 * 1024
_CODE = ("playbooks", "plugins", "roles")


def digest_of(*parts: t.Any) -> str:
    """The digest of JSON values; others count by their text."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def own_variables(raw: t.Mapping[str, t.Any], facts: t.Container[str]) -> list[str]:
    """The names of a host's variables that determine its wanted state.

    Args:
        raw: its unrendered variables.
        facts: the names of facts and registered variables of this run.
    """
    return sorted(
        name for name in raw if name not in _MAGIC and name not in facts and not name.startswith(_NOT_OF_THE_HOST)
    )


def is_template(value: t.Any) -> bool:
    """Whether a value, or one within it, must be rendered."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, t.Mapping):
        return any(is_template(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_template(item) for item in value)
    return value is not None and not isinstance(value, (bool, int, float))


def files_in(value: t.Any) -> t.Iterator[tuple[str, str]]:
    """The files on the controller that a value names, with their content."""
    if isinstance(value, str):
        # A long text is not a path, and no path has a line break.
        path = os.path.expanduser(value) if "/" in value and len(value) < 4096 and "\n" not in value else ""
        if path and os.path.isfile(path):
            yield path, file_digest(path)
    elif isinstance(value, t.Mapping):
        for item in value.values():
            yield from files_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from files_in(item)


def files_of(name: str, value: t.Any) -> t.Iterator[tuple[str, str]]:
    """The files on the controller behind a variable: those that its value names, or those in its directory."""
    yield from files_in(value)
    if name.endswith("_dir") and isinstance(value, str) and os.path.isdir(os.path.expanduser(value)):
        for entry in sorted(os.scandir(os.path.expanduser(value)), key=lambda one: one.name):
            if entry.is_file():
                yield entry.name, file_digest(entry.path)


def file_digest(path: str) -> str:
    """The content of a file; of a large one its size and time."""
    status = os.stat(path)
    if status.st_size > _READ_BYTES:
        return f"{status.st_size} {status.st_mtime_ns}"
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        # An unreadable file is reported by its user.
        return error.strerror or "unreadable"


def collection_digest(collection: Path) -> str:
    """The digest of the collection's own code."""
    digest = hashlib.sha256()
    for part in _CODE:
        for path in sorted((collection / part).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(collection)}\0{file_digest(str(path))}\n".encode())
    return digest.hexdigest()
