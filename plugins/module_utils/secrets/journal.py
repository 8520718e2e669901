# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Searches systemd's journal for known keys: in all fields of each entry, not only the message."""

from __future__ import annotations

import collections
import functools
import os
import subprocess
import tempfile
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.secrets.scan import (
    CHUNK,
    JOURNAL,
    KEY_PREFIX,
    KnownKey,
    Search,
)

_WHOLE = "the journal"
_UNIT, _PROGRAM = b"_SYSTEMD_UNIT=", b"SYSLOG_IDENTIFIER="
# "-- No entries --"
_REMARK = b"-- "
_SHOWN_ERRORS = 300


def journal_command(since: str | None = None) -> list[str]:
    """The command that writes all journals of the machine, with every field in full, in the format "export"."""
    command = ["journalctl", "--output=export", "--all", "--merge", "--namespace=*", "--no-pager"]
    return [*command, f"--since={since}"] if since else command


def search_journal(search: Search, command: t.Sequence[str]) -> None:
    """Search the journal.

    Args:
        search: the keys to look for; collects the findings.
        command: from journal_command().
    """
    with tempfile.TemporaryFile() as errors:
        try:
            with subprocess.Popen(
                command,
                bufsize=CHUNK,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "LC_ALL": "C"},
            ) as process:
                output = t.cast(t.BinaryIO, process.stdout)
                for where, counts in _Export(search, output).run().items():
                    search.found(JOURNAL, where, counts)
        except OSError as error:
            search.missed(JOURNAL, _WHOLE, f"{command[0]} cannot be run ({error.strerror})")
            return
        errors.seek(0)
        said = " ".join(errors.read(CHUNK).decode(errors="replace").split())[:_SHOWN_ERRORS]
    # It reports damaged files, and those of other users, and still exits with 0.
    if process.returncode or said:
        search.missed(JOURNAL, _WHOLE, f"{command[0]} ended with {process.returncode}: {said or 'no message'}")


class _Export:
    """Reads the format "export".

    A field is a line ``NAME=text``; or a line ``NAME``, the data's length in eight bytes with the lowest first, and the
    data, which may be hundreds of MB. A blank line ends an entry.
    """

    def __init__(self, search: Search, stream: t.BinaryIO) -> None:
        self._search = search
        self._stream = stream
        self._size = 0
        self._matcher = search.matcher()
        self._unit = self._program = b""
        self._found: dict[str, collections.Counter[KnownKey]] = {}

    def run(self) -> dict[str, collections.Counter[KnownKey]]:
        """The number of keys in the entries, by the entries' source."""
        for line in iter(functools.partial(self._stream.readline, CHUNK), b""):
            if line == b"\n":
                self._end_entry()
            elif b"=" in line:
                self._text(line)
            elif not line.startswith(_REMARK):
                self._data()
            self._size += len(line)
        self._end_entry()
        self._search.searched["journal_bytes"] += self._size
        return self._found

    def _text(self, line: bytes) -> None:
        if line.startswith(_UNIT):
            self._unit = line[len(_UNIT) :].strip()
        elif line.startswith(_PROGRAM):
            self._program = line[len(_PROGRAM) :].strip()
        # A GB of a journal has some 25 million lines: only candidates are examined.
        if KEY_PREFIX in line or not line.endswith(b"\n"):
            self._matcher.feed(line)
            while line and not line.endswith(b"\n"):
                line = self._stream.readline(CHUNK)
                self._feed_more(line)

    def _data(self) -> None:
        size = int.from_bytes(self._stream.read(8), "little")
        while size > 0:
            piece = self._stream.read(min(size, CHUNK))
            if not piece:
                return
            self._feed_more(piece)
            size -= len(piece)
        self._stream.read(1)

    def _feed_more(self, piece: bytes) -> None:
        self._size += len(piece)
        self._matcher.feed(piece)

    def _end_entry(self) -> None:
        if self._matcher.counts:
            names = [os.fsdecode(name) for name in (self._unit, self._program) if name]
            self._found.setdefault(", ".join(names) or "no unit", collections.Counter()).update(self._matcher.counts)
            self._matcher = self._search.matcher()
        self._unit = self._program = b""
