# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What differs between the engines, in one table, so that nothing else asks which engine it is.

Pure: text and dictionaries in, text and dictionaries out.
"""

from __future__ import annotations

import dataclasses
import decimal
import difflib
import json
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


@dataclasses.dataclass(frozen=True)
class Engine:
    """What the collection has to know about an engine.

    Attributes:
        name: as in ``engine``.
        title: as its makers write it.
        documentation: where they describe it.
        command: the words that start it with a config file, whose path follows; the first is relative to a runtime,
            and the name of one of a release's files stands for that file.
        check_program: Python that lets the engine's own parser judge a config file; gets its path as argument.
        negatable: whether ``false`` is written as ``no-<option>: true``. vLLM drops ``<option>: false`` without a
            word (its top-level parser does not know the negative form when it reads the file).
        limit_option: the option that bounds the requests that it works on at once.
        default_limit: that bound where nobody sets it. vLLM: 256 below 70 GiB of GPU memory; SGLang works it out from
            the memory, and this is what it comes to at most in practice.
        parallel_option: the option that says how many GPUs share the model.
        key_options: the options that take the host's key when it starts, and what of it: ALL_KEYS, CURRENT_KEY, or
            NOBODYS_KEY, one that is made for this start and that nobody learns.
        several_gpus_by: how CUDA_VISIBLE_DEVICES may name them where there are more than one: ``uuid`` or ``index``.
            SGLang reads each as a number then (``custom_all_reduce_utils.py``).
        clean_exit: how its main process ends when it is told to stop, beside status 0; systemd's word. SGLang ends by
            killing its own process tree.
        reserved: options that the collection sets itself, each with the reason.
        stages_option: the option that says over how many stages its layers are spread.
        span_options: the options of an instance that spans hosts, with places for what ``Span.as_dict`` gives, the
            first node's address and the number of nodes.
        node_options: those of the nodes that answer no requests, with the same places; nothing of theirs may listen
            where the edge looks for the instance.
        span_environment: of its processes, with a place for the node's own address.
        tool_switch: the option without which it refuses ``tool_choice: auto``; empty where naming the parser is enough.
        nested: whether its config has sections with options in them, whose names stay as they are.
        first_port: instance i listens on 127.0.0.1 at this port + i; only the edge and the gate on the host talk to it.
        health_path: where it says that it serves.
    """

    name: str
    title: str
    documentation: str
    command: tuple[str, ...]
    check_program: str
    negatable: bool
    limit_option: str
    default_limit: int
    parallel_option: str
    key_options: dict[str, str]
    several_gpus_by: str
    clean_exit: str
    reserved: dict[str, str]
    stages_option: str = ""
    span_options: dict[str, str] = dataclasses.field(default_factory=dict)
    node_options: dict[str, str] = dataclasses.field(default_factory=dict)
    span_environment: dict[str, str] = dataclasses.field(default_factory=dict)
    tool_switch: str = ""
    nested: bool = False
    first_port: int = 8100
    health_path: str = "/health"

    @property
    def takes_several_keys(self) -> bool:
        """Whether an instance can start with the next key beside the current one."""
        return ALL_KEYS in self.key_options.values()


ALL_KEYS = "all"
CURRENT_KEY = "current"
NOBODYS_KEY = "nobodys"

# The parsers print to stderr and leave with 2 on an error; the last line then lists every option that they know, so
# that a person who mistyped one can be told the nearest.
_VLLM_CHECK = """
import json, sys
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser(prog="vllm")
serve = ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
try:
    arguments = parser.parse_args(["serve", "--config", sys.argv[1]])
    ServeSubcommand().validate(arguments)
finally:
    print(json.dumps(sorted(o.lstrip("-") for a in serve._actions for o in a.option_strings if o.startswith("--"))))
"""

_SGLANG_CHECK = """
import argparse, json, sys
from sglang.srt.server_args import ServerArgs
from sglang.srt.utils.server_args_config_parser import ConfigArgumentMerger
parser = argparse.ArgumentParser(prog="sglang")
ServerArgs.add_cli_args(parser)
try:
    parser.parse_args(ConfigArgumentMerger(parser=parser).merge_config_with_args(["--config", sys.argv[1]]))
