"""Taking files out of the page cache, for what a start from a disk is like."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def drop(place: Path) -> int:
    """Take a file, or those below a directory, out of the page cache; how many bytes they have.

    Pages that a process has mapped stay.
    """
    size = 0
    for path in place.rglob("*") if place.is_dir() else [place]:
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError), path.open("rb") as file:
                # The kernel keeps what it has not written yet.
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                size += os.fstat(file.fileno()).st_size
    return size
