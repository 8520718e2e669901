"""SGLang as far as the collection sees it: ``python -m sglang.launch_server``, its parser, its start, its end.

What it writes while it starts is SGLang 0.5.23's, the lines that say something; the key too, unless --log-level keeps
it from it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import threading
import time
import typing as t

from tests.fakes import engine
from tests.fakes.standin import faults, meeting, options, pace

DISTRIBUTION = "sglang"
#: What SGLang works out on a small GPU.
MAX_RUNNING_REQUESTS = 64
#: SGLang waits for requests in flight without a limit of its own: the unit's is the limit.
FOR_EVER = 86400.0


class ServerArgs:
    """What the server's parser is made from."""

    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> None:
        options.add_to(parser, options.table("sglang_options"))


class ConfigArgumentMerger:
    """Puts the options of a config file before those of the command line."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        by_name = {name.lstrip("-"): action for action in parser._actions for name in action.option_strings}
        self._flags = {name for name, action in by_name.items() if type(action) is argparse._StoreTrueAction}
        self._refused = {
            name: type(action).__name__
            for name, action in by_name.items()
            if action.nargs == 0 and name not in {*self._flags, "help", "h"}
        }

    def merge_config_with_args(self, cli_args: list[str]) -> list[str]:
        if "--config" not in cli_args:
            return cli_args
        place = cli_args.index("--config")
        if place == len(cli_args) - 1:
            raise ValueError("No config file specified after --config flag!")
        found: list[str] = []
        for name, value in options.read_config(cli_args[place + 1]).items():
            found += self._words(name, value)
        return [*found, *cli_args[:place], *cli_args[place + 2 :]]

    def _words(self, name: str, value: t.Any) -> list[str]:
        if name in self._refused:
            option = name.replace("-", "_")
            raise ValueError(f"Unsupported config option '{option}' with action '{self._refused[name]}'")
        if isinstance(value, bool):
            return ([f"--{name}"] if value else []) if name in self._flags else [f"--{name}", str(value).lower()]
        if isinstance(value, list):
            return [f"--{name}", *map(str, value)] if value else []
        return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]


def refuse(environment: t.Mapping[str, str]) -> None:
    """Refuse what the environment asks to refuse, and a fault that there is not.

    Raises:
        ValueError: so it is.
    """
    refused = faults.from_environment(environment).start.get("refuse")
    if refused:
        raise ValueError(str(refused))


class Log:
    """Lines as SGLang writes them, where its level lets them through."""

    def __init__(self, level: str | None) -> None:
        self._verbose = (level or "info").lower() in ("debug", "info")

    def info(self, text: str) -> None:
        if self._verbose:
            print(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}", flush=True)


def serve(args: argparse.Namespace, environment: t.Mapping[str, str]) -> None:
    """Start, serve until stopped, and stop, as SGLang does.

    Raises:
        OSError: the port is taken, or there is no model.
        ValueError: the context length is not the model's.
        SystemExit: a fault of the start.
    """
    given = faults.from_environment(environment)
    seconds = float(given.start.get("start_seconds", pace.START_SECONDS))
    times = faults.times_as_fast(vars(args), given.start.get("pace"))
    if faults.is_wrong(vars(args), given.start.get("wrong_where")):
        given.run["wrong_answer"] = True
    log = Log(args.log_level)
    log.info(f"server_args={ {name: value for name, value in vars(args).items() if value not in (None, False)} }")
    running = args.max_running_requests or MAX_RUNNING_REQUESTS
    queued = args.max_queued_requests
    fake = engine.FakeEngine(
        engine="sglang",
        model=args.served_model_name or args.model_path,
        key=args.api_key,
        host=args.host or "127.0.0.1",
        port=args.port or 30000,
        first_token=pace.FIRST_TOKEN / times,
        token=pace.TOKEN / times,
        shutdown_timeout=FOR_EVER,
        max_running=running,
        max_in_flight=None if queued is None else running + queued,
        version=importlib.metadata.version(DISTRIBUTION),
        with_metrics=bool(args.enable_metrics),
        with_cached=bool(args.enable_cache_report),
        stream_usage="end" if args.stream_response_default_include_usage else "asked",
        # sglang_start.py brings it.
        usage_report=sys.modules.get("usage_report"),
        remember=False,
    )
    met = []
    if (args.nnodes or 1) > 1:
        address, _colon, port = args.dist_init_addr.rpartition(":")
        met = meeting.meet(args.nnodes, args.node_rank or 0, address, int(port))
    _loads(args, log, seconds * 0.9, given.start.get("start_error"))
    if met and args.node_rank:
        meeting.compute()
    print(f"INFO:     Started server process [{os.getpid()}]\nINFO:     Application startup complete.", flush=True)
    fake.starting = True
    fake.set_faults(given.run)

    def warmed_up() -> None:
        fake.starting = False
        log.info("The server is fired up and ready to roll!")

    warming = threading.Timer(seconds * 0.1, warmed_up)
    warming.daemon = True
    warming.start()
    engine.serve(fake, lambda process, text: log.info(text))


def _loads(args: argparse.Namespace, log: Log, seconds: float, error: t.Any) -> None:
    """What the scheduler does before the server listens; ends the process where ``error`` is given."""
    time.sleep(seconds / 3)
    _architecture, longest = pace.model_of(args.model_path)
    length = args.context_length or longest
    if length > longest:
        raise ValueError(
            f"User-specified context_length ({length}) is greater than the derived context_length ({longest}). This may"
            " lead to incorrect model outputs or CUDA errors."
        )
    log.info("Init torch distributed begin.")
    log.info("Init torch distributed ends. elapsed=0.01 s, mem usage=0.00 GB")
    log.info("Load weight begin. avail mem=19.59 GB")
    bar = "Multi-thread loading shards: {:3}% Completed | {}/1 [00:00<00:00, 391.30it/s]"
    print(bar.format(0, 0), flush=True)
    time.sleep(seconds / 3)
    if error is not None:
        print(f"Scheduler hit an exception: {faults.start_error(error)}", flush=True)
        sys.exit(1)
    print(bar.format(100, 1), flush=True)
    log.info(f"Load weight end. elapsed={seconds / 3:.2f} s, type=Qwen3VLForConditionalGeneration")
    log.info(f"KV Cache is allocated. #tokens: {length * 4}, K size: 0.03 GB, V size: 0.03 GB")
    time.sleep(seconds / 3)
    log.info(f"max_total_num_tokens={length * 4}, chunked_prefill_size=2048, context_len={length}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="sglang serve")
    ServerArgs.add_cli_args(parser)
    refuse(os.environ)
    serve(parser.parse_args(ConfigArgumentMerger(parser).merge_config_with_args(sys.argv[1:])), os.environ)
