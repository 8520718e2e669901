from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.cost import (
    instance_price,
    most_tokens,
    usd_per_million,
)

from tests.unit.plugins.plugin_utils.benchmark.benchmarks import measured, record


@pytest.mark.parametrize(
    ("usd", "gpus", "host_gpus", "instances", "expected"),
    [(10.0, 1, 4, 4, 2.5), (10.0, 2, 4, 2, 5.0), (10.0, 0, 0, 2, 5.0), (10.0, 1, 0, 1, 10.0), (None, 1, 1, 1, None)],
)
def test_an_instance_costs_its_part_of_the_host(
    usd: float | None, gpus: int, host_gpus: int, instances: int, expected: float | None
) -> None:
    assert instance_price(usd, gpus, host_gpus, instances) == expected


def test_a_million_tokens_at_the_highest_rate() -> None:
    one = record()
    one["measured"]["at_1"] = measured("at_1", "tokens_per_second", 100.0)
    assert most_tokens(one) == ("at_64", 1000.0)
    # 1.8 $ for 3.6 million tokens.
    assert usd_per_million(one) == pytest.approx(0.5)


def test_what_is_not_known_is_no_number() -> None:
    assert usd_per_million(record(usd_per_hour=None)) is None
    assert usd_per_million(record(measured={})) is None
    assert usd_per_million(record(live=True)) is None
    assert most_tokens(record(measured={})) is None
