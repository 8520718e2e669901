"""The time of the stand-ins. A test may let it run faster than the clock on the wall."""

from __future__ import annotations

import time


class LabClock:
    """Seconds as AWS counts them: of intervals, delays and timeouts.

    Args:
        speed: how many of them pass in a real second.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed

    def now(self) -> float:
        return time.monotonic() * self.speed
