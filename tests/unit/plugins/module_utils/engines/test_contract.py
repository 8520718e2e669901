"""The contract of every engine's record: those of the collection, and a third one that exists only in the tests.

An engine without an example here fails: EXAMPLES is part of adding one.
"""

from __future__ import annotations

import ast
import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.progress import PHASES, SERVING, EngineProgress
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import (
    ALL_KEYS,
    CURRENT_KEY,
    MEANINGS,
    NOBODYS_KEY,
    TOOL_FAMILIES,
    Engine,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.log import explain
from ansible_collections.inference.fleet.plugins.module_utils.engines.memory import (
    EngineMemory,
    as_reported,
    engine_memory,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import Load, load
from ansible_collections.inference.fleet.plugins.module_utils.engines.options import (
    engine_kind,
    engine_options,
    engine_problems,
    explain_refused_options,
    find_counterpart,
    render_config,
    request_limit,
    tool_options,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.progress import progress
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import (
    ENGINES,
    GATEWAY,
    GATEWAY_ENGINE,
    KINDS,
    check_engine,
    kind,
    kind_of_unit,
    units,
)
from ansible_collections.inference.fleet.plugins.module_utils.instances.memory import record_of, reported
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import edge_services, plan_instances
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import Gpu, read_options
from ansible_collections.inference.fleet.plugins.module_utils.memory.fit import FITS, fit
from ansible_collections.inference.fleet.plugins.module_utils.model.config import Processor, parse_config
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import DEFAULT, PROFILES, profile_settings

from tests.fakes.toy import overlay
from tests.fakes.toy.toy import ENGINE as TOY

from ..model import model_configs as models

ROLES = Path(__file__).parents[5] / "roles"
ROLE_OF = {**{name: ROLES / name for name in KINDS}, TOY.name: overlay.HERE / "role"}
ALL = [*ENGINES.values(), TOY]


class Example(t.NamedTuple):
    """An engine's output.

    Attributes:
        metrics: a page of them, with 3 running requests, 2 waiting ones and a quarter of the cache in use.
        start: the journal of a start, up to where it serves.
        tokens: of KV cache, that it reports there.
        death: the journal of a start that failed.
        kind, word: of the reason, and what its text has to have.
        options: an instance's, as a person would set them.
    """

    metrics: str
    start: list[str]
    tokens: int
    death: list[str]
    kind: str
    word: str
    options: dict[str, t.Any]


EXAMPLES = {
    "vllm": Example(
        'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 2.0\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.25\n',
        [
            "(EngineCore pid=9) INFO [kv_cache_utils.py:2327] GPU KV cache size: 152,544 tokens, Maximum concurrency "
            "for 32,768 tokens per request: 4.66x",
            "(APIServer pid=9) INFO:     Application startup complete.",
        ],
        152544,
        ["ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"],
        "kv_cache_memory",
        "vllm_gpu_memory_utilization",
        {"max_model_len": 4096, "max_num_seqs": 7},
    ),
    "sglang": Example(
        'sglang:num_running_reqs{tp_rank="0"} 3\nsglang:num_queue_reqs{tp_rank="0"} 2\n'
        'sglang:token_usage{tp_rank="0"} 0.25\n',
        [
            "[2026-11-22 13:29:40] max_total_num_tokens=146000, chunked_prefill_size=4096, max_running_requests=2048, "
            "context_len=32768, available_gpu_mem=5.61 GB",
            "[2026-11-22 13:36:01] The server is fired up and ready to roll!",
        ],
        146000,
        ["RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."],
        "kv_cache_memory",
        "sglang_mem_fraction_static",
        {"context_length": 4096, "max_running_requests": 7},
    ),
    "toy": Example(
        'toy_requests_active{model="m"} 3\ntoy_requests_queued{model="m"} 2\ntoy_cache_ratio{model="m"} 0.25\n',
        ["toy: loading 50%", "toy: room for 8192 tokens, 2048 each", "toy: open for requests"],
        8192,
        ["toy: 4096 tokens are more than 2048"],
        "kv_cache_memory",
        "toy_context to 2048",
        {"context": 4096, "slots": 7},
    ),
}


@pytest.fixture(autouse=True)
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy engine, registered as any other for the time of a test."""
    monkeypatch.setitem(ENGINES, TOY.name, TOY)


every_engine = pytest.mark.parametrize("engine", ALL, ids=lambda engine: engine.name)
every_kind = pytest.mark.parametrize("engine", [*ALL, GATEWAY_ENGINE], ids=lambda engine: engine.name)


def locks(engine: Engine) -> dict[str, t.Any]:
    return {"lock": {"engine": engine.name, "version": "1", "accelerator": "cpu"}}


def planned(engine: Engine, gpus: int = 1) -> list[dict[str, t.Any]]:
    return [one.as_dict() for one in plan_instances(None, engine=engine.name, gpu_count=gpus, served_name="m")]


@every_kind
def test_an_engine_is_known_by_its_name(engine: Engine) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*", engine.name), "it is the name of a unit, a role and a release"
    assert kind(engine.name) is kind_of_unit(f"{engine.name}@0.service") is engine
    assert engine.title
    assert engine.documentation.startswith("https://")
    assert units([engine.name], 3) == [f"{engine.name}@3.service"]
    assert f"{engine.name}@*.service" in units()


@every_kind
def test_a_start_can_be_checked_before_anything_is_stopped(engine: Engine) -> None:
    program, *words = engine.launch.command
    assert program.startswith("bin/")
    for word in words:
        if word.endswith(".py"):
            assert (ROLE_OF[engine.name] / "files" / word).is_file(), word
    ast.parse(engine.launch.check_program)
    assert engine.launch.health_path.startswith("/")
    assert engine.launch.several_gpus_by in ("uuid", "index")


@every_engine
def test_every_part_is_filled(engine: Engine) -> None:
    example = EXAMPLES[engine.name]
    assert example
    assert engine.counters is not None
    assert engine.memory is not None
    for part in (engine.options.reserved, engine.journal.causes, engine.journal.phases, engine.journal.figures):
        assert part
    assert engine.journal.gpu_advice
    assert engine.journal.host_advice.endswith(".")
    assert set(engine.profiles) == set(PROFILES)
    assert engine.options.parallel


@every_engine
def test_only_the_hosts_key_opens_it(engine: Engine) -> None:
    kept = engine.launch.key_options
    assert set(kept.values()) <= {ALL_KEYS, CURRENT_KEY, NOBODYS_KEY}
    assert {ALL_KEYS, CURRENT_KEY} & set(kept.values())
    # A user who sets one would write it where it can be read.
    assert set(kept) <= set(engine.options.reserved)
    assert engine.takes_several_keys is (ALL_KEYS in kept.values())


@every_engine
def test_what_the_collection_sets_is_reserved(engine: Engine) -> None:
    table = engine.options
    assert {"port", table.served_name, table.parallel, *table.node} <= {*table.reserved, table.parallel}
    for option, reason in table.reserved.items():
        [problem] = engine_problems({option.replace("-", "_"): 1}, engine.name, "1", "cpu", locks(engine))
        assert problem == f"{engine.name}_extra_args sets {option}, which the collection sets itself: {reason}."


@every_engine
def test_an_option_that_another_engine_has_is_explained(engine: Engine) -> None:
    assert set(engine.options.means) <= MEANINGS
    for other in ALL:
        shared = set(other.options.means) & set(engine.options.means)
        assert shared
        for meaning in shared:
            theirs, own = other.options.means[meaning], engine.options.means[meaning]
            found = find_counterpart(engine.name, theirs)
            if other is engine:
                assert found is None
                continue
            assert found is not None
            assert found[1] == own
            [problem] = engine_problems({theirs: 1}, engine.name, "1", "cpu", locks(engine))
            assert f"which is an option of {found[0].title}; {engine.title} calls it {own}." in problem


@every_engine
def test_an_option_that_is_not_known_is_explained(engine: Engine) -> None:
    said = f"{engine.name}: error: unrecognized arguments: --contxt=1"
    message = explain_refused_options(engine.name, "1", said, ["context", "other"])
    assert message.startswith(f"{engine.name} 1 does not know the option contxt (did you mean context?)")
    assert f"{engine.name}_extra_args" in message
    why = explain([said], engine)
    assert why is not None
    assert (why.kind, engine.name in why.advice) == ("bad_argument", True)


@every_engine
def test_its_config_is_written_and_read_again(engine: Engine) -> None:
    instances = planned(engine)
    [instance] = engine_options(instances, EXAMPLES[engine.name].options, {})
    text = render_config(engine.name, instance["options"])
    read = yaml.safe_load(text)
    assert read["port"] == engine.launch.first_port
    assert read[engine.options.served_name] == "m"
    assert read[engine.options.parallel] == 1
    assert instance["environment"]["CUDA_VISIBLE_DEVICES"] == "0"
    off = yaml.safe_load(render_config(engine.name, {"some-switch": False}))
    assert off == ({"no-some-switch": True} if engine.options.negatable else None)


@every_engine
def test_its_bound_of_requests_is_known(engine: Engine) -> None:
    assert request_limit(engine.name, EXAMPLES[engine.name].options, None) == 7
    assert request_limit(engine.name, {}, None) == engine.options.default_limit


@every_engine
def test_a_page_of_metrics_is_its_load(engine: Engine) -> None:
    assert load(EXAMPLES[engine.name].metrics) == Load(engine.name, 3, 2, 0.25)


@every_engine
def test_a_start_is_followed_to_its_end(engine: Engine) -> None:
    lines = EXAMPLES[engine.name].start
    assert progress(lines, engine) == EngineProgress(SERVING, "serves", 100)
    assert {phase.phase for phase in engine.journal.phases} <= set(PHASES)
    assert progress(["\rLoading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01]"], engine) is not None
    if engine.journal.options:
        assert re.compile(engine.journal.options)


@every_engine
def test_why_it_ended_is_judged(engine: Engine) -> None:
    example = EXAMPLES[engine.name]
    why = explain(example.death, engine)
    assert why is not None
    assert why.kind == example.kind
    assert example.word in str(why)
    assert explain(example.start, engine) is None
    no_memory = explain(["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 192.00 MiB."], engine)
    assert no_memory is not None
    assert f"{engine.name}_" in no_memory.advice
    for cause in engine.journal.causes:
        groups = {name: "x" for name in re.compile(cause.pattern).groupindex}
        assert cause.reason.format(**groups)
        assert cause.advice.format(**groups)


@every_engine
def test_what_it_reports_of_memory_is_kept_and_taken(engine: Engine) -> None:
    example = EXAMPLES[engine.name]
    found = engine_memory(example.start, engine)
    assert found.kv_cache_tokens == example.tokens
    assert as_reported(found)["kv_cache_tokens"] == example.tokens
    assert {name for figure in engine.journal.figures for name in figure.names} <= set(EngineMemory.__annotations__)
    fraction = engine.options.means["memory_fraction"]
    manifest = {"engine": engine.name, "version": "1", "model_path": "/m", "options": {fraction: 0.5}}
    record = record_of(found, f"{engine.name}-1", manifest, "GPU", "now")
    assert reported(record, engine.name, "/m")["fraction"] == 0.5
    assert reported(record, "other", "/m") == {}


@every_engine
def test_a_model_is_fitted_to_a_gpu(engine: Engine) -> None:
    assert engine.memory is not None
    assert set(engine.memory.variables) == {"length", "fraction", "kv_dtype", "quantization", "tensor_parallel"}
    assert all(variable.startswith(f"{engine.name}_") for variable in engine.memory.variables.values())
    options = read_options(engine.memory, EXAMPLES[engine.name].options, 1)
    model = parse_config(models.QWEN3_VL_8B)
    found = fit(model, models.QWEN3_VL_8B_BYTES, Processor(), [Gpu("NVIDIA L40S", 46068, 609)], options)
    assert (found.verdict, found.length) == (FITS, 4096)
    assert 0 < found.fraction <= 1
    assert found.overhead.total > 0


@every_engine
def test_its_profiles_set_variables_of_its_role(engine: Engine) -> None:
    defaults = yaml.safe_load((ROLE_OF[engine.name] / "defaults/main.yml").read_text())
    for profile in PROFILES:
        named = profile_settings(profile, engine.name)
        assert {f"{engine.name}_{name}" for name in named} <= set(defaults)
    assert engine.profiles[DEFAULT]


@every_kind
def test_units_of_variables_are_those_of_its_role(engine: Engine) -> None:
    defaults = yaml.safe_load((ROLE_OF[engine.name] / "defaults/main.yml").read_text())
    variables = engine.variables
    assert {f"{engine.name}_{name}" for name in (*variables.times, *variables.sizes)} <= set(defaults)
    assert set(variables.fractions) <= {*variables.times, *variables.sizes}
    assert set(variables.sizes.values()) <= {"B", "MiB", "GiB"}


@every_engine
def test_its_role_has_what_the_playbooks_include(engine: Engine) -> None:
    role = ROLE_OF[engine.name]
    for entry in ("main", "validate", "fit"):
        assert (role / "tasks" / f"{entry}.yml").is_file()
    assert (role / "files/locks/locks.yml").is_file()
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    assert {f"{engine.name}_{name}" for name in ("version", "tensor_parallel_size", "extra_args")} <= set(defaults)


@every_engine
def test_tools_are_parsed_as_far_as_it_can(engine: Engine) -> None:
    table = engine.options
    assert set(table.tool_parsers) <= set(TOOL_FAMILIES)
    parser = table.tool_parsers["qwen"]
    expected = {table.tool_parser: parser, **({table.tool_switch: True} if table.tool_switch else {})}
    assert tool_options("Qwen/Qwen3-VL-8B-Instruct", engine.name, "auto") == expected
    assert tool_options("unknown/model", engine.name, "auto") == {}
    assert engine_kind(engine.name)["tool_parser"] == table.tool_parser


@every_engine
def test_an_instance_is_planned_and_asked_where_it_answers(engine: Engine) -> None:
    instances = planned(engine, gpus=2)
    assert [one["unit"] for one in instances] == [f"{engine.name}@0.service", f"{engine.name}@1.service"]
    assert {one["health_path"] for one in instances} == {engine.launch.health_path}
    [service] = edge_services(instances)
    assert service.get("health_path", "/health") == engine.launch.health_path
    assert engine.name not in engine_kind(engine.name)["others"]
    assert set(engine_kind(engine.name)["others"]) == set(ENGINES) - {engine.name}


@every_engine
def test_nodes_of_an_instance_that_spans_hosts_get_their_places(engine: Engine) -> None:
    places = {"count": 2, "rank": 1, "first": "10.0.0.1", "own": "10.0.0.2", "meeting_port": 1, "node_port": 2}
    table = engine.options
    for text in (*table.span.values(), *table.node.values(), *table.span_environment.values()):
        assert "{" not in text.format(**places)
    assert bool(table.span) == bool(table.stages)


@pytest.mark.parametrize("name", ["tgi", "", None, "VLLM", GATEWAY])
def test_an_unregistered_engine_is_refused_and_taken_for_no_other(name: t.Any) -> None:
    with pytest.raises(FleetError, match=r"engine is .*, which is no engine\. Valid are: vllm, sglang, toy\."):
        check_engine(name)
    calls: list[t.Callable[[], t.Any]] = [
        lambda: engine_kind(name),
        lambda: tool_options("m", name, "auto"),
        lambda: engine_problems({}, name, "1", "cpu", {}),
        lambda: profile_settings(DEFAULT, name),
        lambda: plan_instances(None, engine=name, gpu_count=0),
    ]
    for call in calls:
        with pytest.raises(FleetError):
            call()
    if name != GATEWAY:
        calls = [lambda: kind(name), lambda: render_config(name, {}), lambda: kind_of_unit(f"{name}@0.service")]
        for call in calls:
            with pytest.raises(FleetError, match="nothing that an instance can run"):
                call()
        assert request_limit(name, {}, None) == 0
