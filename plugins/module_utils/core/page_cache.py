# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What of a file the kernel has in memory, and reading the rest."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
import typing as t

#: How much is asked for at once. More in flight than a sequential read has, which a network disk needs to be fast.
PIECE = 32 << 20
_BUFFER = 1 << 20
# Bit 0 of each page's byte; the other bits mean nothing.
_IN_MEMORY = bytes(value & 1 for value in range(256))
_libc = ctypes.CDLL(None, use_errno=True)


def bytes_in_memory(path: str) -> int:
    """How much of a file is in the page cache; 0 where the kernel does not say.

    Raises:
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return 0
        # A private copy, which is never written to: of a mapping that is read-only, Python gives no address.
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapping:
            pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
            seen = (ctypes.c_ubyte * pages)()
            first = ctypes.c_char.from_buffer(mapping)
            failed = _libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), seen)
            # Else the mapping cannot be closed.
            del first
    return 0 if failed else min(size, bytes(seen).translate(_IN_MEMORY).count(1) * mmap.PAGESIZE)


def read_file(path: str, until: float) -> int:
    """Read a file into the page cache; how many bytes were read by ``until``, on the monotonic clock.

    Raises:
        OSError: the file cannot be read.
    """
    done = 0
    buffer = bytearray(_BUFFER)
    with open(path, "rb", buffering=0) as file:
        while time.monotonic() < until:
            if done % PIECE == 0:
                os.posix_fadvise(file.fileno(), done, 2 * PIECE, os.POSIX_FADV_WILLNEED)
            count = file.readinto(buffer)
            if not count:
                break
            done += count
    return done


def available_memory(meminfo: t.Iterable[str]) -> int:
    """The bytes that programs can get without swapping, from the lines of /proc/meminfo; 0 where it does not say."""
    for line in meminfo:
        name, _colon, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
