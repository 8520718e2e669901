from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.waves import check_waves, split

HOSTS = [f"h{number}" for number in range(1, 21)]


def sizes(hosts: int, waves: t.Any, canary: t.Collection[str] = ()) -> list[int]:
    return [len(wave) for wave in split(HOSTS[:hosts], canary, waves)]


@pytest.mark.parametrize(
    ("hosts", "waves", "expected"),
    [
        (20, [1, "25%", "50%", "75%", "100%"], [1, 4, 5, 5, 5]),
        (2, [1, "25%", "50%", "75%", "100%"], [1, 1]),
        (1, [1, "25%", "100%"], [1]),
        (3, ["100%"], [3]),
        (5, ["10%", "100%"], [1, 4]),
        (7, [2, 2, "100%"], [2, 2, 3]),
        (2, [5, "100%"], [2]),
        (4, ["50%", "25%", "100%"], [2, 2]),
        (0, ["100%"], []),
    ],
)
def test_sizes(hosts: int, waves: t.Any, expected: list[int]) -> None:
    assert sizes(hosts, waves) == expected


def test_every_host_is_in_one_wave_and_in_order() -> None:
    for count in range(21):
        waves = split(HOSTS[:count], (), [1, "30%", 2, "100%"])
        assert [host for wave in waves for host in wave] == HOSTS[:count]
        assert all(waves)


def test_the_canary_ring_goes_first_and_shares_count_the_others() -> None:
    assert split(["a", "b", "c", "d", "e"], {"d", "b"}, ["50%", "100%"]) == [["b", "d"], ["a", "c"], ["e"]]


@pytest.mark.parametrize("given", ['[1, "25%", "100%"]', "1, 25%, 100%", [1, "25%", "100%"], ["1", "25 %", "100%"]])
def test_the_command_line_means_what_a_file_means(given: t.Any) -> None:
    assert sizes(8, given) == [1, 1, 6]


@pytest.mark.parametrize("given", [[], "", None, {}, "[]"])
def test_no_wave_is_refused_with_an_example(given: t.Any) -> None:
    with pytest.raises(FleetError, match=r"(names no wave|neither a number).*For example: rollout_waves: \[1, '25%'"):
        check_waves(given)


@pytest.mark.parametrize("item", ["half", 0, -1, "0%", "101%", True, 1.5, None, ["1"]])
def test_what_is_no_size_is_named(item: t.Any) -> None:
    with pytest.raises(FleetError, match="neither a number of hosts from 1 nor a percentage"):
        check_waves([item, "100%"])


@pytest.mark.parametrize("given", [[1], ["50%"], ["100%", 1], [1, 1]])
def test_waves_that_leave_hosts_over_are_refused(given: t.Any) -> None:
    with pytest.raises(FleetError, match="never reaches 100 %: end it with '100%'"):
        check_waves(given)
