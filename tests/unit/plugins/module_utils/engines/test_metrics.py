from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import (
    Load,
    Sample,
    load,
    parse,
    share_of_drafts,
)

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-VL-8B-Instruct"} 3.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-VL-8B-Instruct"} 1.0
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-VL-8B-Instruct"} 2.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen3-VL-8B-Instruct"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-VL-8B-Instruct"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-VL-8B-Instruct"} 0.5
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 7.0
"""

SGLANG = """\
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="0",priority=""} 4.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="1",dp_rank="0",priority=""} 4.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="0",priority="1"} 4.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="1",priority=""} 2.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="0",priority=""} 1.0
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.125
"""


def test_vllm_counts_each_engine() -> None:
    assert load(VLLM) == Load("vllm", 4, 2, 0.5)


def test_sglang_counts_requests_once_that_several_ranks_or_priorities_report() -> None:
    assert load(SGLANG) == Load("sglang", 6, 1, 0.125)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html></html>",
        "process_cpu_seconds_total 12.5\n",
        "vllm:num_requests_running 1\n",
        "vllm:num_requests_running NaN\nvllm:num_requests_waiting 0\n",
    ],
)
def test_half_the_numbers_are_no_load(text: str) -> None:
    assert load(text) is None


def test_an_idle_engine_without_kv_cache_metric_has_a_load() -> None:
    assert load("vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n") == Load("vllm", 0, 0, None)


def test_the_format_is_read_as_written() -> None:
    text = (
        'a{x="quote \\" brace } comma , backslash \\\\ line \\n end",y=""} 1.5e3 1700000000000\n'
        "b +Inf\n"
        'c_bucket{le="1"} 3 # {trace_id="x"} 0.5\n'
        "d  7\n"
        "not a number x\n"
        "{} 1\n"
        "\n"
    )
    assert parse(text) == [
        Sample("a", {"x": 'quote " brace } comma , backslash \\ line \n end', "y": ""}, 1500.0),
        Sample("b", {}, float("inf")),
        Sample("c_bucket", {"le": "1"}, 3.0),
        Sample("d", {}, 7.0),
    ]


def drafts(proposed: float, taken: float) -> str:
    names = ("vllm:spec_decode_num_draft_tokens_total", "vllm:spec_decode_num_accepted_tokens_total")
    return "".join(f'{name}{{engine="0"}} {value}\n' for name, value in zip(names, (proposed, taken)))


def test_what_was_drafted_counts_from_one_look_to_the_next() -> None:
    assert share_of_drafts(drafts(1000, 900), drafts(1200, 950)) == 0.25
    assert share_of_drafts("", drafts(200, 50)) == 0.25
    assert share_of_drafts(drafts(200, 50), drafts(200, 50)) is None
    assert share_of_drafts(VLLM, VLLM) is None


def test_sglang_reports_the_share_itself() -> None:
    assert share_of_drafts("", 'sglang:spec_accept_rate{tp_rank="0"} 0.4\n') == 0.4
    assert share_of_drafts("", 'sglang:spec_accept_rate{tp_rank="0"} 0.0\n') is None
    assert share_of_drafts(SGLANG, SGLANG) is None
