from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.options import (
    engine_options,
    engine_problems,
    explain_refused_options,
    render_config,
    request_limit,
    tool_options,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

from tests.fakes.standin.options import table

LOCKS: dict[str, dict[str, t.Any]] = {
    "vllm-0.32.0-cuda": {"engine": "vllm", "version": "0.32.0", "accelerator": "cuda"},
    "vllm-cpu": {"engine": "vllm", "version": "0.32.0", "accelerator": "cpu"},
    "sglang-cpu": {"engine": "sglang", "version": "0.5.23", "accelerator": "cpu"},
}

INSTANCE: dict[str, t.Any] = {"index": 0, "engine": "vllm", "engine_port": 8100, "gpus": [], "served_name": "m"}


def test_the_config_is_yaml_that_says_what_was_set() -> None:
    text = render_config(
        "vllm",
        {"max_model_len": 4096, "limit-mm-per-prompt": {"image": 4}, "served-model-name": ["a: b"], "dtype": "auto"},
    )
    assert yaml.safe_load(text) == {
        "max-model-len": 4096,
        "limit-mm-per-prompt": {"image": 4},
        "served-model-name": ["a: b"],
        "dtype": "auto",
    }


def test_null_is_left_out_because_vllm_would_read_the_word_none() -> None:
    assert render_config("vllm", {"quantization": None}) == ""


def test_false_is_written_in_the_form_that_vllm_does_not_drop() -> None:
    assert yaml.safe_load(render_config("vllm", {"enable-prefix-caching": False})) == {"no-enable-prefix-caching": True}


def test_false_of_a_plain_switch_is_its_absence_for_sglang() -> None:
    assert render_config("sglang", {"enable-metrics": False}) == ""


def test_the_order_of_the_options_does_not_matter() -> None:
    assert render_config("vllm", {"a": 1, "b": 2}) == render_config("vllm", {"b": 2, "a": 1})


def test_two_spellings_that_disagree_are_refused() -> None:
    with pytest.raises(FleetError, match="max-num-seqs is set twice, to 8 and to 16"):
        render_config("vllm", {"max-num-seqs": 8, "max_num_seqs": 16})


@pytest.mark.parametrize("name", ["", "max model len", "a: b", "Ä"])
def test_what_cannot_be_an_option_is_refused(name: str) -> None:
    with pytest.raises(FleetError, match="cannot be the name"):
        render_config("vllm", {name: 1})


@pytest.mark.parametrize(
    ("engine", "name"), [(name, option) for name in ENGINES for option in ENGINES[name].options.reserved]
)
def test_an_option_of_the_collection_cannot_be_set_by_hand(engine: str, name: str) -> None:
    version = LOCKS[f"{engine}-cpu"]["version"]
    problems = engine_problems({name.replace("-", "_"): "x"}, engine, version, "cpu", LOCKS)
    assert len(problems) == 1
    assert f"{engine}_extra_args sets {name}" in problems[0]


@pytest.mark.parametrize(
    ("engine", "option", "reason"),
    [
        ("vllm", "context-length", "which is an option of SGLang; vLLM calls it max-model-len"),
        ("sglang", "max_model_len", "which is an option of vLLM; SGLang calls it context-length"),
        ("sglang", "no-enable-prefix-caching", "which is an option of vLLM; SGLang calls it disable-radix-cache"),
    ],
)
def test_an_option_of_the_other_engine_is_reported_with_its_counterpart(engine: str, option: str, reason: str) -> None:
    version = LOCKS[f"{engine}-cpu"]["version"]
    [problem] = engine_problems({option: 1}, engine, version, "cpu", LOCKS)
    assert f"{engine}_extra_args sets {option.replace('_', '-')}, {reason}" in problem


def test_every_option_is_one_that_its_engine_has_and_a_counterpart_is_of_no_other() -> None:
    known = {
        engine: {name.lstrip("-") for row in table(f"{engine}_options") for name in row["names"]} for engine in ENGINES
    }
    for name, engine in ENGINES.items():
        options = engine.options
        others = set().union(*(known[other] for other in ENGINES if other != name))
        for option in options.means.values():
            assert option in known[name] - others, option
        named = {*options.reserved, *options.aliases, *options.span, *options.node, *engine.launch.key_options}
        named |= {options.parallel, options.stages, options.tool_parser, *filter(None, [options.tool_switch])}
        assert named <= known[name]


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("vllm", {"speculative_config": {"method": "eagle3"}}),
        ("sglang", {"speculative_algorithm": "EAGLE3"}),
    ],
)
def test_a_draft_needs_a_model(engine: str, options: dict[str, t.Any]) -> None:
    version = LOCKS[f"{engine}-cpu"]["version"]
    [problem] = engine_problems({}, engine, version, "cpu", LOCKS, options)
    assert "there is no draft model. Name one with model_draft" in problem
    drafted = {"speculative_config": {"method": "eagle3", "model": "/d"}} if engine == "vllm" else {}
    more = {**options, "speculative_draft_model_path": "/d", **drafted}
    assert engine_problems({}, engine, version, "cpu", LOCKS, more) == []


