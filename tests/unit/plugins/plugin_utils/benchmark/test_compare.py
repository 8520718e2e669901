from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.compare import (
    BETTER,
    NONE,
    UNKNOWN,
    WORSE,
    RepeatedFigure,
    compare,
    difference,
    spread,
)

from tests.unit.plugins.plugin_utils.benchmark.benchmarks import measured, record


def of(*values: float) -> RepeatedFigure:
    found = spread(measured("x", "tokens_per_second", *values), "tokens_per_second")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((100, 101, 99), (110, 111, 109), BETTER),
        ((100, 101, 99), (90, 91, 89), WORSE),
        # Their ranges overlap.
        ((100, 120, 90), (110, 111, 109), NONE),
        # They touch, although the medians are further apart than either is wide.
        ((91, 90, 100), (110, 100, 110), NONE),
        # Apart, but no more than the repeats of one of them differ by themselves.
        ((100, 102, 96), (103, 104, 103), NONE),
        ((100, 100, 100), (100, 100, 100), NONE),
        ((100,), (200,), UNKNOWN),
        ((100, 101, 99), (200,), UNKNOWN),
    ],
)
def test_a_difference_inside_the_spread_is_none(
    before: tuple[float, ...], after: tuple[float, ...], verdict: str
) -> None:
    assert difference(of(*before), of(*after), more_is_better=True).verdict == verdict


def test_less_time_is_better() -> None:
    assert difference(of(100, 101, 99), of(50, 51, 49), more_is_better=False).said == "-50% better"
    assert difference(of(100, 101, 99), of(150, 151, 149), more_is_better=False).said == "+50% worse"
    assert difference(of(100, 101, 99), of(100, 101, 99), more_is_better=False).said == "none"


def test_a_figure_that_no_repeat_has_is_none() -> None:
    assert spread(measured("x", "tokens_per_second", 1.0), "first_token") is None
    assert spread({}, "first_token") is None


def test_records_compare_where_the_load_is_the_same() -> None:
    before = record()
    after = record(measured={"at_64": measured("at_64", "tokens_per_second", 1200.0, 1201.0, 1199.0)})
    assert compare(before, after)["at_64"]["tokens_per_second"].verdict == BETTER
    after["measured"]["at_64"]["scenario"] = {**after["measured"]["at_64"]["scenario"], "output_tokens": 64}
    assert compare(before, after) == {}
    assert compare(record(measured={}), record()) == {}
