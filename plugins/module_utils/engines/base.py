# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the collection must know about an engine: a typed record, one module for each engine.

docs/architecture.md, "How to add an engine", lists what a new one needs. Code outside this folder never compares an
engine's name: code that depends on the engine reads a field of ``Engine``.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.memory.base import MemoryModel

ALL_KEYS = "all"
CURRENT_KEY = "current"
NOBODYS_KEY = "nobodys"

#: What an option means, where engines have different names for it. An engine's table maps the meaning to its option;
#: the error for another engine's option suggests the one with the same meaning.
MEANINGS = frozenset(
    (
        "adapters",
        "context_length",
        "expert_parallel",
        "frontend_processes",
        "graphs",
        "image_processor_options",
        "kv_block_size",
        "kv_cache_limit",
        "kv_offload_size",
        "max_adapters",
        "max_queued_requests",
        "max_requests",
        "media_limit",
        "memory_fraction",
        "model_config_overrides",
        "prefix_cache",
        "root_path",
        "sampling_defaults",
        "scheduling_policy",
        "seed",
        "speculation",
        "step_tokens",
        "tokenizer",
        "vision_attention",
    )
)

#: Name patterns of the families of models, by how they write tool calls. The first match counts. An engine's table maps
#: a family to its parser.
TOOL_FAMILIES: dict[str, re.Pattern[str]] = {
    "qwen3-coder": re.compile(r"qwen3-coder"),
    # Also Qwen3-VL. Qwen3.5 has another format.
    "qwen": re.compile(r"qwen(2\.5|3)(?![.\d])"),
    "hermes": re.compile(r"hermes"),
    "llama-3": re.compile(r"llama-3\.[123]"),
    "mistral": re.compile(r"mistral|ministral"),
    "gpt-oss": re.compile(r"gpt-oss"),
    "glm-4": re.compile(r"glm-4\.[56]"),
    "kimi-k2": re.compile(r"kimi-k2"),
}


@dataclasses.dataclass(frozen=True)
class Launch:
    """How to start an instance, and how it exits.

    Attributes:
        command: the words that start it with a config file, whose path follows; the first is relative to a runtime, and
            the name of one of a release's files stands for that file.
        check_program: Python that validates a config file with the engine's own parser; gets its path as argument,
            prints every option that it knows as a JSON list, and exits with a status other than 0 where it refuses one.
        key_options: the options that take the host's key at start, and which key: ALL_KEYS, CURRENT_KEY, or
            NOBODYS_KEY, a random one for this start that is not stored.
        several_gpus_by: how CUDA_VISIBLE_DEVICES may name more than one GPU: ``uuid`` or ``index``.
        clean_exit: how its main process exits when it is stopped, beside status 0, in systemd's terms.
        first_port: instance i listens on 127.0.0.1 at this port + i; only the edge and the gate on the host use it.
        health_path: returns 200 while it serves.
    """

    command: tuple[str, ...]
    check_program: str
    key_options: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    several_gpus_by: str = "index"
    clean_exit: str = ""
    first_port: int = 8100
    health_path: str = "/health"


@dataclasses.dataclass(frozen=True)
class OptionTable:
    """The options of an engine that the collection uses, by its names.

    Attributes:
        means: the option that means one of MEANINGS.
        reserved: options that the collection sets itself, each with the reason.
        served_name: sets the model name that clients use.
        default_limit: how many concurrent requests it handles where no option says so.
        aliases: other names of its options.
        parallel: sets how many GPUs share the model; empty where it has none.
        stages: sets the number of pipeline stages.
        span: options of an instance that spans hosts, with placeholders for ``InstanceSpan.as_dict``, the first node's
            address and the number of nodes.
        node: options of the nodes that serve no requests, with the same placeholders; such a node must not listen where
            the edge looks for the instance.
        span_environment: of its processes, with a placeholder for the node's own address.
        tool_parser: names the parser of tool calls.
        tool_switch: without it ``tool_choice: auto`` is refused; empty where naming the parser is enough.
        tool_parsers: its parser for each of TOOL_FAMILIES that it supports.
        negatable: whether ``false`` is written as ``no-<option>: true``.
        nested: whether its config has sections with options in them, whose names are not changed.
        problems: errors in options that need each other, by their plain names.
    """

    means: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    reserved: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    aliases: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    served_name: str = "served-model-name"
    default_limit: int = 256
    parallel: str = ""
    stages: str = ""
    span: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    node: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    span_environment: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    tool_parser: str = ""
    tool_switch: str = ""
    tool_parsers: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    negatable: bool = False
    nested: bool = False
    problems: t.Callable[[t.Mapping[str, t.Any]], list[str]] = lambda _options: []


@dataclasses.dataclass(frozen=True)
class Counters:
    """The names of an engine's metrics.

    Attributes:
        running, waiting: requests.
        kv_usage: the share of its KV cache in use, from 0 to 1.
        proposed, taken: counters of tokens that a draft proposed and the model took; empty for none.
        taken_share: without these counters, the share of its last steps.
    """

    running: str
    waiting: str
    kv_usage: str = ""
    proposed: str = ""
    taken: str = ""
    taken_share: str = ""


