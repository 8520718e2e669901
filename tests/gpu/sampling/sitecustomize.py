"""Samples the stack of a process's main thread, for tests/gpu/starts.py.

Python imports a module of this name at its start. With START_SAMPLES in the environment each process writes a file to
that directory: its arguments after a ``#``, then lines of a time and the frames from the outermost to the innermost.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import types
import typing as t

INTERVAL = 0.02
#: No start takes longer.
LIMIT = 240.0


def describe(frame: types.FrameType | None) -> str:
    """The frames of a stack, without those of the import system."""
    names = []
    while frame is not None:
        if not frame.f_code.co_filename.startswith("<frozen importlib"):
            names.append(f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_name}")
        frame = frame.f_back
    return ";".join(reversed(names))


def sample(file: t.TextIO, thread: int) -> None:
    """Write samples of a thread until it ends, or the start must have."""
    with file:
        file.write(f"# {sys.orig_argv}\n")
        until = time.time() + LIMIT
        while time.time() < until:
            # A frame that is held keeps its variables alive, and on a GPU these are its memory.
            stack = describe(sys._current_frames().get(thread))
            if not stack:
                break
            file.write(f"{time.time():.3f} {stack}\n")
            file.flush()
            time.sleep(INTERVAL)


def begin() -> None:
    """Start to sample this process."""
    directory = os.environ.get("START_SAMPLES")
    if directory:
        file = open(os.path.join(directory, f"{os.getpid()}.txt"), "a", encoding="utf-8")  # noqa: SIM115
        threading.Thread(target=sample, args=(file, threading.get_ident()), daemon=True).start()


begin()
os.register_at_fork(after_in_child=begin)
