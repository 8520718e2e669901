"""Target groups that behave as AWS's do, with a clock that the waiting moves."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws import registration
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import Membership
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import BalancerLook, TargetHealth

from tests.unit.plugins.plugin_utils.balancer.fleet import group, member

HEALTHY = TargetHealth("healthy")
INITIAL = TargetHealth("initial", "Elb.RegistrationInProgress")
DRAINING = TargetHealth("draining", "Target.DeregistrationInProgress")
UNHEALTHY = TargetHealth("unhealthy", "Target.FailedHealthChecks", "Health checks failed")
NOT_IN_USE = TargetHealth("unused", "Target.NotInUse", "Target group is not configured to receive traffic")


class Balancers:
    """The targets of some groups: each change shows after a while.

    Attributes:
        calls: what was called, with the hosts.
        slept: all waits.
    """

    def __init__(self, *states: tuple[Membership, TargetHealth | None]) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.slept: list[float] = []
        self.delay = 4.0
        #: What a registered target becomes.
        self.becomes = HEALTHY
        self.refuses: dict[str, str] = {}
        self._now = 0.0
        self._states = {(one.group.arn, one.target): state for one, state in states if state}
        self._coming: list[tuple[float, Membership, TargetHealth]] = []
        self._members = tuple(one for one, _state in states)

    def look(self) -> BalancerLook:
        for at, one, state in [item for item in self._coming if item[0] <= self._now]:
            self._states[one.group.arn, one.target] = state
            self._coming.remove((at, one, state))
        return BalancerLook(self._members, dict(self._states))

    def look_again(self, before: BalancerLook) -> BalancerLook:
        self._check("look")
        assert before.memberships == self._members
        return self.look()

    def register(self, memberships: t.Sequence[Membership]) -> None:
        self._take("register", memberships)
        for one in memberships:
            self._states[one.group.arn, one.target] = INITIAL
            self._coming.append((self._now + self.delay, one, self.becomes))

    def deregister(self, memberships: t.Sequence[Membership]) -> None:
        self._take("deregister", memberships)
        for one in memberships:
            self._coming.append((self._now + self.delay, one, DRAINING))

    def _take(self, call: str, memberships: t.Sequence[Membership]) -> None:
        if memberships:
            self.calls.append((call, [one.host for one in memberships]))
        self._check(call)

    def _check(self, call: str) -> None:
        if call in self.refuses:
            raise FleetError(self.refuses[call])

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds

    @property
    def now(self) -> float:
        return self._now


Make = t.Callable[..., Balancers]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(*states: tuple[Membership, TargetHealth | None]) -> Balancers:
        balancers = Balancers(*states)
        monkeypatch.setattr("time.sleep", balancers.sleep)
        monkeypatch.setattr("time.monotonic", lambda: balancers.now)
        return balancers

    return made


def test_targets_are_out_once_every_group_says_so_and_the_last_requests_came(make: Make) -> None:
    one, two = member(), member(of=group("b"))
    balancers = make((one, HEALTHY), (two, UNHEALTHY))
    done = registration.deregister(balancers, balancers.look(), [one, two], 10)
    assert balancers.calls == [("deregister", ["gpu-1", "gpu-1"])]
    assert done.moved == (one, two)
    assert done.look.health_of(one) == DRAINING
    # Two looks until the state shows, then the settle time. Nothing waits for unused.
    assert balancers.slept == [2.0, 2.0, 10]


def test_what_drains_already_is_not_taken_out_again_and_settles(make: Make) -> None:
    one = member()
    balancers = make((one, DRAINING))
    done = registration.deregister(balancers, balancers.look(), [one], 10)
    assert (balancers.calls, done.moved, balancers.slept) == ([], (), [10])


def test_what_is_not_registered_needs_no_time(make: Make) -> None:
    one = member()
    balancers = make((one, None))
    done = registration.deregister(balancers, balancers.look(), [one], 10)
    assert (balancers.calls, done.moved, balancers.slept) == ([], (), [])


def test_a_group_without_a_listener_is_left_like_any_other(make: Make) -> None:
    one = member()
    balancers = make((one, NOT_IN_USE))
    assert registration.deregister(balancers, balancers.look(), [one], 10).moved == (one,)


def test_a_refused_deregistration_puts_back_what_was_taken_out(make: Make) -> None:
    one = member()
    balancers = make((one, HEALTHY))
    balancers.refuses["deregister"] = "The credentials have expired."
    with pytest.raises(FleetError, match=r"^The credentials have expired\. gpu-1 is registered as before\.$"):
        registration.deregister(balancers, balancers.look(), [one], 10)
    assert balancers.calls == [("deregister", ["gpu-1"]), ("register", ["gpu-1"])]
    balancers.refuses["register"] = "No."
    with pytest.raises(FleetError, match="gpu-1 may be out of some groups now; the same command, or playbooks/undrain"):
        registration.deregister(balancers, balancers.look(), [one], 10)


def test_a_target_that_something_else_registers_is_named(make: Make) -> None:
    one = member()
    balancers = make((one, HEALTHY))
    balancers.delay = 1e9
    with pytest.raises(FleetError, match=r"60 seconds later gpu-1 in target group fleet .* is healthy\. Look whether"):
        registration.deregister(balancers, balancers.look(), [one], 10)
    assert sum(balancers.slept) == 60
    assert balancers.calls[-1] == ("register", ["gpu-1"])


def test_missing_targets_are_registered_and_healthy_at_the_end(make: Make) -> None:
    one, two, three = member(), member(of=group("b")), member("gpu-2")
    balancers = make((one, None), (two, DRAINING), (three, HEALTHY))
    done = registration.register(balancers, balancers.look(), [one, two, three], 120)
    assert balancers.calls == [("register", ["gpu-1", "gpu-1"])]
    assert done.moved == (one, two)
    assert done.problems == {}
    assert done.look.is_reachable("gpu-1")
    assert balancers.slept == [2.0, 2.0]


def test_a_healthy_host_costs_no_call_and_no_time(make: Make) -> None:
    one = member()
    balancers = make((one, HEALTHY))
    balancers.refuses["look"] = "asked again"
    done = registration.register(balancers, balancers.look(), [one], 120)
    assert (balancers.calls, balancers.slept, done.moved) == ([], [], ())
    assert registration.register(balancers, balancers.look(), [], 120).problems == {}


def test_a_host_that_stays_unhealthy_is_a_problem_of_its_own(make: Make) -> None:
    one, two = member(), member("gpu-2")
    balancers = make((one, None), (two, HEALTHY))
    balancers.becomes = UNHEALTHY
    done = registration.register(balancers, balancers.look(), [one, two], 60)
    assert list(done.problems) == ["gpu-1"]
    assert done.problems["gpu-1"].startswith(
        "gpu-1 serves at its edge, but after 60 seconds gpu-1 in target group fleet in us-east-1 (port 8000) is "
        "unhealthy: Target.FailedHealthChecks (Health checks failed). Look at the group's health check"
    )
    assert sum(balancers.slept) == 60


def test_a_group_without_a_listener_is_not_waited_for(make: Make) -> None:
    one = member(of=group("idle", balancers=()))
    balancers = make((one, None))
    balancers.becomes, balancers.delay = NOT_IN_USE, 0
    done = registration.register(balancers, balancers.look(), [one], 120)
    assert balancers.slept == []
    assert "is used by no listener (Target.NotInUse)" in done.problems["gpu-1"]