@dataclasses.dataclass(frozen=True)
class Vitals:
    """How a hang of an engine's core shows while its HTTP server still answers, and how to end such a core.

    Attributes:
        progress: metrics that only the core changes, and that change in every step, also within a long prefill, each
            after the function of PromQL that shows a change. Metrics that the HTTP server counts do not belong here.
        finished: the metric that counts finished requests.
        core: pattern of the command line of the core's process, whose end ends the engine with an error for every
            client; empty where the core is no process of its own.
        asks_when_idle: whether to ask a question of one token while nothing else does, which finds a core that hangs
            before a client meets it.
    """

    progress: tuple[tuple[str, str], ...]
    finished: str
    core: str = ""
    asks_when_idle: bool = True


class Histogram(t.NamedTuple):
    """A histogram of an engine.

    Attributes:
        name: without ``_bucket``.
        without: a label and its value in series that do not count.
    """

    name: str
    without: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Exposition:
    """What alerts, dashboards, the status page and rollouts read of an engine beside ``Counters`` and ``Vitals``.

    Both engines have the bounds 1 and 10 s for first tokens and 0.1 s for gaps, so one objective fits both.

    Attributes:
        first_token, token_gap, whole_answer: times in seconds.
        generated, prompted: counters of tokens. An engine may count them only when a request ends.
        generated_now: the tokens of requests in flight too, as a selector.
        cached: counter of the prompts' tokens that came from the cache.
        preempted: counter of requests that lost their place in the cache.
        refused: counter of requests that the engine did not take; empty for none.
    """

    first_token: Histogram
    token_gap: Histogram
    whole_answer: Histogram
    generated: str
    generated_now: str
    prompted: str
    cached: str
    preempted: str
    refused: str = ""


class Cause(t.NamedTuple):
    """A line by which an engine reports why it exited.

    Attributes:
        kind: a short stable name for programs: ``max_model_len``, ``out_of_memory``, …
        pattern: of the line; its named groups fill placeholders in the other two.
        reason: one sentence, with the engine's own figures.
        advice: what a person can do.
    """

    kind: str
    pattern: str
    reason: str
    advice: str


class Phase(t.NamedTuple):
    """A line by which an engine reports what it is doing while it starts.

    Attributes:
        phase: one of core.progress.PHASES.
        pattern: of the line; its named groups fill placeholders in ``text``, and ``percent`` is the share that is done.
        text: the same for a person.
        percent: of the phase, where the line has none.
    """

    phase: str
    pattern: str
    text: str
    percent: int | None = None


class Figure(t.NamedTuple):
    """A line by which an engine reports how much memory it found or took.

    Attributes:
        names: fields of EngineMemory, one for each group.
        pattern: of the line.
        choose: selects among the values of several workers.
        is_sum: whether to add the groups up.
    """

    names: tuple[str, ...]
    pattern: str
    choose: t.Callable[[list[float]], float]
    is_sum: bool = False


@dataclasses.dataclass(frozen=True)
class Journal:
    """What an engine writes to its journal. No rule repeats free text of a line, which may hold a key.

    Attributes:
        causes: why it exited, specific ones before general ones; log.py adds those that all engines share.
        gpu_advice: what to do when the GPU's memory is too small.
        host_advice: what to do when the host's memory is too small.
        programs: the names of its command line in errors; a regular expression.
        options: lines that repeat its options, which may contain any word; a regular expression.
        phases: what it is doing, specific ones before general ones; progress.py adds the progress bars.
        figures: of memory.
    """

    causes: tuple[Cause, ...] = ()
    gpu_advice: str = ""
    host_advice: str = ""
    programs: str = ""
    options: str = ""
    phases: tuple[Phase, ...] = ()
    figures: tuple[Figure, ...] = ()


class Setting(t.NamedTuple):
    """The value that a profile sets for one variable of the engine's role. One for a GPU precedes one for any.

    Attributes:
        name: of the variable, without the role's prefix.
        value: None is the engine's own default.
        why: the reason.
        source: of the reason and the figure.
        gpu: the GPU that it is for, as ``L40S``; empty for any.
    """

    name: str
    value: t.Any
    why: str
    source: str
    gpu: str = ""


class Tunable(t.NamedTuple):
    """A variable of the engine's role that a search of settings varies. Profiles set it.

    What only looks good under a benchmark does not belong here: its prompts have nothing in common, so that without a
    prefix cache it would run faster, and clients would not.

    Attributes:
        name: of the variable, without the role's prefix.
        values: those to try, each with more of the same than the one before.
        why: what a larger value gives, and what it costs.
        own: the engine's own value where the variable is null, on a GPU below 70 GiB; None where that is no number.
        lossy: whether the values decide what the model answers.
    """

    name: str
    values: tuple[t.Any, ...]
    why: str
    own: float | None = None
    lossy: bool = False


