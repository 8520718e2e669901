from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.clients import limits, schema
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

ALL: dict[str, t.Any] = {
    "models": ("a", "b"),
    "requests_per_minute": 60,
    "max_concurrent": 4,
    "expires": "2027-01-31T00:00:00Z",
    "tokens_per_minute": 1000,
    "budget": 2.5,
    "budget_period": "30d",
}


def test_limits_as_a_person_gives_them() -> None:
    given = {"models": ["b", "a", "b"], "requests_per_minute": 60, "max_concurrent": None, "expires": "2027-01-31"}
    assert limits.check({"name": "a", **given}) == Limits(
        {"models": ("a", "b"), "requests_per_minute": 60, "expires": "2027-01-31T00:00:00Z"}
    )
    assert limits.check({"name": "a", "other": 1, "budget_period": ""}) == Limits()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"requests_per_minute": 0},
            "requests_per_minute of client a is 0. Give a whole number of 1 or more, or",
        ),
        ({"requests_per_minute": "sk-SECRET"}, "requests_per_minute of client a is (not shown: it looks like a key)"),
        ({"max_concurrent": -1}, "max_concurrent of client a is -1"),
        ({"tokens_per_minute": True}, "tokens_per_minute of client a is True"),
        ({"tokens_per_minute": 1.5}, "tokens_per_minute of client a is 1.5"),
        ({"budget": 0}, "budget of client a is 0. Give a number above 0"),
        ({"budget": "5"}, "budget of client a is '5'"),
        ({"budget_period": "month"}, "budget_period of client a is 'month'. Give a number with its unit"),
        ({"budget_period": "59s"}, "budget_period of client a is '59s'. Give at least 1m, such as 30d."),
        ({"expires": "next year"}, "expires of client a is 'next year'. Give a day such as 2027-01-31"),
        ({"models": ["has space"]}, "'has space' cannot be the name of a model of client a"),
        ({"models": "m"}, "models of client a is 'm'. Give a list."),
    ],
)
def test_what_cannot_be_is_named_with_client_limit_and_value(given: dict[str, t.Any], message: str) -> None:
    [problem] = limits.problems({"name": "a", **given})
    assert problem.startswith(message)
    assert "SECRET" not in problem
    with pytest.raises(FleetError) as caught:
        limits.check({"name": "a", **given})
    assert caught.value.message == problem


def test_all_that_is_wrong_is_reported_at_once() -> None:
    with pytest.raises(FleetError, match=r"max_concurrent of client a is 0\..*budget of client a is -1\."):
        limits.check({"name": "a", "budget": -1, "max_concurrent": 0})


def test_every_limit_is_stored_shown_and_tagged_without_loss() -> None:
    whole = Limits(ALL)
    assert set(ALL) == {row.name for row in schema.LIMITS}
    assert limits.read(limits.document(whole)) == whole
    assert limits.read_texts(limits.texts(whole)) == whole
    assert limits.of({"name": "a", **limits.shown(whole)}) == whole
    for name, value in ALL.items():
        one = Limits({name: value})
        assert limits.read(limits.document(one)) == limits.read_texts(limits.texts(one)) == one
        assert limits.of(limits.shown(one)) == one


def test_what_has_no_bound_is_shown_and_not_stored() -> None:
    assert limits.document(Limits()) == {}
    assert limits.shown(Limits()) == {
        "models": [],
        "requests_per_minute": None,
        "max_concurrent": None,
        "expires": "",
        "tokens_per_minute": None,
        "budget": None,
        "budget_period": "",
    }
    assert limits.read(limits.shown(Limits())) == Limits()


@pytest.mark.parametrize(
    "stored",
    [
        {"requests_per_minute": "sk-SECRET"},
        {"requests_per_minute": True},
        {"budget": "sk-SECRET"},
        {"budget": True},
        {"budget_period": 5},
        {"expires": "sk-SECRET"},
        {"expires": None},
        {"models": "sk-SECRET"},
        {"models": [7]},
        {"sk_other": 1},
    ],
)
def test_what_was_not_stored_by_this_is_an_error_without_its_value(stored: dict[str, t.Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)) as caught:
        limits.read(stored)
    assert "SECRET" not in str(caught.value)


def test_limits_in_few_words() -> None:
    assert limits.brief(Limits(ALL)) == [
        *("60 requests/min", "4 at once", "until 2027-01-31T00:00:00Z", "1000 tokens/min", "budget 2.5 per 30d"),
        "only a, b",
    ]
    assert limits.brief(Limits(ALL), short=True)[2:] == [
        *("until 2027-01-31", "1000 tokens/min", "budget 2.5 per 30d", "only 2 models"),
    ]
    assert limits.brief(Limits({"budget": 5.0})) == ["budget 5 per life"]
    assert limits.brief(Limits({"budget_period": "30d"})) == ["budget_period 30d"]
    assert limits.brief(Limits()) == []
