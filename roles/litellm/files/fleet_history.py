# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether LiteLLM writes down what is spent. Part of a gateway's release."""

from __future__ import annotations

import contextlib
import os
import pathlib

import prometheus_client

#: None without a database; False where there is one that cannot be used.
WRITTEN: bool | None = {"": None, "0": False, "1": True}[os.environ.get("FLEET_DATABASE", "")]

_tries = pathlib.Path(os.environ["FLEET_TRIES"]) if WRITTEN else None

if WRITTEN is not None:
    prometheus_client.Gauge("fleet_database_used", "0 where LiteLLM was started without its database").set(WRITTEN)


def answered() -> None:
    """Say that LiteLLM's start with its database was a good one: somebody has been answered."""
    global _tries
    if _tries is not None:
        with contextlib.suppress(OSError):
            _tries.unlink()
        _tries = None
