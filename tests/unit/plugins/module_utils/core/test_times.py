from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


def test_a_moment_is_read_as_it_was_written() -> None:
    assert times.moment(1795348800.9) == "2026-11-22T12:00:00Z"
    assert times.seconds("2026-11-22T12:00:00Z") == 1795348800


@pytest.mark.parametrize("moment", ["2026-11-22T12:00:59Z", "2026-11-22T12:00:59+00:00"])
def test_a_table_shows_the_minute(moment: str) -> None:
    assert times.minute(moment) == "2026-11-22 12:00"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (" 30d ", 30 * 86400),
        ("24h", 86400),
        ("90m", 5400),
        ("45s", 45),
        ("1d12h", 36 * 3600),
        ("0m", 0),
        ("1d1h1m1s", 90061),
    ],
)
def test_a_duration(text: str, seconds: int) -> None:
    assert times.duration(text, "max_age") == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "1h1d", "30 d", "1w", "soon", "99999999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(FleetError, match=r"max_age is .* such as 30d"):
        times.duration(text, "max_age")


def test_a_key_in_the_place_of_a_duration_is_not_repeated() -> None:
    with pytest.raises(FleetError, match="looks like a key") as caught:
        times.duration("sk-SECRET", "overlap")
    assert "SECRET" not in caught.value.message


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (59.9, "59s"), (60, "1m"), (3601, "1h1s"), (86400 * 2 + 3600 + 60, "2d1h")]
)
def test_a_duration_has_two_units(seconds: float, said: str) -> None:
    assert times.spoken(seconds) == said


@pytest.mark.parametrize(
    ("text", "moment"),
    [("2027-01-31", "2027-01-31T00:00:00Z"), ("2027-01-31T12:30:00Z", "2027-01-31T12:30:00Z")],
)
def test_a_day_or_a_moment(text: str, moment: str) -> None:
    assert times.check_moment(text, "expires") == moment


@pytest.mark.parametrize("text", ["2027-02-30", "tomorrow", "31.1.2027", "2027-01-31 12:30"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(FleetError, match=r"expires of client a is .*Give a day"):
        times.check_moment(text, "expires of client a")
