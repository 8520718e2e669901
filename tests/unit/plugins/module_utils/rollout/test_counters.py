from __future__ import annotations

import json
import math
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.rollout.counters import (
    dump,
    edge_counters,
    find_indexes,
    instance_counters,
    load_buckets,
)


def row(proxy: str, server: str, **more: str) -> dict[str, str]:
    return {"pxname": proxy, "svname": server, **more}


ROWS = [
    row("edge_8000", "FRONTEND", hrsp_2xx="900", hrsp_5xx="90"),
    row("instances_8000", "engine-0", hrsp_2xx="50"),
    row("instances_8000", "engine-1", hrsp_2xx="50"),
    row("instances_8000", "BACKEND", hrsp_2xx="100", hrsp_4xx="7", hrsp_5xx="3", hrsp_other="", srv_abrt="2"),
    row("metrics_0", "engine-0", hrsp_2xx="1"),
    row("metrics_0", "BACKEND", hrsp_2xx="1000"),
]


def test_only_what_instances_answered_counts_and_cut_streams_are_errors() -> None:
    assert edge_counters(ROWS) == {"answers": 110, "errors": 5}
    assert find_indexes(ROWS) == [0, 1]
    assert (edge_counters([]), find_indexes([])) == ({"answers": 0, "errors": 0}, [])


def test_an_answer_is_no_more_than_one_error() -> None:
    rows = [row("instances_1", "BACKEND", hrsp_5xx="4", srv_abrt="4")]
    assert edge_counters(rows) == {"answers": 4, "errors": 4}


VLLM = """\
vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="m"} 5.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 7.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="1.0",model_name="m"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf",model_name="m"} 1.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.025",model_name="m"} 90.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="m"} 100.0
"""
SGLANG = """\
sglang:time_to_first_token_seconds_bucket{is_streaming="true",le="1",model_name="m",tp_rank="0"} 5.0
sglang:time_to_first_token_seconds_bucket{is_streaming="true",le="1",model_name="m",tp_rank="1"} 5.0
sglang:time_to_first_token_seconds_bucket{is_streaming="false",le="1",model_name="m",tp_rank="0"} 2.0
sglang:time_to_first_token_seconds_bucket{is_streaming="true",le="+Inf",model_name="m",tp_rank="0"} 9.0
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VLLM, {"ttft": [[1.0, 6.0], [None, 8.0]], "itl": [[0.025, 90.0], [None, 100.0]]}),
        (SGLANG, {"ttft": [[1.0, 5.0], [None, 9.0]], "itl": []}),
        ("process_cpu_seconds_total 1\n", None),
        ("<html></html>", None),
        ('vllm:time_to_first_token_seconds_bucket{le="x"} 1\n', None),
    ],
)
def test_each_engine_names_its_histograms(text: str, expected: t.Any) -> None:
    assert instance_counters(text) == expected


def test_a_histogram_passes_json() -> None:
    buckets = {0.1: 1.0, math.inf: 3.0}
    assert load_buckets(json.loads(json.dumps(dump(buckets)))) == buckets
    for other in (None, [], "x", [1], [["a", "b"]], 5):
        assert load_buckets(other) == {}
