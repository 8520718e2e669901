"""The states of a target group's targets, as AWS documents them (API_TargetHealth). The caller gives the time."""

from __future__ import annotations

import dataclasses
import typing as t

#: Id and port: one id may be registered with several ports.
TargetKey = tuple[str, int]

DESCRIPTIONS = {
    "Elb.RegistrationInProgress": "Target registration is in progress",
    "Elb.InitialHealthChecking": "Initial health checks in progress",
    "Target.DeregistrationInProgress": "Target deregistration is in progress",
    "Target.FailedHealthChecks": "Health checks failed",
    "Target.InvalidState": "Target is in the stopped state",
    "Target.NotInUse": "Target group is not configured to receive traffic from the load balancer",
    "Target.NotRegistered": "Target is not registered to the target group",
    "Target.Timeout": "Request timed out",
}


@dataclasses.dataclass
class LabTarget:
    """A registered target, or one that drains."""

    id: str
    port: int
    state: str = "initial"
    reason: str = "Elb.RegistrationInProgress"
    description: str = DESCRIPTIONS["Elb.RegistrationInProgress"]
    passed: int = 0
    failed: int = 0
    #: Of a target that drains: when that began and ends, and whether it had requests until then.
    since: float = 0.0
    until: float = 0.0
    was_healthy: bool = False
    #: When its next health check is due, and whether one runs.
    due: float = 0.0
    checking: bool = False

    def change(self, state: str, reason: str = "", description: str = "") -> None:
        self.state, self.reason, self.description = state, reason, description or DESCRIPTIONS.get(reason, "")


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The result of one health check: passed, or the reason why not."""

    reason: str = ""
    description: str = ""

    @property
    def passed(self) -> bool:
        return not self.reason


class TargetTable:
    """The targets of one group."""

    def __init__(self) -> None:
        self._targets: dict[TargetKey, LabTarget] = {}

    def register(self, key: TargetKey) -> None:
        """A target that is registered already is left alone; one that drains starts again."""
        found = self._targets.get(key)
        if found is None or found.state == "draining":
            self._targets[key] = LabTarget(*key)

    def deregister(self, key: TargetKey, now: float, delay: float) -> None:
        """A target that is not there, or drains already, is a success that changes nothing."""
        found = self._targets.get(key)
        if found is None or found.state == "draining":
            return
        found.was_healthy = found.state == "healthy"
        found.since, found.until = now, now + delay
        found.change("draining", "Target.DeregistrationInProgress")

    def current(self, now: float) -> dict[TargetKey, LabTarget]:
        """The targets; those whose deregistration delay is over are gone."""
        over = [key for key, one in self._targets.items() if one.state == "draining" and now >= one.until]
        for key in over:
            del self._targets[key]
        return dict(self._targets)

    def registered(self) -> list[LabTarget]:
        """The targets to check: those that drain are not checked."""
        return [one for one in self._targets.values() if one.state != "draining"]

    def record(self, target: LabTarget, result: CheckResult, healthy_threshold: int, unhealthy_threshold: int) -> None:
        """Count a health check. One of a target that was registered again, or drains, while it ran counts nothing."""
        if self._targets.get((target.id, target.port)) is not target or target.state == "draining":
            return
        is_new = target.state == "initial"
        target.passed, target.failed = (target.passed + 1, 0) if result.passed else (0, target.failed + 1)
        if result.passed:
            # One passed check is enough for a new target.
            if is_new or target.passed >= healthy_threshold:
                target.change("healthy")
        elif target.failed >= unhealthy_threshold:
            target.change("unhealthy", result.reason, result.description)
        elif is_new:
            target.change("initial", "Elb.InitialHealthChecking")


def choose(targets: t.Iterable[LabTarget], now: float, settle: float) -> dict[TargetKey, bool]:
    """Whether each target gets new requests.

    Args:
        targets: of a group that has a listener.
        now: the time.
        settle: how long a deregistered target still gets some, because not every part of a balancer knows at once.
    """
    present = list(targets)
    # All of them unhealthy: all get requests, as AWS says ("fail open").
    checked = [one.state for one in present if one.state != "draining"]
    opened = bool(checked) and all(state == "unhealthy" for state in checked)
    return {
        (one.id, one.port): one.state == "healthy"
        or (one.state == "unhealthy" and opened)
        or (one.state == "draining" and one.was_healthy and now - one.since < settle)
        for one in present
    }
