"""Prints the current step of the lab and its duration."""

from __future__ import annotations

import contextlib
import time
import typing as t


@contextlib.contextmanager
def step(title: str) -> t.Iterator[None]:
    """Print ``title`` with its seconds when it is done; the caller prints a failure."""
    begun = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"  {time.monotonic() - begun:6.1f} s  {title}: FAILED", flush=True)
        raise
    print(f"  {time.monotonic() - begun:6.1f} s  {title}", flush=True)
