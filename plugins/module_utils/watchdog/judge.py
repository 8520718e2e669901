# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether an engine hangs: it has work and its core makes no progress. Pure: looks in, verdicts out.

Times are monotonic, so that a clock that jumps changes nothing.
"""

from __future__ import annotations

import dataclasses
import typing as t

OK = "ok"
SUSPECT = "suspect"
HANG = "hang"
UNKNOWN = "unknown"

#: What hangs.
CORE = "core"
SERVER = "server"


@dataclasses.dataclass(frozen=True)
class HangLimits:
    """Seconds, except for the count of requests.

    Attributes:
        quiet: with work and without progress, after which the engine is asked a question.
        confirm: without an answer to it, after which the engine hangs.
        cold_quiet: as ``quiet`` for an engine that has just started: kernels compile within its first requests.
        cold: how long an engine counts as just started, unless it has finished ``warm_requests``.
        silent: without any answer of the HTTP server, after which that hangs.
        idle: without work, after which an engine is asked a question; 0 for never.
        interval: between two looks. After a longer pause of the watchdog itself, the pause counts as no time.
    """

    quiet: float = 20.0
    confirm: float = 15.0
    cold_quiet: float = 120.0
    cold: float = 600.0
    warm_requests: int = 10
    silent: float = 30.0
    idle: float = 60.0
    interval: float = 2.0


class EngineLook(t.NamedTuple):
    """What one look at an instance found.

    Attributes:
        at: monotonic seconds.
        began: when the look began; an engine's answers take their time.
        heard: whether its HTTP server answered at all.
        progress: anything that changes with the core's progress; None where it could not be read.
        working: whether requests are in flight, by the engine's count or the edge's.
        finished: requests that it has finished since it started.
        asked: whether a question of the watchdog waits for its answer.
        answered: whether one was answered since the last look.
    """

    at: float
    began: float
    heard: bool
    progress: t.Hashable = None
    working: bool = False
    finished: int = 0
    asked: bool = False
    answered: bool = False


class HangVerdict(t.NamedTuple):
    """What follows from a look.

    Attributes:
        state: OK, SUSPECT, HANG or UNKNOWN.
        ask: whether to ask the engine a question of one token now.
        what: CORE or SERVER for a hang.
        quiet: seconds without progress.
        moved: whether there was progress since the last look.
    """

    state: str
    ask: bool = False
    what: str = ""
    quiet: float = 0.0
    moved: bool = False


# A pause of the watchdog that is longer than this many intervals.
_PAUSE = 5


class HangJudge:
    """Judges one start of one engine.

    Args:
        limits: of time.
        began: monotonic time from which on the engine serves.
    """

    def __init__(self, limits: HangLimits, began: float) -> None:
        self._limits = limits
        self._began = began
        self._last_at = began
        self._heard_at = began
        self._progress: t.Hashable = None
        # The last progress, or the last moment without work.
        self._moved_at = began
        self._worked_at = began
        self._suspected_at: float | None = None

    def see(self, look: EngineLook) -> HangVerdict:
        """The verdict after one more look."""
        self._skip_pause(look)
        if look.heard:
            self._heard_at = look.at
        elif look.at - self._heard_at >= self._limits.silent:
            return HangVerdict(HANG, what=SERVER, quiet=look.at - self._heard_at)
        moved = look.answered or (None not in (look.progress, self._progress) and look.progress != self._progress)
        self._progress = self._progress if look.progress is None else look.progress
        if moved:
            self._moved_at = look.at
            self._suspected_at = None
        if look.progress is None:
            return HangVerdict(UNKNOWN, quiet=look.at - self._moved_at)
        if look.working:
            self._worked_at = look.at
        elif not look.asked:
            self._moved_at = look.at
            self._suspected_at = None
            return HangVerdict(OK, ask=self._is_due(look.at), moved=moved)
        return self._judge_quiet(look)._replace(moved=moved)

    def _judge_quiet(self, look: EngineLook) -> HangVerdict:
        quiet = look.at - self._moved_at
        if self._suspected_at is not None:
            state = HANG if look.at - self._suspected_at >= self._limits.confirm else SUSPECT
            return HangVerdict(state, what=CORE if state == HANG else "", quiet=quiet)
        is_cold = look.at - self._began < self._limits.cold and look.finished < self._limits.warm_requests
        if quiet < (self._limits.cold_quiet if is_cold else self._limits.quiet):
            return HangVerdict(OK, quiet=quiet)
        self._suspected_at = look.at
        return HangVerdict(SUSPECT, ask=not look.asked, quiet=quiet)

    def _is_due(self, at: float) -> bool:
        """Whether an idle engine is to be asked; it then is again after the same time."""
        if not self._limits.idle or at - self._worked_at < self._limits.idle:
            return False
        self._worked_at = at
        return True

    def _skip_pause(self, look: EngineLook) -> None:
        pause = look.began - self._last_at - self._limits.interval
        self._last_at = look.at
        if pause > _PAUSE * self._limits.interval:
            self._heard_at += pause
            self._moved_at += pause
            if self._suspected_at is not None:
                self._suspected_at += pause
