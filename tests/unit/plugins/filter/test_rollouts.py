from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.filter.rollouts import FilterModule

FILTERS = FilterModule().filters()
INSTANCES = [{"index": 0, "name": "vllm-0", "unit": "vllm@0.service"}, {"index": 1, "name": "vllm-1"}]


@pytest.mark.parametrize(
    ("claim", "releases"),
    [
        (None, [None, None]),
        ({"verb": "rollback", "finished": False, "targets": {"vllm-1": "vllm-old"}}, [None, "vllm-old"]),
        ({"verb": "rollback", "finished": True, "targets": {"vllm-1": "vllm-old"}}, [None, None]),
        ({"verb": "site", "finished": False, "targets": {"vllm-1": "vllm-old"}}, [None, None]),
    ],
)
def test_a_rollback_that_was_broken_off_keeps_its_targets(claim: t.Any, releases: list[str | None]) -> None:
    requests = FILTERS["release_requests"](INSTANCES, claim)
    assert requests == [{"index": 0, "release": releases[0]}, {"index": 1, "release": releases[1]}]


def test_a_rollout_that_was_not_ended_is_told_with_how_far_it_got() -> None:
    claim = {"id": "r1", "verb": "site", "who": "anna", "since": "then", "targets": {"vllm-0": "x"}}
    lines = FILTERS["unfinished_rollouts"](
        [{**claim, "held": False, "done": {"vllm-0": "t"}}, {**claim, "held": False, "done": {}}]
    )
    assert lines == [
        "site r1 of anna, begun then, was stopped: 1 of its 2 hosts are done. The same command goes on with it."
    ]
    assert "is under way, or was broken off" in FILTERS["unfinished_rollouts"]([{**claim, "held": True, "done": {}}])[0]
