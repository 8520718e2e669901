"""Lifecycle actions of Auto Scaling: what an instance waits for, and how that ends. The caller gives the time."""

from __future__ import annotations

import dataclasses
import uuid

CONTINUE, ABANDON = "CONTINUE", "ABANDON"
LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"
#: However many heartbeats come (API_PutLifecycleHook).
LONGEST = 48 * 3600.0
MOST_TIMEOUTS = 100


@dataclasses.dataclass
class LifecycleAction:
    """One hook's wait for one instance."""

    hook: str
    timeout: float
    default: str
    began: float
    ends: float
    token: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    result: str = ""

    def beat(self, now: float) -> None:
        """A heartbeat: the timeout begins again, up to AWS's limit for all of them."""
        limit = self.began + min(LONGEST, MOST_TIMEOUTS * self.timeout)
        self.ends = min(now + self.timeout, limit)

    def outcome(self, now: float) -> str:
        """CONTINUE or ABANDON, or nothing as long as it waits."""
        return self.result or (self.default if now >= self.ends else "")


def begin(hook: str, timeout: float, default: str, now: float) -> LifecycleAction:
    return LifecycleAction(hook, timeout, default, now, now + timeout)


def combine(actions: list[LifecycleAction], now: float) -> str:
    """The outcome of all hooks of a transition: one that abandons decides, else all have to continue."""
    outcomes = [action.outcome(now) for action in actions]
    if ABANDON in outcomes:
        return ABANDON
    return CONTINUE if all(outcomes) else ""
