# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Which bytes of a file that arrives as ranges, in any order, are on the disk.

Installed on hosts as ``model_ranges.py``, beside ``model_fetch.py``, so it imports nothing of Ansible. Of the libraries
that download from S3 in ranges, s3transfer and the CRT client start a file over after they were killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import typing as t

#: The first byte and the one after the last.
Span = tuple[int, int]

_LINE = re.compile(r"(\d+) (\d+)\n")


def merge(spans: t.Iterable[Span]) -> list[Span]:
    """The same bytes as few spans, in order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def missing(spans: t.Iterable[Span], size: int, longest: int) -> list[Span]:
    """The bytes of a file outside ``spans``, in ranges of at most ``longest`` bytes, in order."""
    ranges: list[Span] = []
    offset = 0
    for start, end in [*merge(spans), (size, size)]:
        while offset < start:
            stop = min(offset + longest, start)
            ranges.append((offset, stop))
            offset = stop
        offset = max(offset, end)
    return ranges


def length(spans: t.Iterable[Span]) -> int:
    """The number of bytes in ``spans``."""
    return sum(end - start for start, end in merge(spans))


def boot_id() -> str:
    """The name of this boot; empty where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def read_spans(path: str, data: str, content: str, size: int, verifiable: bool) -> list[Span]:
    """The bytes of a file that are on the disk, according to its record.

    The record is written after the data but not synced with it. It is right after the process was killed. After a
    power cut it may name bytes that never reached the disk, so it then counts only for a file that is verified.

    Args:
        path: of the record.
        data: of the file itself.
        content: what the source calls the content that the bytes are of.
        size: of the whole file.
        verifiable: whether the content of the whole file is verified.
    """
    try:
        written = os.stat(data).st_size
        with open(path, encoding="utf-8") as file:
            head = json.loads(file.readline())
            lines = file.readlines()
    except (OSError, ValueError):
        return []
    if not isinstance(head, dict) or (head.get("content"), head.get("size")) != (content, size):
        return []
    if not verifiable and head.get("boot") != boot_id():
        return []
    # The last line may be torn.
    found = (match for match in map(_LINE.fullmatch, lines) if match)
    return merge((int(one.group(1)), min(int(one.group(2)), written, size)) for one in found)


class Record:
    """The record of one file: added to by many threads, read again after the process was killed.

    Args:
        path: where it is.
        content: what the source calls the content.
        size: of the whole file.
        spans: what is on the disk already.
    """

    def __init__(self, path: str, content: str, size: int, spans: t.Iterable[Span]) -> None:
        self._lock = threading.Lock()
        self._spans = merge(spans)
        head = json.dumps({"content": content, "size": size, "boot": boot_id()})
        temporary = f"{path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(f"{head}\n" + "".join(f"{start} {end}\n" for start, end in self._spans))
        os.replace(temporary, path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def add(self, start: int, end: int) -> None:
        """Remember bytes that were written."""
        if start >= end:
            return
        with self._lock:
            self._spans = merge([*self._spans, (start, end)])
            # On a full disk the data cannot be written either, which is reported; these bytes are fetched again.
            with contextlib.suppress(OSError):
                os.write(self._descriptor, f"{start} {end}\n".encode())

    @property
    def prefix(self) -> int:
        """How many bytes from the beginning on are there without a gap."""
        with self._lock:
            return self._spans[0][1] if self._spans and self._spans[0][0] == 0 else 0

    def missing(self, size: int, longest: int) -> list[Span]:
        with self._lock:
            return missing(self._spans, size, longest)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
