"""Atomic writes, and locks that end with their process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
import typing as t
from pathlib import Path

from lab.errors import LabError


def write(path: Path, content: str, mode: int = 0o644) -> None:
    """Replace ``path`` so that a reader never sees a partial file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
    temporary.replace(path)


def write_changed(path: Path, content: str, mode: int = 0o644) -> bool:
    """Write where the content differs; True when it did."""
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return False
    write(path, content, mode)
    return True


def remove_tree(path: Path) -> None:
    """Remove a directory; one that is not there is fine."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def in_use(directory: Path) -> bool:
    """Whether a live process was started with this directory among its ``uses``."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def locked(path: Path, patience: float = 900.0) -> t.Iterator[int]:
    """Hold the lock file ``path`` and yield its descriptor. A holder may remove the file: waiters then start over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    reported = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                    break
        except BlockingIOError:
            if not reported:
                print(f"Waiting for another lab command that holds {path}", file=sys.stderr, flush=True)
                reported = True
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise LabError(f"Another process has held {path} for {patience:.0f} s. Wait for it, then run again.")
        time.sleep(0.1)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
