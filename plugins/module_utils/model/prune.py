# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Which snapshots may be removed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import (
    MANIFEST,
    PARTIAL,
    human_size,
    listed,
    read_document,
)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A complete or partial snapshot on the disk.

    Attributes:
        path: its directory.
        slug: of its model.
        revision: its own.
        size: bytes that its removal frees.
        completed: the moment, as ISO 8601; empty for an unfinished one.
    """

    path: str
    slug: str
    revision: str
    size: int
    completed: str

    def __str__(self) -> str:
        return f"{self.path} ({human_size(self.size)})"


def stored(roots: t.Iterable[str]) -> list[Stored]:
    """Every snapshot below the roots."""
    found = []
    for root in roots:
        for slug in listed(root):
            for name in listed(os.path.join(root, slug)):
                path = os.path.join(root, slug, name)
                manifest = read_document(os.path.join(path, MANIFEST))
                # Other data there is not ours to count or to remove.
                if not os.path.islink(path) and (
                    manifest is not None or (name.endswith(PARTIAL) and os.path.isdir(path))
                ):
                    revision = name[: -len(PARTIAL)] if name.endswith(PARTIAL) else name
                    completed = str((manifest or {}).get("completed", ""))
                    found.append(Stored(path, slug, revision, _disk_usage(path), completed))
    return found


def _disk_usage(path: str) -> int:
    total = 0
    for directory, _directories, names in os.walk(path):
        total += sum(os.lstat(os.path.join(directory, name)).st_blocks * 512 for name in names)
    return total


def unused(
    snapshots: t.Iterable[Stored], wanted: str, coming: t.Collection[str], used: t.Collection[str]
) -> list[Stored]:
    """Unused snapshots, the newest first.

    Args:
        snapshots: what is on the disk.
        wanted: the directory that is wanted now.
        coming: directories that a spec wants: they may be unfinished.
        used: real paths of directories that releases name.
    """
    idle = [
        one
        for one in snapshots
        if one.path != wanted
        and os.path.realpath(one.path) not in used
        and not (one.path.endswith(PARTIAL) and one.path[: -len(PARTIAL)] in coming)
    ]
    return sorted(idle, key=lambda one: one.completed, reverse=True)


def over_budget(idle: list[Stored], keep: int) -> list[Stored]:
    """Snapshots to remove: all unfinished unused ones, and complete unused ones beyond the newest ``keep``."""
    complete = [one for one in idle if one.completed]
    return [one for one in idle if not one.completed] + complete[keep:]


def remove(snapshot: Stored) -> None:
    """Remove a snapshot; after an interruption the rest does not look complete."""
    path = snapshot.path
    if not path.endswith(PARTIAL):
        path += PARTIAL
        shutil.rmtree(path, ignore_errors=True)
        os.rename(snapshot.path, path)
    shutil.rmtree(path)
