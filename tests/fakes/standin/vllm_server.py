"""vLLM as far as the collection sees it: its command line, its parser, its start, its end.

What it writes while it starts is vLLM 0.32's on a CPU, the lines that say something.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
import time
import typing as t

from tests.fakes import engine
from tests.fakes.standin import faults, meeting, options, pace

DISTRIBUTION = "vllm"
#: vLLM's own, where the option is not given.
MAX_NUM_SEQS = 256
KEEP_ALIVE = 5.0
#: What is repeated of the arguments: none that could hold a secret.
REPEATED = ("model", "served_model_name", "host", "port", "max_model_len", "max_num_seqs", "dtype", "shutdown_timeout")


class FlexibleArgumentParser(argparse.ArgumentParser):
    """Takes underscores for dashes in the names of options, and options from a config file."""

    def parse_args(  # type: ignore[override]
        self, args: t.Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        words = list(sys.argv[1:] if args is None else args)
        if "--config" in words:
            words = self._with_config(words)
        return super().parse_args([self._dashed(word) for word in words], namespace)

    @staticmethod
    def _dashed(word: str) -> str:
        if not word.startswith("--"):
            return word
        name, equals, value = word.partition("=")
        return name.replace("_", "-") + equals + value

    @staticmethod
    def _with_config(words: list[str]) -> list[str]:
        """The options of the file, after the subcommand: what is on the command line counts more."""
        place = words.index("--config")
        if place == len(words) - 1:
            raise ValueError("No config file specified! Please check your command-line arguments.")
        found: list[str] = []
        for name, value in options.read_config(words[place + 1]).items():
            # false is dropped without a word: so does vLLM, whose top-level parser does not know the negative form.
            if isinstance(value, bool):
                found += [f"--{name}"] if value else []
            elif isinstance(value, list):
                found += [f"--{name}", *map(str, value)] if value else []
            else:
                found += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
        if "--model" not in found:
            raise ValueError(
                "No model specified! Please specify model either as a positional argument or in a config file."
            )
        return [words[0], *found, *words[1:place], *words[place + 2 :]]


class ServeSubcommand:
    """``vllm serve``."""

    def subparser_init(self, subparsers: t.Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = subparsers.add_parser("serve")
        parser.add_argument("model_tag", nargs="?")
        options.add_to(parser, options.table("vllm_options"))
        return parser

    def validate(self, args: argparse.Namespace) -> None:
        """Refuse what the parser takes and the engine would not.

        Raises:
            ValueError: the environment asks for it, or for a fault that there is not.
        """
        refused = faults.from_environment(os.environ).start.get("refuse")
        if refused:
            raise ValueError(str(refused))

    def cmd(self, args: argparse.Namespace) -> None:
        serve(args, os.environ)


def log(where: str, text: str, process: str = "APIServer", level: str = "INFO") -> None:
    """A line as vLLM writes it."""
    for line in text.splitlines():
        now = time.strftime("%m-%d %H:%M:%S")
        print(f"({process} pid={os.getpid()}) {level} {now} [{where}] {line}", flush=True)


def context_length(requested: int | None, longest: int) -> int:
    """The context length that is served.

    Raises:
        ValueError: the model was not made for it.
    """
    if requested in (None, -1):
        return longest
    length = t.cast(int, requested)
    if length > longest:
        raise ValueError(
            f"1 validation error for ModelConfig\n  Value error, User-specified max_model_len ({length}) is greater "
            f"than the derived max_model_len (max_position_embeddings={float(longest)} or model_max_length=None in "
            "model's config.json). To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."
        )
    return length


def serve(args: argparse.Namespace, environment: t.Mapping[str, str]) -> None:
    """Start, serve until stopped, and stop, as vLLM does.

    Raises:
        OSError: the port is taken, or there is no model.
        ValueError: the context length is not the model's.
        SystemExit: a fault of the start.
    """
    given = faults.from_environment(environment)
    path = args.model_tag or args.model
    served = (args.served_model_name or [path])[0]
    seconds = float(given.start.get("start_seconds", pace.START_SECONDS))
    times = faults.times_as_fast(vars(args), given.start.get("pace"))
    if faults.is_wrong(vars(args), given.start.get("wrong_where")):
        given.run["wrong_answer"] = True
    _said_first(args, path)
    fake = engine.FakeEngine(
        engine="vllm",
        model=served,
        key=(args.api_key or [None])[0],
        other_keys=(args.api_key or [])[1:],
        host=args.host or "0.0.0.0",  # noqa: S104 - as vLLM does; the roles say 127.0.0.1
        port=args.port or 8000,
        first_token=pace.FIRST_TOKEN / times,
        token=pace.TOKEN / times,
        shutdown_timeout=float(args.shutdown_timeout or 0),
        max_running=args.max_num_seqs or MAX_NUM_SEQS,
        max_in_flight=args.max_num_queued_reqs,
        keep_alive=float(environment.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", KEEP_ALIVE)),
        version=importlib.metadata.version(DISTRIBUTION),
        with_cached=bool(args.enable_prompt_tokens_details),
        stream_usage="each" if args.enable_force_include_usage else "asked",
        usage_report=_usage_report(args.middleware),
        remember=False,
    )
    nodes = args.nnodes or 1
    met = meeting.meet(nodes, args.node_rank or 0, args.master_addr, args.master_port) if nodes > 1 else []
    time.sleep(seconds * 0.2)
    architecture, longest = pace.model_of(path)
    log("model.py:733", f"Resolved architecture: {architecture}")
    fake.max_model_len = context_length(args.max_model_len, longest)
    log("model.py:2152", f"Using max model len {fake.max_model_len}")
    _loads(path, fake.max_model_len, fake.max_running or MAX_NUM_SEQS, seconds * 0.7, given.start.get("start_error"))
    if met and args.headless:
        meeting.compute()
    log("entry.py:140", f"Starting vLLM server on http://{fake.host}:{fake.port}")
    time.sleep(seconds * 0.1)
    fake.set_faults(given.run)
    print(f"INFO:     Started server process [{os.getpid()}]\nINFO:     Waiting for application startup.", flush=True)
    print("INFO:     Application startup complete.", flush=True)
    engine.serve(fake, lambda process, text: log("core.py:1635", text, process))


def _usage_report(middleware: str | None) -> t.Any:
    """The module that the middleware brings, if it does: on hosts that an earlier version deployed it does not."""
    if middleware:
        importlib.import_module(middleware.rpartition(".")[0])
    return sys.modules.get("usage_report")


def _said_first(args: argparse.Namespace, path: str) -> None:
    log("api_utils.py:347", f"  █▄█▀ █  version {importlib.metadata.version(DISTRIBUTION)}\n  ▀▀   █  model   {path}")
    given = {name: value for name, value in vars(args).items() if value not in (None, False) and name in REPEATED}
    log("api_utils.py:286", f"non-default args: { ({**given, 'api_key': '***'}) }")


def _loads(path: str, length: int, sequences: int, seconds: float, error: t.Any) -> None:
    """What the engine's core does before the server listens; ends the process where ``error`` is given."""
    core, worker = "EngineCore", "Worker"
    version = importlib.metadata.version(DISTRIBUTION)
    log("core.py:133", f"Initializing a V1 LLM engine (v{version}) with config: model='{path}'", core)
    time.sleep(seconds / 2)
    log("parallel_state.py:1906", "world_size=1 rank=0 local_rank=0 backend=gloo", worker)
    log("cpu_model_runner.py:68", f"Starting to load model {path}...", worker)
    bar = "Loading safetensors checkpoint shards: {:3}% Completed | {}/1 [00:00<00:00, 126.85it/s]"
    print(bar.format(0, 0), flush=True)
    time.sleep(seconds / 2)
    if error is not None:
        log("core.py:1245", f"EngineCore failed to start.\n{faults.start_error(error)}", core, "ERROR")
        sys.exit("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    print(bar.format(100, 1), flush=True)
    log("default_loader.py:501", f"Loading weights took {seconds / 2:.2f} seconds", worker)
    tokens = length * sequences
    each = f"Maximum concurrency for {length:,} tokens per request: {sequences:.2f}x"
    log("kv_cache_utils.py:2327", f"CPU KV cache size: {tokens:,} tokens, {each}", core)
    log("core.py:402", f"init engine (profile, create kv cache, warmup model) took {seconds:.2f} s", core)


def main() -> None:
    parser = FlexibleArgumentParser(prog="vllm", description="A stand-in for the vLLM CLI.")
    parser.add_argument("-v", "--version", action="version", version=importlib.metadata.version(DISTRIBUTION))
    command = ServeSubcommand()
    command.subparser_init(parser.add_subparsers(dest="subparser", required=True))
    args = parser.parse_args()
    command.validate(args)
    command.cmd(args)
