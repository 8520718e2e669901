from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.modules import api_key
from ansible_collections.inference.fleet.plugins.plugin_utils.variables.checks import (
    FLEET,
    name_problem,
    reported,
    specs_of,
    value_problem,
)

SPECS = specs_of(
    {
        "edge": {"main": {"options": {"edge_port": {"type": "int", "required": True}, "edge_tls": {"type": "bool"}}}},
        "vllm": {"main": {"options": {"vllm_max_model_len": {"type": "int"}}}, "fit": {"options": {}}},
    }
)
PREFIXES = ["edge_", "vllm_"]


def test_fields_of_clients_are_those_of_the_key_store() -> None:
    assert set(FLEET["fleet_clients"]["options"]) == set(api_key.ARGUMENTS["clients"]["options"])


@pytest.mark.parametrize(
    ("name", "value", "option", "said"),
    [
        ("edge_port", "80a0", {"type": "int"}, "edge_port is '80a0': it must be a whole number."),
        ("edge_port", 99999, {"type": "int"}, "edge_port is 99999: a port is a number from 1 to 65535."),
        ("edge_tls", "maybe", {"type": "bool"}, "edge_tls is 'maybe': it must be true or false."),
        ("edge_list", {"a": 1}, {"type": "list"}, "edge_list is {'a': 1}: it must be a list."),
        ("model_x", "hub", {"type": "str", "choices": ["s3", "path"]}, "model_x is 'hub': valid are s3, path."),
        ("rollout_stop_on_alarms", "x", {"type": "raw"}, "which is no list of alarms' names."),
        ("rollout_stop_on_alarms", [7], {"type": "raw"}, "has 7, which is no alarm's name"),
        (
            "fleet_hourly_price",
            0,
            FLEET["fleet_hourly_price"],
            "fleet_hourly_price is 0; it must be US dollars per hour",
        ),
        (
            "fleet_hourly_price",
            {"g6e": 1},
            FLEET["fleet_hourly_price"],
            "which is no instance type, such as g6e.xlarge.",
        ),
        ("edge_queue_timeout", "10 minutes", {"type": "raw"}, "edge_queue_timeout is '10 minutes': a time is"),
        ("edge_queue_timeout", "500ms", {"type": "raw"}, "it must be whole seconds."),
        (
            "edge_max_body_bytes",
            "64 megs",
            {"type": "raw"},
            "edge_max_body_bytes is '64 megs': a size is a number of B",
        ),
        ("edge_max_body_bytes", 1.5, {"type": "raw"}, "it must be whole B."),
        ("litellm_master_key", ["a"], {"type": "int"}, "litellm_master_key is not valid: it must be a whole number."),
        ("redis_url", [1], {"type": "dict"}, "redis_url is not valid"),
        ("fleet_engine", "tgi", FLEET["fleet_engine"], "fleet_engine is 'tgi': valid are vllm, sglang."),
        (
            "fleet_clients",
            [{"name": "a", "requests_per_minut": 3}],
            FLEET["fleet_clients"],
            "it has no field fleet_clients.requests_per_minut, valid are budget,",
        ),
        ("rollout_waves", [1, "25 percent"], {"type": "raw"}, "rollout_waves has '25 percent', which is neither"),
        ("rollout_waves", [1], {"type": "raw"}, "which never reaches 100 %"),
        ("fleet_key_max_age", "a month", {"type": "str"}, "Give a number with its unit"),
        ("fleet_clients", [{"name": "a", "expires": "soon"}], FLEET["fleet_clients"], "expires of client a is 'soon'"),
        ("fleet_clients", [{"name": "a", "max_concurrent": "0"}], FLEET["fleet_clients"], "of 1 or more"),
        ("fleet_clients", [{"models": []}], FLEET["fleet_clients"], "missing required arguments: name"),
        (
            "edge_port",
            None,
            {"type": "int", "default": 8000},
            "it has no value; leave the whole line out for its default",
        ),
        ("engine_drain_timeout", None, {"type": "raw", "default": 300}, "it has no value"),
        ("fleet_model", None, FLEET["fleet_model"], "for its default, 'Qwen/Qwen3-VL-8B-Instruct'."),
        ("fleet_model", "", FLEET["fleet_model"], "fleet_model is empty"),
        ("fleet_instances", [{"gpu": [0]}], FLEET["fleet_instances"], "it has no field fleet_instances.gpu"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_valid(name: str, value: t.Any, option: t.Any, said: str) -> None:
    assert said in value_problem(name, value, option)


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("edge_port", "8000", {"type": "int"}),
        ("edge_exporter_port", 0, {"type": "int"}),
        ("edge_queue_timeout", "10m", {"type": "raw"}),
        ("rollout_pause", "500ms", {"type": "raw"}),
        ("vllm_kv_cache_memory_bytes", None, {"type": "raw"}),
        ("engine_min_free_gib", "500MiB", {"type": "raw"}),
        ("fleet_clients", [{"name": "a"}, {"name": "b", "budget": 1.5}], FLEET["fleet_clients"]),
        ("edge_tls", "yes", {"type": "bool"}),
        ("anything", {"a": [1]}, {"type": "raw"}),
        ("vllm_max_model_len", None, {"type": "int"}),
        ("vllm_max_num_seqs", None, {"type": "int", "default": "{{ __vllm_profile.max_num_seqs }}"}),
        ("edge_tls_ca", None, {"type": "str", "default": ""}),
    ],
)
def test_a_right_value_is_taken(name: str, value: t.Any, option: t.Any) -> None:
    assert value_problem(name, value, option) == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vllm_max_modellen", "vllm_max_modellen is read by nothing; did you mean vllm_max_model_len?"),
        ("vlm_max_model_len", "did you mean vllm_max_model_len?"),
        ("fleet_instance", "did you mean fleet_instances?"),
        ("vllm_quantisation", "the nearest variable of role vllm is vllm_max_model_len."),
    ],
)
def test_a_slip_in_a_name_is_named_with_the_nearest(name: str, said: str) -> None:
    assert said in name_problem(name, SPECS, PREFIXES, set())


@pytest.mark.parametrize("name", ["edge_port", "my_variable", "ansible_host", "vllm_bucket", "team", "fleet"])
def test_an_operators_own_name_is_left_alone(name: str) -> None:
    assert name_problem(name, SPECS, PREFIXES, {"vllm_bucket"}) == ""


def test_a_problem_that_hosts_share_is_one_line() -> None:
    problems = {"a": ["x is 1: it must be a list."], "b": ["x is 1: it must be a list.", "y."], "c": []}
    assert reported(problems) == ["x is 1: it must be a list. On a, b.", "y. On b."]
