# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout's journal: its events, one JSON object a line, append-only.

Many processes write it at once (Ansible runs each host's task in its own process) and any of them may be killed, so a
line is one write to an append-only descriptor.
"""

from __future__ import annotations

import json
import os
import time
import typing as t

Event = dict[str, t.Any]

#: The file in a rollout's directory.
NAME = "journal.jsonl"
#: The event that parse() returns for an unreadable line.
BROKEN_LINE = "broken_line"


def append(path: str, event: str, **fields: t.Any) -> None:
    """Add an event, and sync it to the disk.

    Args:
        path: the journal.
        event: its kind.
        fields: its data; values that JSON does not support become text.

    Raises:
        OSError: it cannot be written.
    """
    line = json.dumps({"at": round(time.time(), 3), "event": event, **fields}, default=str) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # A killed controller may have left half a line.
        if _ends_within_a_line(path):
            line = "\n" + line
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def note(path: str, event: str, **fields: t.Any) -> list[str]:
    """Add an event where there is a journal; return a warning where that fails.

    The change of a host continues: a full disk of the controller must not leave it half changed.
    """
    try:
        if path:
            append(path, event, **fields)
    except OSError as error:
        return [f"The journal {path} cannot be written: {error.strerror}."]
    return []


def _ends_within_a_line(path: str) -> bool:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"


def size(path: str) -> int:
    """Bytes written so far; 0 where there is no journal yet."""
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def read(path: str) -> list[Event]:
    """The events so far, oldest first; half-written lines are left out."""
    try:
        # Bytes: no other character than the line feed ends a line.
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            events = parse(file.read())
    except FileNotFoundError:
        return []
    return [event for event in events if event["event"] != BROKEN_LINE]


def parse(text: str) -> list[Event]:
    """The events of a journal, oldest first. Pure.

    A half-written last line is left out. Any other unreadable one becomes an event ``broken_line`` with its number.
    """
    lines = text.split("\n")
    events: list[Event] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events.append(event)
        elif number < len(lines):
            events.append({"event": BROKEN_LINE, "line": number})
    return events
