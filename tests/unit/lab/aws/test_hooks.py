"""Lifecycle actions: no server, no clock."""

from __future__ import annotations

from lab.aws.hooks import ABANDON, CONTINUE, begin, combine


def test_an_action_waits_for_its_timeout_and_then_has_the_default() -> None:
    action = begin("join", 60, ABANDON, now=100)
    assert action.outcome(159) == ""
    assert action.outcome(160) == ABANDON


def test_a_heartbeat_begins_the_timeout_again_up_to_a_limit() -> None:
    action = begin("join", 60, ABANDON, now=0)
    action.beat(50)
    assert action.outcome(109) == ""
    assert action.outcome(110) == ABANDON
    action.beat(5990)
    assert action.outcome(6000) == ABANDON
    long = begin("join", 7200, ABANDON, now=0)
    long.beat(170_000)
    assert long.ends == 48 * 3600


def test_a_result_counts_at_once() -> None:
    action = begin("join", 60, ABANDON, now=0)
    action.result = CONTINUE
    assert action.outcome(1000) == CONTINUE


def test_all_hooks_continue_or_one_abandons() -> None:
    first, second = begin("one", 60, CONTINUE, now=0), begin("two", 60, CONTINUE, now=0)
    first.result = CONTINUE
    assert combine([first, second], now=1) == ""
    second.result = ABANDON
    assert combine([first, second], now=1) == ABANDON
    second.result = CONTINUE
    assert combine([first, second], now=1) == CONTINUE