@dataclasses.dataclass(frozen=True)
class RoleVariables:
    """The variables of the engine's role with units, without its prefix.

    Attributes:
        times: times; a plain number is seconds.
        sizes: sizes, each with the unit of a plain number.
        fractions: those of both that may have a fraction.
    """

    times: tuple[str, ...] = ()
    sizes: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    fractions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Program:
    """A program that an engine runs while it serves.

    Attributes:
        name: its name.
        packages: those of the distribution that bring it, one of which is enough.
        why: why it is needed.
        without: the consequence where it is missing.
        fix: what to do where it is missing.
    """

    name: str
    packages: tuple[str, ...]
    why: str
    without: str
    fix: str


class AnswerCache(t.NamedTuple):
    """A cache of answers.

    Attributes:
        bypass: the parameters of a request that bypass it.
        header: identifies a cached answer.
    """

    bypass: t.Mapping[str, t.Any]
    header: str


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine, or what a gateway runs.

    Attributes:
        name: as in ``engine``, in the names of its units and releases, and before its role's variables.
        title: as its makers write it.
        documentation: where they describe it.
        launch: how it is started.
        options: those that the collection deals with.
        journal: what it writes.
        counters: its metrics; None where it has none, and the edge counts its requests.
        vitals: how a hang shows; None where that is unknown, so that no watchdog restarts it.
        exposition: what alerts and dashboards read; None where it has none.
        variables: those of its role that take units.
        memory: how it uses a GPU's memory; None where that is unknown, so that nothing is refused.
        profiles: what each profile of plugin_utils/fleet/profiles.py sets, ``balanced`` being the role's defaults.
        tunables: what a search of settings varies, the most promising first.
        programs: what it needs on a host beside what all engines need, by accelerator.
        cache: of answers; None where it keeps none.
    """

    name: str
    title: str
    documentation: str
    launch: Launch
    options: OptionTable = OptionTable()
    journal: Journal = Journal()
    counters: Counters | None = None
    vitals: Vitals | None = None
    exposition: Exposition | None = None
    variables: RoleVariables = RoleVariables()
    memory: MemoryModel | None = None
    profiles: t.Mapping[str, tuple[Setting, ...]] = dataclasses.field(default_factory=dict)
    tunables: tuple[Tunable, ...] = ()
    programs: t.Mapping[str, tuple[Program, ...]] = dataclasses.field(default_factory=dict)
    cache: AnswerCache | None = None

    @property
    def takes_several_keys(self) -> bool:
        """Whether an instance can start with both the current and the next key."""
        return ALL_KEYS in self.launch.key_options.values()

    def variable(self, setting: str) -> str:
        """The role's variable for one of MEANINGS, or for an option's own name."""
        option = self.options.means.get(setting, setting)
        return f"{self.name}_{option.replace('-', '_')}"


def smallest(values: list[float]) -> float:
    """Of workers on several GPUs, the one with the least left."""
    return min(values)


def largest(values: list[float]) -> float:
    """Of workers on several GPUs, the one that took most."""
    return max(values)


def first(values: list[float]) -> float:
    """The sum of a pool and those of a draft model, which follow it."""
    return values[0]


def last(values: list[float]) -> float:
    """The last figure; earlier ones are estimates."""
    return values[-1]


#: A size as engines print it; they mean GiB, also where they write GB.
SIZE = r"(-?\d+(?:\.\d+)?) Gi?B"
COUNT = r"([\d,]+)"

#: Options that every engine reserves under these names, with the reason: setting them would take an instance out of the
#: edge's reach, expose its key, or leave a drain without counters.
RESERVED = {
    "allowed-media-domains": "the role's variable allowed_media_domains says it to the request guard, too",
    "api-key": "the engine's key is made on the host; clients' keys belong in fleet_clients",
    "config": "the collection writes the config file",
    "host": "an engine listens on the loopback interface only; the edge is what the network sees",
    "model": "the model is fleet_model, and where it lies on the host is for role model to say",
    "port": "an instance's port follows from its index; the edge's port is edge_port or fleet_instances[].port",
    "served-model-name": "edge and gate have to know it: fleet_served_name, or fleet_instances[].served_name",
    "ssl-certfile": "TLS belongs to the edge: edge_tls_certificate",
    "ssl-keyfile": "TLS belongs to the edge: edge_tls_certificate",
    "tensor-parallel-size": "the instance's GPUs say it: the role's tensor_parallel_size, or fleet_instances[].gpus",
}
NODES = "which hosts an instance spans is fleet_instances[].nodes"

#: The sources of profiles' settings.
FIT = "module vram_fit"
ALB = "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html"
TUNING = "https://docs.vllm.ai/en/stable/configuration/optimization/"
MEASURED = "measured on an H200 with this architecture, vLLM 0.26 and SGLang 0.5.17: docs/benchmarks.md"

#: The consequence of a missing program, and how to install it.
ENDS = "the first request that needs it ends the engine for everybody"
INSTALL = "leave engine_packages at its default, or run: apt-get install"

NO_DRAFT = (
    "{variable} asks for {method}, and there is no draft model. Name one with model_draft, for example "
    "model_draft: {{name: organisation/model}}, or choose a method that drafts without one, such as ngram."
)
