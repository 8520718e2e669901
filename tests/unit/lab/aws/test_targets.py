"""States of targets and the choice of those that get requests: no network, no clock."""

from __future__ import annotations

import pytest

from lab.aws.targets import CheckResult, LabTarget, TargetKey, TargetTable, choose

KEY: TargetKey = ("i-1", 8000)
GOOD = CheckResult()
BAD = CheckResult("Target.ResponseCodeMismatch", "Health checks failed with these codes: [503]")


@pytest.fixture
def table() -> TargetTable:
    made = TargetTable()
    made.register(KEY)
    return made


def one(table: TargetTable, now: float = 0.0) -> LabTarget:
    return table.current(now)[KEY]


def check(table: TargetTable, *results: CheckResult) -> None:
    for result in results:
        table.record(one(table), result, 3, 2)


def test_one_passed_check_makes_a_new_target_healthy(table: TargetTable) -> None:
    assert (one(table).state, one(table).reason) == ("initial", "Elb.RegistrationInProgress")
    check(table, GOOD)
    assert (one(table).state, one(table).reason) == ("healthy", "")


def test_a_new_target_that_fails_is_unhealthy_after_the_threshold(table: TargetTable) -> None:
    check(table, BAD)
    assert (one(table).state, one(table).reason) == ("initial", "Elb.InitialHealthChecking")
    check(table, BAD)
    assert (one(table).state, one(table).description) == ("unhealthy", BAD.description)


def test_an_unhealthy_target_needs_the_threshold_in_a_row(table: TargetTable) -> None:
    check(table, GOOD, BAD)
    assert one(table).state == "healthy"
    check(table, BAD)
    assert one(table).state == "unhealthy"
    check(table, GOOD, GOOD, BAD, GOOD, GOOD)
    assert one(table).state == "unhealthy"
    check(table, GOOD)
    assert one(table).state == "healthy"


def test_a_deregistered_target_drains_for_the_delay_and_is_gone(table: TargetTable) -> None:
    check(table, GOOD)
    table.deregister(KEY, now=10, delay=300)
    assert one(table, 309).state == "draining"
    assert table.registered() == []
    assert table.current(310) == {}


def test_deregistering_twice_or_what_is_not_there_changes_nothing(table: TargetTable) -> None:
    table.deregister(KEY, now=10, delay=300)
    table.deregister(KEY, now=200, delay=300)
    table.deregister(("i-2", 8000), now=200, delay=300)
    assert one(table, 309).state == "draining"
    assert table.current(310) == {}


def test_registering_while_it_drains_starts_again(table: TargetTable) -> None:
    check(table, GOOD)
    table.deregister(KEY, now=10, delay=300)
    table.register(KEY)
    assert one(table, 400).state == "initial"


def test_registering_twice_keeps_the_state(table: TargetTable) -> None:
    check(table, GOOD)
    table.register(KEY)
    assert one(table).state == "healthy"


def test_a_check_that_began_before_a_second_registration_counts_nothing(table: TargetTable) -> None:
    old = one(table)
    table.deregister(KEY, now=0, delay=300)
    table.record(old, GOOD, 3, 2)
    assert one(table).state == "draining"
    table.register(KEY)
    table.record(old, GOOD, 3, 2)
    assert one(table).state == "initial"


def test_an_id_may_be_registered_with_several_ports(table: TargetTable) -> None:
    table.register(("i-1", 8001))
    table.deregister(KEY, now=0, delay=10)
    assert {key: target.state for key, target in table.current(1).items()} == {
        KEY: "draining",
        ("i-1", 8001): "initial",
    }


def states(**state: str) -> list[LabTarget]:
    return [LabTarget(name, 8000, value) for name, value in state.items()]


def test_only_healthy_targets_get_requests() -> None:
    chosen = choose(states(a="healthy", b="unhealthy", c="initial", d="draining"), now=0, settle=2)
    assert [ident for (ident, _), accepts in chosen.items() if accepts] == ["a"]


def test_a_deregistered_target_gets_requests_until_it_has_settled() -> None:
    drains = LabTarget("a", 8000, "draining", since=10, was_healthy=True)
    assert choose([drains], now=11.9, settle=2) == {("a", 8000): True}
    assert choose([drains], now=12, settle=2) == {("a", 8000): False}
    # One that had none before gets none then.
    assert choose([LabTarget("a", 8000, "draining", since=10)], now=11, settle=2) == {("a", 8000): False}


def test_if_all_are_unhealthy_all_get_requests() -> None:
    chosen = choose(states(a="unhealthy", b="unhealthy", c="draining"), now=9, settle=2)
    assert chosen == {("a", 8000): True, ("b", 8000): True, ("c", 8000): False}
    assert not any(choose(states(a="unhealthy", b="initial"), now=9, settle=2).values())
