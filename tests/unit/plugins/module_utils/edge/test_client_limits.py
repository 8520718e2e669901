from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge.client_limits import (
    Limits,
    check_limits,
    parse,
    render,
)


@pytest.mark.parametrize(
    ("limits", "value"),
    [
        (Limits(), "team-a"),
        (Limits(600), "team-a|600|0|0|"),
        (Limits(0, 8, 1801353600), "team-a|0|8|1801353600|"),
        (Limits(models=("a/b", "c")), "team-a|0|0|0|,a/b,c,"),
    ],
)
def test_a_value_says_what_it_was_made_of(limits: Limits, value: str) -> None:
    assert render("team-a", limits) == value
    assert parse(value) == ("team-a", limits)


@pytest.mark.parametrize("value", ["intruder", "intruder|", "intruder|x|y|z|", "intruder|1|2|3|4|5"])
def test_what_somebody_else_wrote_is_a_name(value: str) -> None:
    assert parse(value) == ("intruder", Limits())


def test_limits_as_the_store_gives_them() -> None:
    item = {
        "name": "a",
        "requests_per_minute": None,
        "max_concurrent": 3,
        "expires": "2027-01-31",
        "models": ["m", "b"],
    }
    assert check_limits(item) == Limits(0, 3, 1801353600, ("b", "m"))
    assert check_limits({"name": "a"}) == Limits()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"requests_per_minute": 0}, "requests_per_minute of client a is 0. Give at least 1"),
        ({"max_concurrent": -1}, "max_concurrent of client a is -1"),
        ({"expires": "soon"}, "expires of client a is 'soon'"),
        ({"models": ["a b"]}, "'a b' cannot be the name of a model of client a"),
    ],
)
def test_what_cannot_be(item: dict[str, t.Any], message: str) -> None:
    with pytest.raises(FleetError, match=message):
        check_limits({"name": "a", **item})