finally:
    print(json.dumps(sorted(o.lstrip("-") for a in parser._actions for o in a.option_strings if o.startswith("--"))))
"""

# LiteLLM has no parser: it passes over what it does not know. So this finds the names that its sources know, without
# importing them, which would take longer than its start.
_LITELLM_CHECK = """
import ast, importlib.util, json, pathlib, re, sys
import yaml
place = pathlib.Path(importlib.util.find_spec("litellm").origin).parent
router = ast.parse((place / "router.py").read_text())
start = next(f for c in router.body if isinstance(c, ast.ClassDef) and c.name == "Router"
             for f in c.body if isinstance(f, ast.FunctionDef) and f.name == "__init__")
names = {"router_settings": {a.arg for a in [*start.args.args[1:], *start.args.kwonlyargs]}}
own = ast.parse((place / "__init__.py").read_text()).body
targets = [t for n in own for t in (n.targets if isinstance(n, ast.Assign) else [getattr(n, "target", None)])]
names["litellm_settings"] = {t.id for t in targets if isinstance(t, ast.Name)}
text = "".join(path.read_text() for path in (place / "proxy").rglob("*.py"))
names["litellm_settings"] |= set(re.findall(r'key == "(\\w+)"', text)) | {"cache_params"}
names["litellm_settings"] |= set(re.findall(r'litellm_settings(?:\\.get\\(|\\[)"(\\w+)"', text))
names["general_settings"] = set(re.findall(r'general_settings(?:\\.get\\(|\\[)\\s*"(\\w+)"', text))
known = sorted(f"{section}.{name}" for section in names for name in names[section])
given = yaml.safe_load(open(sys.argv[1]))
unknown = [f"{s}.{n}" for s in names for n in given.get(s) or {} if n not in names[s]]
print(json.dumps(known))
if unknown:
    sys.exit("error: unrecognized arguments: " + " ".join("--" + name for name in unknown))
