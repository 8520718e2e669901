# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The phases of an instance's start, from the fetch of its weights to its first answer."""

from __future__ import annotations

import dataclasses

CHECKING = "checking"
DOWNLOADING = "downloading"
PREPARING = "preparing"
IMPORTING = "importing"
LOADING = "loading"
COMPILING = "compiling"
PROFILING = "profiling"
CAPTURING = "capturing"
WARMING_UP = "warming_up"
SERVING = "serving"

#: Every phase, in about the order in which an engine goes through them.
PHASES = (
    CHECKING,
    DOWNLOADING,
    PREPARING,
    IMPORTING,
    LOADING,
    COMPILING,
    PROFILING,
    CAPTURING,
    WARMING_UP,
    SERVING,
)


@dataclasses.dataclass(frozen=True)
class EngineProgress:
    """What an engine is doing.

    Attributes:
        phase: one of PHASES.
        text: the same for a person, with the engine's own figures.
        percent: how much of the phase is done, where the engine reports it.
    """

    phase: str
    text: str
    percent: int | None = None
