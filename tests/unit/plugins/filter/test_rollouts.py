from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.filter.rollouts import FilterModule

from tests.unit.plugins.plugin_utils.rollout.rollouts import claim, status

FILTERS = FilterModule().filters()
INSTANCES = [{"index": 0, "name": "vllm-0", "unit": "vllm@0.service"}, {"index": 1, "name": "vllm-1"}]


@pytest.mark.parametrize(
    ("claim", "releases"),
    [
        (None, [None, None]),
        ({"verb": "rollback", "finished": False, "targets": {"vllm-1": "vllm-old"}}, [None, "vllm-old"]),
        ({"verb": "rollback", "finished": False, "targets": {"sglang-1": "sglang-old"}}, [None, "sglang-old"]),
        ({"verb": "rollback", "finished": True, "targets": {"vllm-1": "vllm-old"}}, [None, None]),
        ({"verb": "site", "finished": False, "targets": {"vllm-1": "vllm-old"}}, [None, None]),
    ],
)
def test_a_rollback_that_was_broken_off_keeps_its_targets(claim: t.Any, releases: list[str | None]) -> None:
    requests = FILTERS["release_requests"](INSTANCES, claim)
    assert requests == [{"index": 0, "release": releases[0]}, {"index": 1, "release": releases[1]}]


def test_an_instance_has_the_engine_of_its_release() -> None:
    port = {"engine_port": 8100, "health_path": "/health"}
    wanted = [{"index": i, "name": f"vllm-{i}", "engine": "vllm", "unit": f"vllm@{i}", "gpus": [i]} for i in range(3)]
    kept = {"name": "sglang-1", "engine": "sglang", "unit": "sglang@1", **port}
    releases = [{"index": 1, "release": "sglang-b", **kept}, {"index": 2, "engine": ""}]
    found = FILTERS["released_instances"](wanted, releases)
    assert found == [wanted[0], {"index": 1, "gpus": [1], **kept}, wanted[2]]


def test_an_unfinished_rollout_is_reported_with_its_progress() -> None:
    claim = {"id": "r1", "verb": "site", "who": "anna", "since": "then", "targets": {"vllm-0": "x"}}
    lines = FILTERS["unfinished_rollouts"](
        [{**claim, "held": False, "done": {"vllm-0": "t"}}, {**claim, "held": False, "done": {}}]
    )
    assert lines == [
        "site r1 of anna, begun then, was stopped: 1 of its 2 hosts are done. The same command goes on with it."
    ]
    assert "is under way, or was broken off" in FILTERS["unfinished_rollouts"]([{**claim, "held": True, "done": {}}])[0]


def test_a_drain_by_hand_is_refused_where_a_rollout_holds_the_rest() -> None:
    held = {**status(0), "rollout": dataclasses.asdict(claim())}
    groups = {"inference": ["gpu-1", "gpu-2"], "gateway": ["gw-1", "gw-2"]}
    seen = {"gpu-1": held, "gpu-2": status(0), "gw-1": status(0), "gw-2": {"unreachable": True}}
    (problem,) = FILTERS["drain_problems"](seen, ["gpu-2", "gw-1"], groups)
    assert problem.startswith("Another rollout holds gpu-1: rolling_restart r1 by anna@laptop on laptop since ")
    assert "-e drain_accept_downtime=true" in problem
    assert FILTERS["drain_problems"](seen, ["gpu-1", "gw-1"], groups) == []
