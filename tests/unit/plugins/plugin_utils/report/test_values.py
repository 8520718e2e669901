"""Values of any type, converted to the expected one."""

from __future__ import annotations

import math
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.report import values


@pytest.mark.parametrize(("value", "number"), [(3, 3.0), (-0.5, -0.5), (0, 0.0)])
def test_a_number(value: t.Any, number: float) -> None:
    assert values.as_number(value) == number
    assert values.as_integer(value) == int(number)


@pytest.mark.parametrize("value", [None, "3", True, [], {}, math.nan, math.inf, -math.inf, 1e18])
def test_what_cannot_be_counted_with(value: t.Any) -> None:
    assert values.as_number(value) is None
    assert values.as_integer(value) is None


@pytest.mark.parametrize("value", [None, 3, "x", {"a": 1}])
def test_what_is_no_list(value: t.Any) -> None:
    assert values.as_list(value) == values.as_dicts(value) == []


def test_dictionaries_have_text_for_keys() -> None:
    assert values.as_dict({1: [None]}) == {"1": [None]}
    assert values.as_dict([("a", 1)]) == {}
    assert values.as_dicts([{2: 3}, None, "x", {}]) == [{"2": 3}, {}]


def test_text_is_nothing_only_for_none() -> None:
    assert [values.as_text(value) for value in (None, 0, "", "x")] == ["", "0", "", "x"]