def test_the_gpus_of_an_instance_and_the_size_of_its_group_have_to_agree() -> None:
    instances = [{"index": 0, "name": "vllm-0", "gpus": [0, 1]}, {"index": 1, "name": "vllm-1", "gpus": [2]}]
    assert engine_problems({}, "vllm", "0.32.0", "cpu", LOCKS, {"tensor-parallel-size": 1}, instances) == []
    [problem] = engine_problems({}, "vllm", "0.32.0", "cpu", LOCKS, {"tensor-parallel-size": 2}, instances)
    assert "vllm_tensor_parallel_size is 2, and vllm-1 has 1 GPUs" in problem
    [problem] = engine_problems({}, "vllm", "0.32.0", "cpu", LOCKS, {"pipeline-parallel-size": 2}, instances)
    assert "vllm-1 has 1 GPUs, which cannot be shared out over 2 pipeline stages" in problem


def test_an_unknown_version_names_those_that_there_are() -> None:
    [problem] = engine_problems({}, "vllm", "0.1.0", "cuda", LOCKS)
    assert "vllm_version is '0.1.0'" in problem
    assert "Valid are: 0.32.0" in problem


def test_nothing_is_wrong_with_nothing() -> None:
    assert engine_problems({}, "vllm", "0.32.0", "cuda", LOCKS) == []


def test_a_misspelt_option_is_reported_with_the_nearest() -> None:
    stderr = "usage: vllm serve ...\nvllm serve: error: unrecognized arguments: --max-modle-len 4096\n"
    message = explain_refused_options("vllm", "0.32.0", stderr, ["max-model-len", "dtype"])
    assert "does not know the option max-modle-len (did you mean max-model-len?)" in message
    assert "nothing was stopped" in message


def test_a_refused_value_is_reported_in_the_parsers_words() -> None:
    stderr = "usage: …\nvllm serve: error: argument --dtype: invalid choice: 'int3' (choose from auto)\n"
    message = explain_refused_options("vllm", "0.32.0", stderr, ["dtype"])
    assert "argument --dtype: invalid choice: 'int3'" in message


def test_a_parser_that_raises_is_reported_with_its_exception() -> None:
    stderr = "Traceback (most recent call last):\n  File ...\nValueError: Cannot set both a and b\n"
    assert "Cannot set both a and b" in explain_refused_options("vllm", "0.32.0", stderr, [])


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("4", 4),
        ("-1", -1),
        ("0.92", 0.92),
        ("true", True),
        ("False", False),
        ("auto", "auto"),
        ("0123", "0123"),
        (4, 4),
    ],
)
def test_the_command_line_means_what_a_file_means(said: t.Any, meant: t.Any) -> None:
    [instance] = engine_options([INSTANCE], {"x": said}, {})
    assert instance["options"]["x"] == meant
    assert type(instance["options"]["x"]) is type(meant)


