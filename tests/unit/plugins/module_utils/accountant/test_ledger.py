"""What is booked, settled, refused and forgotten."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.accountant.ledger import (
    LAST_LINES,
    RESTORED,
    WINDOW,
    Admission,
    ClientBounds,
    Ledger,
    PriceList,
    Shortfall,
    budget_key,
    wait_for,
)
from ansible_collections.inference.fleet.plugins.module_utils.accountant.lines import AnswerUse

NOW = 1_000_000.0
TARIFF = PriceList({"a": (1.0, 2.0), "b": (3.0, 1.0)})
TOKENS = ClientBounds(tokens=1000)
MONEY = ClientBounds(budget=1000.0, period=3600)


def ledger(gateways: int = 1) -> Ledger:
    return Ledger(gateways, TARIFF)


def ask(
    accounts: Ledger, request: str, bounds: ClientBounds, tokens: int = 100, now: float = NOW, client: str = "c"
) -> Admission:
    """A request as the accountant handles it, without a Redis."""
    booking = accounts.book(request, client, bounds, "a", tokens, 0, 7, now)
    decision = accounts.decide_tokens(request, bounds, now) if bounds.tokens else Admission()
    if not decision.finding and bounds.budget:
        decision = accounts.decide_budget(request, bounds, now)
    if decision.finding:
        accounts.cancel(request)
    else:
        booking.sure = True
    return decision


def end(accounts: Ledger, request: str, tokens: int | None = 100, now: float = NOW, **changes: t.Any) -> None:
    use = AnswerUse(request, "c", begun=True, known=tokens is not None, prompt=tokens or 0)
    accounts.settle(use._replace(**changes), changes.get("bounds", ClientBounds()), now)


@pytest.mark.parametrize(("gateways", "passing"), [(1, 10), (2, 5), (3, 4)])
def test_what_is_booked_counts_at_once(gateways: int, passing: int) -> None:
    accounts = ledger(gateways)
    passed = [ask(accounts, str(number), TOKENS).finding is None for number in range(32)]
    assert passed == [True] * passing + [False] * (32 - passing)


def test_no_client_gets_more_than_its_limit_and_a_request() -> None:
    accounts = ledger()
    used = 0
    for number in range(100):
        if ask(accounts, str(number), TOKENS, 300).finding is None:
            end(accounts, str(number), 290)
            used += 290
    assert 1000 <= used < 1000 + 300


def test_what_was_used_counts_in_place_of_what_was_booked() -> None:
    accounts = ledger()
    assert ask(accounts, "1", TOKENS, 5000) == Admission()
    assert ask(accounts, "2", TOKENS).finding is Shortfall.TOKENS
    end(accounts, "1", 100)
    assert accounts.used("c", NOW) == 100
    assert ask(accounts, "2", TOKENS) == Admission()


def test_another_client_has_its_own() -> None:
    accounts = ledger()
    ask(accounts, "1", TOKENS, 5000)
    assert ask(accounts, "2", TOKENS, client="other") == Admission()


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, 100),
        ({"begun": False}, 0),
        ({"known": False}, 300),
    ],
)
def test_an_answer_costs_what_it_used_or_what_was_booked_and_a_failure_nothing(
    changes: dict[str, t.Any], used: int
) -> None:
    accounts = ledger()
    ask(accounts, "1", ClientBounds(tokens=1000, budget=1e9), 300)
    end(accounts, "1", 100, **changes)
    assert accounts.used("c", NOW) == used
    assert accounts.spent("c", ClientBounds(budget=1e9), NOW) == used
    assert not list(accounts.open_bookings())


def test_tokens_leave_after_a_minute() -> None:
    accounts = ledger()
    for second, tokens in ((0, 600), (10, 500)):
        ask(accounts, str(second), TOKENS, tokens, NOW + second)
        end(accounts, str(second), tokens, NOW + second)
    assert ask(accounts, "x", TOKENS, now=NOW + 11) == Admission(Shortfall.TOKENS, WINDOW - 11)
    assert ask(accounts, "x", TOKENS, now=NOW + WINDOW - 1).finding is Shortfall.TOKENS
    assert ask(accounts, "x", TOKENS, now=NOW + WINDOW) == Admission()


def test_a_client_waits_until_enough_is_old() -> None:
    buckets = {100: 500.0, 110: 100.0, 120: 900.0}
    assert wait_for(buckets, 0, 1000, 130.0) == 40
    assert wait_for(buckets, 300, 1000, 130.0) == 50
    assert wait_for(buckets, 5000, 1000, 130.0) == 1
    assert wait_for({200: 5000.0}, 0, 1000, 130.0) == WINDOW


def test_a_clock_that_is_set_back_does_not_hold_tokens() -> None:
    accounts = ledger()
    ask(accounts, "1", TOKENS, 2000, NOW + 86400)
    end(accounts, "1", 2000, NOW + 86400)
    assert ask(accounts, "2", TOKENS, now=NOW) == Admission(Shortfall.TOKENS, WINDOW)
    assert ask(accounts, "2", TOKENS, now=NOW + WINDOW) == Admission()


def test_a_clock_that_is_set_forward_begins_a_minute() -> None:
    accounts = ledger()
    ask(accounts, "1", TOKENS, 2000)
    end(accounts, "1", 2000)
    assert ask(accounts, "2", TOKENS, now=NOW + 86400) == Admission()


def test_a_budget_is_spent_in_its_period() -> None:
    accounts = ledger()
    began = NOW // 3600 * 3600
    for number in range(10):
        assert ask(accounts, str(number), MONEY, now=began) == Admission()
    # All of it is booked, and nothing spent.
    assert ask(accounts, "x", MONEY, now=began) == Admission(Shortfall.RESERVED)
    for number in range(10):
        end(accounts, str(number), 100, began + 10)
    assert ask(accounts, "x", MONEY, now=began + 600) == Admission(Shortfall.SPENT, 3000)
    assert accounts.spent("c", MONEY, began + 600) == 1000
    assert ask(accounts, "x", MONEY, now=began + 3600) == Admission()
    # What ends in the next period was let through in this one.
    assert accounts.spent("c", MONEY, began + 3600) == 0


def test_a_budget_for_ever_has_no_end() -> None:
    accounts, bounds = ledger(), ClientBounds(budget=50.0)
    ask(accounts, "1", bounds)
    end(accounts, "1", 100)
    assert ask(accounts, "2", bounds, now=NOW + 1e8) == Admission(Shortfall.SPENT, 0)
    accounts.forget(NOW + 1e9)
    assert ask(accounts, "2", bounds, now=NOW + 1e9).finding is Shortfall.SPENT


def test_each_gateway_has_its_part_of_what_redis_last_said_is_left() -> None:
    accounts = ledger(gateways=2)
    ask(accounts, "1", MONEY)
    accounts.budgets[budget_key("c", MONEY, NOW)].known = 800.0
    end(accounts, "1", 60)
    assert ask(accounts, "2", MONEY) == Admission()
    end(accounts, "2", 40)
    assert ask(accounts, "3", MONEY).finding is Shortfall.SPENT


def test_the_models_price_counts_and_the_dearest_where_it_is_not_known() -> None:
    assert TARIFF.cost("a", 10, 5) == 20
    assert TARIFF.cost("b", 10, 5) == 35
    assert TARIFF.cost("-", 10, 5) == 35
    assert PriceList({}).cost("a", 10, 5) == 0


def test_a_line_without_a_booking_counts() -> None:
    accounts = ledger()
    bounds = ClientBounds(1000, 1000.0)
    use = AnswerUse("r", "c", True, True, 10, 5)
    posting = accounts.settle(use, bounds, NOW)
    assert posting
    assert posting.tokens == accounts.used("c", NOW) == 15
    # At the dearest price.
    assert accounts.spent("c", bounds, NOW) == 35
    assert accounts.settle(use._replace(begun=False), bounds, NOW) is None


def test_a_request_that_is_not_let_through_holds_no_other_up() -> None:
    accounts = ledger()
    for number in range(32):
        accounts.book(str(number), "c", TOKENS, "a", 900, 0, 7, NOW)
    assert accounts.decide_tokens("31", TOKENS, NOW) == Admission()


@pytest.mark.parametrize("reason", ["gone", "late"])
def test_a_booking_whose_line_does_not_come_counts_and_a_late_line_corrects_it(reason: str) -> None:
    accounts, bounds = ledger(), ClientBounds(10**6, 1e9)
    ask(accounts, "1", bounds, 300)
    runs = (lambda _pid: False) if reason == "gone" else (lambda _pid: True)
    later = NOW + (LAST_LINES if reason == "gone" else 3600)
    assert accounts.expire(NOW, runs) == []
    [posting] = accounts.expire(later, runs)
    assert (posting.request, posting.tokens) == ("1", 300)
    assert (accounts.used("c", later), accounts.spent("c", bounds, later)) == (300, 300)
    assert not list(accounts.open_bookings())
    assert accounts.expire(later + 1, runs) == []
    end(accounts, "1", 40, later + 2)
    assert (accounts.used("c", later + 2), accounts.spent("c", bounds, later + 2)) == (40, 40)
    end(accounts, "1", 40, later + 2)
    assert accounts.bookings == {}


def test_a_process_that_runs_loses_no_booking() -> None:
    accounts = ledger()
    ask(accounts, "1", TOKENS)
    for second in range(0, 3600, 60):
        assert accounts.expire(NOW + second, lambda pid: pid == 7) == []


def test_a_restart_keeps_everything_and_expects_lines_for_a_while() -> None:
    accounts, bounds = ledger(), ClientBounds(10**6, 1e9, 3600)
    for name in ("1", "2"):
        ask(accounts, name, bounds, 300)
    end(accounts, "1", 50)
    restarted = ledger()
    restarted.restore(json.loads(json.dumps(accounts.document())), NOW + 1)
    assert restarted.document()["windows"] == accounts.document()["windows"]
    assert restarted.spent("c", bounds, NOW) == 50
    assert [name for name, _one in restarted.open_bookings()] == ["2"]
    assert restarted.expire(NOW + RESTORED, lambda _pid: True) == []
    assert [one.request for one in restarted.expire(NOW + 1 + RESTORED, lambda _pid: True)] == ["2"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"version": 2, "bookings": {}, "windows": {}, "budgets": {}},
        {"version": 1, "bookings": [], "windows": {}, "budgets": {}},
        {"version": 1, "bookings": {"a": {"x": 1}}, "windows": {}, "budgets": {}},
        {"version": 1, "bookings": {}, "windows": {"c": {"x": 1}}, "budgets": {}},
        {"version": 1, "bookings": {}, "windows": {}, "budgets": {"fleet:spent:c:0": {"known": "x"}}},
        {"version": 1, "bookings": {}, "windows": {}, "budgets": {"c": {"known": 1.0}}},
    ],
)
def test_another_document_is_no_state(document: t.Any) -> None:
    accounts = ledger()
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        accounts.restore(document, NOW)
    assert accounts.document() == ledger().document()


def test_what_no_limit_needs_is_forgotten() -> None:
    accounts, bounds = ledger(), ClientBounds(1000, 1000.0, 3600)
    ask(accounts, "1", bounds)
    end(accounts, "1")
    accounts.forget(NOW + 59)
    assert accounts.windows
    assert accounts.budgets
    accounts.forget(NOW + 3600 * 3)
    assert (accounts.windows, accounts.budgets) == ({}, {})


def test_limits_that_are_reached_are_known_without_a_request() -> None:
    accounts = ledger()
    bounds = ClientBounds(1000, 1000.0, 3600)
    assert accounts.reached("c", bounds, NOW) == []
    ask(accounts, "1", bounds)
    end(accounts, "1", 1000)
    assert [one.finding for one in accounts.reached("c", bounds, NOW)] == [Shortfall.TOKENS, Shortfall.SPENT]


def test_a_request_that_has_ended_meanwhile_is_not_refused() -> None:
    accounts, bounds = ledger(), ClientBounds(1, 1.0)
    accounts.book("1", "c", bounds, "a", 100, 0, 7, NOW)
    end(accounts, "1", 100)
    assert accounts.decide_tokens("1", bounds, NOW) == accounts.decide_budget("1", bounds, NOW) == Admission()
