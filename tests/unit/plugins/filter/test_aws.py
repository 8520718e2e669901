"""What AWS says about hosts, in the rows of a table."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.filter.aws import FilterModule

aws_rows = FilterModule().filters()["aws_rows"]


def test_only_the_first_row_of_a_host_has_it() -> None:
    rows: list[dict[str, t.Any]] = [{"host": "a", "i": 0}, {"host": "a", "i": 1}, {"host": "b"}]
    assert aws_rows(rows, {"a": {"balancer": "healthy 1/1"}}) == [
        {"host": "a", "i": 0, "balancer": "healthy 1/1"},
        {"host": "a", "i": 1},
        {"host": "b"},
    ]