def test_each_instance_has_its_port_its_name_and_its_gpus() -> None:
    instances = [{**INSTANCE, "index": 1, "engine_port": 8101, "gpus": [2, 3], "served_name": "other"}, INSTANCE]
    shared = {"dtype": "auto", "tensor_parallel_size": 1}
    assert engine_options(instances, shared, {"A": "1"}) == [
        {
            "index": 1,
            "served_name": "other",
            "options": {"dtype": "auto", "port": 8101, "served-model-name": "other", "tensor-parallel-size": 2},
            "environment": {"A": "1", "CUDA_VISIBLE_DEVICES": "2,3"},
            "span": {},
        },
        {
            "index": 0,
            "served_name": "m",
            "options": {"dtype": "auto", "port": 8100, "served-model-name": "m", "tensor-parallel-size": 1},
            "environment": {"A": "1"},
            "span": {},
        },
    ]


def test_stages_of_a_pipeline_share_the_gpus() -> None:
    [planned] = engine_options([{**INSTANCE, "gpus": [0, 1, 2, 3]}], {"pipeline-parallel-size": 2}, {})
    assert planned["options"]["tensor-parallel-size"] == 2


@pytest.mark.parametrize(
    ("engine", "options", "edge", "expected"),
    [
        ("vllm", {"max-num-seqs": 8}, 512, 8),
        ("vllm", {"max_num_seqs": 1024}, 512, 512),
        ("vllm", {}, None, 256),
        ("vllm", {}, 100, 100),
        ("sglang", {"max-running-requests": 48}, None, 48),
        (None, {"max-num-seqs": 8}, 512, 0),
    ],
)
def test_how_many_requests_an_instance_works_on(
    engine: str | None, options: dict[str, int], edge: int | None, expected: int
) -> None:
    assert request_limit(engine, options, edge) == expected


@pytest.mark.parametrize(
    ("model", "vllm", "sglang"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "hermes", "qwen"),
        ("/models/Qwen3-VL-8B-Instruct-FP8", "hermes", "qwen"),
        ("Qwen/Qwen2.5-7B-Instruct", "hermes", "qwen"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder", "qwen3_coder"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json", "llama3"),
        ("openai/gpt-oss-20b", "openai", "gpt-oss"),
    ],
)
def test_tool_calls_are_parsed_as_the_models_family_writes_them(model: str, vllm: str, sglang: str) -> None:
    assert tool_options(model, "vllm", "auto") == {"tool-call-parser": vllm, "enable-auto-tool-choice": True}
    assert tool_options(model, "sglang", "auto") == {"tool-call-parser": sglang}


@pytest.mark.parametrize("parser", ["auto", "none", "", None])
def test_tools_are_off_where_their_form_is_unknown(parser: str | None) -> None:
    assert tool_options("Qwen/Qwen3.5-9B", "vllm", parser) == {}


def test_a_parser_that_is_named_counts_whatever_the_model() -> None:
    assert tool_options("a/b", "vllm", "mistral") == {"tool-call-parser": "mistral", "enable-auto-tool-choice": True}
    assert tool_options("Qwen/Qwen3-8B", "sglang", "none") == {}


def test_every_parser_is_one_that_the_engine_has() -> None:
    known = next(option for option in table("sglang_options") if "--tool-call-parser" in option["names"])
    assert set(ENGINES["sglang"].options.tool_parsers.values()) <= set(known["choices"])


@pytest.mark.parametrize(
    ("engine", "option"),
    [
        ("vllm", "allowed-local-media-path"),
        ("vllm", "allowed_media_domains"),
        ("vllm", "middleware"),
        ("sglang", "enable-custom-logit-processor"),
    ],
)
def test_what_would_open_the_host_to_requests_cannot_be_set_by_hand(engine: str, option: str) -> None:
    version = {"vllm": "0.32.0", "sglang": "0.5.23"}[engine]
    problems = engine_problems({option: "/"}, engine, version, "cpu", LOCKS)
    assert [option.replace("_", "-") in problem for problem in problems] == [True]