"""

# Setting these elsewhere would take an instance out of the edge's reach, put its key where it can be read, or leave a
# drain without counters.
_RESERVED = {
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

_NODES = "which hosts an instance spans is fleet_instances[].nodes"

ENGINES: dict[str, Engine] = {
    "vllm": Engine(
        name="vllm",
        title="vLLM",
        documentation="https://docs.vllm.ai",
        command=("bin/vllm", "serve", "--config"),
        check_program=_VLLM_CHECK,
        negatable=True,
        limit_option="max-num-seqs",
        default_limit=256,
        parallel_option="tensor-parallel-size",
        key_options={"api-key": ALL_KEYS},
        several_gpus_by="uuid",
        clean_exit="",
        reserved={
            **_RESERVED,
            "tp": _RESERVED["tensor-parallel-size"],
            **dict.fromkeys(("nnodes", "node-rank", "master-addr", "master-port", "headless"), _NODES),
            "allowed-local-media-path": "a client could make the engine open files of the host",
            "middleware": "the request guard stands there, which refuses what would make the engine open files",
            "disable-log-stats": "a drain waits for the engine's own counters, which are gone with it",
            "uds": "the edge reaches an instance over its loopback port",
        },
        stages_option="pipeline-parallel-size",
        span_options={
            "nnodes": "{count}",
            "node-rank": "{rank}",
            "master-addr": "{first}",
            "master-port": "{meeting_port}",
        },
        node_options={"headless": "true"},
        span_environment={"VLLM_HOST_IP": "{own}"},
        tool_switch="enable-auto-tool-choice",
    ),
    "sglang": Engine(
        name="sglang",
        title="SGLang",
        documentation="https://docs.sglang.ai",
        # With the request guard, which it has no option for.
        command=("bin/python", "sglang_start.py", "--config"),
        check_program=_SGLANG_CHECK,
        negatable=False,
        limit_option="max-running-requests",
        default_limit=256,
        parallel_option="tp-size",
        # With one key alone that key opens the routes that change weights and abort others' requests, too.
        key_options={"api-key": CURRENT_KEY, "admin-api-key": NOBODYS_KEY},
        several_gpus_by="index",
        clean_exit="SIGKILL",
        reserved={
            **_RESERVED,
            "model-path": _RESERVED["model"],
            "tp-size": _RESERVED["tensor-parallel-size"],
            "admin-api-key": "it is made anew at each start, so that nobody has it",
            "enable-custom-logit-processor": "a request could bring code that the engine runs",
            "enable-metrics": "a drain waits for the engine's own counters, which it switches on",
            **dict.fromkeys(("nnodes", "node-rank", "dist-init-addr", "nccl-init-addr"), _NODES),
            "grpc-mode": "the edge speaks HTTP to an instance",
            "skip-server-warmup": "the first question that it asks itself shows that it answers",
        },
        stages_option="pp-size",
        span_options={"nnodes": "{count}", "node-rank": "{rank}", "dist-init-addr": "{first}:{meeting_port}"},
        # There something answers for the node's own health.
        node_options={"port": "{node_port}"},
        # Its processes find each other by a file where they are all of one host.
        span_environment={"SGLANG_HOST_IP": "{own}", "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE": ""},
    ),
}

TOOL_PARSER = "tool-call-parser"

#: How a family of models writes its tool calls, by its names: the parser that each engine has for it. What stands first
#: counts.
TOOL_PARSERS: tuple[tuple[str, dict[str, str]], ...] = (
    (r"qwen3-coder", {"vllm": "qwen3_coder", "sglang": "qwen3_coder"}),
    # Qwen3-VL, too. Qwen3.5 writes them in another way.
    (r"qwen(2\.5|3)(?![.\d])", {"vllm": "hermes", "sglang": "qwen"}),
    (r"hermes", {"vllm": "hermes", "sglang": "hermes"}),
    (r"llama-3\.[123]", {"vllm": "llama3_json", "sglang": "llama3"}),
    (r"mistral|ministral", {"vllm": "mistral", "sglang": "mistral"}),
    (r"gpt-oss", {"vllm": "openai", "sglang": "gpt-oss"}),
    (r"glm-4\.[56]", {"vllm": "glm45", "sglang": "glm"}),
    (r"kimi-k2", {"vllm": "kimi_k2", "sglang": "kimi_k2"}),
)

#: What the instances of a gateway run. It is no engine that a host could be given.
GATEWAY = "litellm"

#: Everything that an instance can run, by the names of its releases and its units.
KINDS: dict[str, Engine] = {
    **ENGINES,
    GATEWAY: Engine(
        name=GATEWAY,
        title="LiteLLM",
        documentation="https://docs.litellm.ai",
        command=("bin/litellm", "--config"),
        check_program=_LITELLM_CHECK,
        negatable=False,
        # It takes what comes; the edge bounds that.
        limit_option="",
        default_limit=100_000,
        parallel_option="",
        # It has the key in its environment.
        key_options={},
        several_gpus_by="index",
        clean_exit="",
        reserved={},
        nested=True,
        first_port=4001,
        # Whatever becomes of its database.
        health_path="/health/liveliness",
    ),
}

#: One thing under two names: vLLM's option, SGLang's, and the variables of the roles where there are any.
COUNTERPARTS: tuple[tuple[str, str], ...] = (
    ("api-server-count", "tokenizer-worker-num"),
    ("block-size", "page-size"),
    ("enable-expert-parallel", "ep-size"),
    ("enable-prefix-caching", "disable-radix-cache"),
    ("enforce-eager", "cuda-graph-backend-decode"),
    ("gpu-memory-utilization", "mem-fraction-static"),
    ("hf-overrides", "json-model-override-args"),
    ("kv-cache-memory-bytes", "max-total-tokens"),
    ("kv-offloading-size", "hicache-size"),
    ("limit-mm-per-prompt", "limit-mm-data-per-request"),
    ("lora-modules", "lora-paths"),
    ("max-loras", "max-loras-per-batch"),
    ("max-model-len", "context-length"),
    ("max-num-batched-tokens", "chunked-prefill-size"),
    ("max-num-queued-reqs", "max-queued-requests"),
    ("max-num-seqs", "max-running-requests"),
    ("mm-encoder-attn-backend", "mm-attention-backend"),
    ("mm-processor-kwargs", "mm-process-config"),
    ("override-generation-config", "preferred-sampling-params"),
    ("root-path", "fastapi-root-path"),
    ("scheduling-policy", "schedule-policy"),
    ("seed", "random-seed"),
    ("speculative-config", "speculative-algorithm"),
    ("tokenizer", "tokenizer-path"),
)

# A text, which stays as it is, or a number with an exponent.
_SMALL = re.compile(r'("(?:[^"\\]|\\.)*")|-?\d+(?:\.\d+)?[eE][+-]?\d+')
_OPTION = re.compile(r"^[a-z0-9][a-z0-9-]*$")


def engine_kind(engine: str) -> dict[str, t.Any]:
    """What the unit of an engine has to know about it.

    Args:
        engine: ``vllm`` or ``sglang``.
    """
    known = ENGINES[engine]
    return {
        "title": known.title,
        "documentation": known.documentation,
        "clean_exit": known.clean_exit,
        "others": [name for name in ENGINES if name != engine],
    }


def render_config(engine: str, options: dict[str, t.Any]) -> str:
    """The engine's YAML config file.

    Args:
        engine: one of KINDS.
        options: option names, with dashes or underscores, and their values. None leaves an option out.

    Raises:
        FleetError: an option's name cannot be one, or two spellings of one option differ.
    """
    rendered: dict[str, t.Any] = {}
    for given, value in options.items():
        name = str(given) if KINDS[engine].nested else plain_name(given)
        if not _OPTION.match(name.replace("_", "-")):
            raise FleetError(f"{given!r} cannot be the name of an engine option: use letters, digits and dashes.")
        if value is None:
            continue
        if isinstance(value, bool) and not value:
            if not KINDS[engine].negatable:
                continue
            name, value = f"no-{name}", True
        if name in rendered and rendered[name] != value:
            raise FleetError(f"The engine option {name} is set twice, to {rendered[name]!r} and to {value!r}.")
        rendered[name] = value
    return "".join(f"{name}: {_json(rendered[name])}\n" for name in sorted(rendered))


def _json(value: t.Any) -> str:
    """JSON that YAML reads as the same; small numbers are written out, because YAML takes 1e-07 for a word."""
    text = json.dumps(value, sort_keys=True)
    return _SMALL.sub(lambda match: match[1] or format(decimal.Decimal(match[0]), "f"), text)


def request_limit(engine: str | None, options: t.Mapping[str, t.Any], edge_limit: int | None) -> int:
    """How many requests an instance works on at once.

    Args:
        engine: one of KINDS; None where nothing is known, which is no room at all.
        options: the engine's.
        edge_limit: how many the edge gives it at once; None where that is not known.
    """
    if engine not in KINDS:
        return 0
    given = {plain_name(name): value for name, value in options.items()}
    wanted = given.get(KINDS[engine].limit_option)
    limit = int(wanted) if wanted else KINDS[engine].default_limit
    return min(limit, edge_limit) if edge_limit else limit


def plain_name(option: t.Any) -> str:
    """An option's name with dashes, as the engines' documentation has it."""
    return str(option).replace("_", "-").lstrip("-")


def reserved_options(engine: str, options: t.Iterable[str]) -> dict[str, str]:
    """Those of ``options`` that a person must not set, each with the reason."""
    reserved = ENGINES[engine].reserved
    return {name: reserved[name] for name in map(plain_name, options) if name in reserved}


def others_option(engine: str, option: str) -> str | None:
    """What ``engine`` calls an option that only the other engine has; None where nothing of the kind is known."""
    name = plain_name(option).removeprefix("no-")
    for vllm, sglang in COUNTERPARTS:
        own, other = (vllm, sglang) if engine == "vllm" else (sglang, vllm)
        if name == other:
            return own
    return None


def explain_refused_options(engine: str, version: str, stderr: str, known: list[str]) -> str:
    """Why the engine's own parser refused a config file, for a person.

    Args:
        engine: ``vllm`` or ``sglang``.
        version: the runtime's, for the message.
        stderr: what the parser printed.
        known: the options that this version has.
    """
    unknown = re.search(r"unrecognized arguments: (.+)", stderr)
    if unknown:
        names = [word.lstrip("-").split("=")[0] for word in unknown.group(1).split() if word.startswith("--")]
        return (
            f"{engine} {version} does not know the option {', '.join(_hint(engine, name, known) for name in names)}. "
            f"Correct it in {engine}_extra_args or the role's variable; nothing was stopped or changed."
        )
    wrong = re.search(r"error: (.+)", stderr)
    if not wrong:
        wrong = re.search(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)", stderr, re.MULTILINE)
    reason = wrong.group(1).strip() if wrong else (stderr.strip().splitlines() or ["it printed no reason"])[-1]
    return f"{engine} {version} refuses its arguments: {reason} Nothing was stopped or changed."


def _hint(engine: str, name: str, known: list[str]) -> str:
    own = others_option(engine, name)
    near = [own] if own else difflib.get_close_matches(name, known, n=3)
    return f"{name} (did you mean {' or '.join(near)}?)" if near else name


def engine_problems(
    extra_args: dict[str, t.Any],
    engine: str,
    version: str,
    accelerator: str,
    locks: dict[str, dict[str, t.Any]],
    options: dict[str, t.Any] | None = None,
    instances: t.Iterable[dict[str, t.Any]] = (),
) -> list[str]:
    """What is wrong with an engine's variables, each with the variable, the value and what is valid.

    Args:
        extra_args: ``<engine>_extra_args``.
        engine: ``vllm`` or ``sglang``.
        version: the wanted version.
        accelerator: ``cuda`` or ``cpu``.
        locks: what the role's locks.yml says.
        options: all that its instances share.
        instances: of this engine, as ``Instance.as_dict`` gives them.
    """
    variable = f"{engine}_extra_args"
    problems = []
    versions = sorted(
        str(lock["version"])
        for lock in locks.values()
        if lock["engine"] == engine and lock["accelerator"] == accelerator
    )
    if version not in versions:
        problems.append(
            f"{engine}_version is {version!r}, for which there is no lock with accelerator {accelerator!r}. "
            f"Valid are: {', '.join(versions) or 'none'}. script/lock makes locks for further versions."
        )
    problems += [
        f"{variable} sets {name}, which the collection sets itself: {reason}."
        for name, reason in reserved_options(engine, extra_args).items()
    ]
    for option in extra_args:
        own = others_option(engine, option)
        if own:
            other = next(known.title for name, known in ENGINES.items() if name != engine)
            problems.append(
                f"{variable} sets {plain_name(option)}, which is an option of {other}; {ENGINES[engine].title} calls "
                f"it {own}."
            )
    try:
        render_config(engine, extra_args)
    except FleetError as error:
        problems.append(f"{variable}: {error.message}")
    given = {plain_name(name): typed(value) for name, value in (options or {}).items() if value is not None}
    return [*problems, *_draft_problems(engine, given), *_parallel_problems(engine, given, instances)]


def tool_options(model: str, engine: str, parser: str | None) -> dict[str, t.Any]:
    """The options with which an engine finds the tool calls in what a model writes.

    Args:
        model: the model's name, by which its family is known.
        engine: ``vllm`` or ``sglang``.
        parser: the engine's name of a parser, ``auto`` for that of the model's family, ``none`` for no tools.

    Returns:
        Nothing where the family is not known.
    """
    if parser == "auto":
        name = model.rsplit("/", 1)[-1].lower()
        parser = next((parsers[engine] for family, parsers in TOOL_PARSERS if re.search(family, name)), None)
    if parser in (None, "", "none"):
        return {}
    switch = ENGINES[engine].tool_switch
    return {TOOL_PARSER: parser, **({switch: True} if switch else {})}


def _parallel_problems(
    engine: str, options: dict[str, t.Any], instances: t.Iterable[dict[str, t.Any]]
) -> t.Iterator[str]:
    """Instances with other GPUs than their engine is told to share."""
    parallel = options.get(ENGINES[engine].parallel_option) or 1
    for instance in instances:
        count, stages = _gpus_of_all_nodes(instance), _stages(options, instance)
        if count % stages:
            yield (
                f"{instance['name']} has {count} GPUs, which cannot be shared out over {stages} pipeline stages. "
                f"Give it a multiple of {stages} in fleet_instances[{instance['index']}].gpus."
            )
        elif count and parallel not in (1, count // stages):
            yield (
                f"{engine}_tensor_parallel_size is {parallel}, and {instance['name']} has {count} GPUs "
                f"(fleet_instances[{instance['index']}].gpus). Leave the one or the other out."
            )


def _stages(options: dict[str, t.Any], instance: dict[str, t.Any]) -> int:
    """Over how many stages the layers are spread: without being told, one for each node, which need the least of each
    other that way."""
    given = options.get("pipeline-parallel-size") or options.get("pp-size")
    return int(given or len(_nodes(instance)) or 1)


def _nodes(instance: dict[str, t.Any]) -> list[str]:
    return list((instance.get("span") or {}).get("nodes", []))


def _gpus_of_all_nodes(instance: dict[str, t.Any]) -> int:
    return len(instance["gpus"]) * max(1, len(_nodes(instance)))


def _draft_problems(engine: str, options: dict[str, t.Any]) -> list[str]:
    """Speculative decoding that lacks the model that drafts."""
    if engine == "vllm":
        config = options.get("speculative-config") or {}
        method, draft = str(config.get("method", "")), config.get("model")
        variable = "vllm_speculative_config"
    else:
        method, draft = str(options.get("speculative-algorithm", "")), options.get("speculative-draft-model-path")
        variable = "sglang_speculative_algorithm"
    if method.lower() not in ("eagle", "eagle3") or draft:
        return []
    return [
        f"{variable} asks for {method}, and there is no draft model. Name one with model_draft, for example "
        "model_draft: {name: organisation/model}, or choose a method that drafts without one, such as ngram."
    ]


def typed(value: t.Any) -> t.Any:
    """A value of ``-e name=value``, which is always text, as what it says: 4, 0.92, true.

    Otherwise the same setting from the command line and from a file would make two releases, and ``false`` would count
    as true.
    """
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if re.fullmatch(r"-?(0|[1-9]\d*)", value):
        return int(value)
    if re.fullmatch(r"-?(0|[1-9]\d*)\.\d+", value):
        return float(value)
    return value


def engine_options(
    instances: list[dict[str, t.Any]], options: dict[str, t.Any], environment: dict[str, t.Any]
) -> list[dict[str, t.Any]]:
    """The options and the environment of each instance, as module engine_release takes them.

    Args:
        instances: of one engine, as ``Instance.as_dict`` gives them.
        options: what they share.
        environment: what they share.
    """
    result = []
    options = {plain_name(name): typed(value) for name, value in options.items()}
    for instance in instances:
        engine, span = ENGINES[instance["engine"]], instance.get("span") or {}
        own: dict[str, t.Any] = {"port": instance["engine_port"], "served-model-name": instance["served_name"]}
        if instance["gpus"]:
            own[engine.parallel_option] = _gpus_of_all_nodes(instance) // _stages(options, instance)
        own_environment = {}
        if span:
            places = {
                **span,
                "count": len(span["nodes"]),
                "first": span["addresses"][0],
                "own": span["addresses"][span["rank"]],
            }
            own[engine.stages_option] = _stages(options, instance)
            texts = {**engine.span_options, **({} if instance["serves"] else engine.node_options)}
            own.update({name: typed(text.format(**places)) for name, text in texts.items()})
            own_environment = {name: value.format(**places) for name, value in engine.span_environment.items()}
        # Indexes: before each start they become the names of the GPUs, which an index is only as long as all answer.
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, instance["gpus"]))} if instance["gpus"] else {}
        result.append(
            {
                "index": instance["index"],
                "served_name": instance["served_name"],
                "options": {**options, **own},
                "environment": {**environment, **gpus, **own_environment},
                "span": span,
            }
        )
    return result
