"""Shared code of the tests of the key store."""

from __future__ import annotations

import contextlib
import re
import sys
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys import rotation
from ansible_collections.inference.fleet.plugins.module_utils.keys.holder import RotationHolder
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import (
    ClientKeys,
    Content,
    Key,
    new_key,
)

NOW = "2026-11-22T12:00:00Z"

A_KEY = re.compile(r"sk-[A-Za-z0-9_-]{20,}")

ME = RotationHolder("ops", "here", 100, 1, "machine", "boot", 1)
#: No process has this number, so every process on this boot can see that it is gone.
GONE = RotationHolder("ops", "here", 2**22 + 1, 1, "machine", "boot", 1)
ELSEWHERE = RotationHolder("eve", "elsewhere", 100, 1, "another machine", "another boot", 2)


def later(seconds: float, now: str = NOW) -> str:
    return times.moment(times.seconds(now) + seconds)


def client(now: str = NOW, **limits: t.Any) -> ClientKeys:
    return ClientKeys(new_key(now), limits=Limits(limits))


def content(*names: str, now: str = NOW) -> Content:
    return Content({name: client(now) for name in names})


def request(*names: str, now: str = NOW, me: RotationHolder = ME, **more: t.Any) -> rotation.RotationRequest:
    return rotation.RotationRequest(now, me, names, **more)


def slots(whole: ClientKeys) -> dict[str, Key]:
    return dict(whole.slots())


@contextlib.contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[set[tuple[str, int]]]:
    """Check that no error that is raised meanwhile has a key in it; return the file and line of each."""
    places: set[tuple[str, int]] = set()
    original = FleetError.__init__

    def watch(self: FleetError, message: str, *rest: t.Any, **details: t.Any) -> None:
        frame = sys._getframe(1)
        # A subclass' constructor is not the place.
        while frame.f_locals.get("self") is self and frame.f_back:
            frame = frame.f_back
        places.add((frame.f_code.co_filename.rpartition("/")[2], frame.f_lineno))
        assert not A_KEY.search(f"{message} {rest} {details}"), "a key stands in a message"
        original(self, message, *rest, **details)

    with monkeypatch.context() as patch:
        patch.setattr(FleetError, "__init__", watch)
        yield places
