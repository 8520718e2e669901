"""Toy: its command line, its options, its start and its end. Standard library only, Python 3.9 and newer."""

from __future__ import annotations

import os
import sys
import time
import typing as t

from tests.fakes import engine
from tests.fakes.standin import faults, options, pace

#: What an option takes.
OPTIONS: dict[str, type] = {
    "address": str,
    "alias": str,
    "context": int,
    "gpus": int,
    "patience": float,
    "port": int,
    "secret": str,
    "share": float,
    "slots": int,
    "tools": str,
    "weights": str,
}


class Refused(Exception):
    """The options are none that it takes."""


def known_options() -> list[str]:
    return sorted(OPTIONS)


def read_options(path: str) -> dict[str, t.Any]:
    """The options in a config file.

    Raises:
        Refused: one of them is not known, or its value is none.
    """
    given = options.read_config(path)
    unknown = [f"--{name}" for name in given if name not in OPTIONS]
    if unknown:
        raise Refused(f"unrecognized arguments: {' '.join(unknown)}")
    refused = faults.from_environment(os.environ).start.get("refuse")
    if refused:
        raise Refused(str(refused))
    found = {}
    for name, value in given.items():
        try:
            found[name] = OPTIONS[name](value)
        except (TypeError, ValueError):
            raise Refused(f"argument --{name}: invalid {OPTIONS[name].__name__} value: {value!r}") from None
    if "weights" not in found:
        raise Refused("the following arguments are required: --weights")
    return found


def say(text: str) -> None:
    print(f"toy: {text}", flush=True)


def run(given: dict[str, t.Any], environment: t.Mapping[str, str]) -> None:
    """Load, serve until it is stopped, and stop.

    Raises:
        OSError: the port is taken, or there is no model.
        SystemExit: the context is longer than the model's, or a fault of the start.
    """
    wrong = faults.from_environment(environment)
    seconds = float(wrong.start.get("start_seconds", pace.START_SECONDS))
    say(f"options { ({name: value for name, value in given.items() if name != 'secret'}) }")
    fake = engine.FakeEngine(
        engine="toy",
        model=given.get("alias", "toy"),
        key=given.get("secret"),
        host=given.get("address", "127.0.0.1"),
        port=given.get("port", 8000),
        first_token=pace.FIRST_TOKEN,
        token=pace.TOKEN,
        shutdown_timeout=given.get("patience", 0.0),
        max_running=given.get("slots", 4),
        remember=False,
    )
    _architecture, longest = pace.model_of(given["weights"])
    say("loading 0%")
    time.sleep(seconds / 2)
    length = given.get("context", longest)
    if length > longest:
        sys.exit(f"toy: {length} tokens are more than {longest}")
    if "start_error" in wrong.start:
        sys.exit(f"toy: {faults.start_error(wrong.start['start_error'])}")
    say("loading 100%")
    time.sleep(seconds / 2)
    fake.max_model_len = length
    say(f"room for {length * given.get('slots', 4)} tokens, {length} each")
    fake.set_faults(wrong.run)
    say("open for requests")
    engine.serve(fake, lambda _process, text: say(text))


def main() -> None:
    words = sys.argv[1:]
    if len(words) != 2 or words[0] != "run":
        sys.exit("usage: toy run CONFIG")
    try:
        given = read_options(words[1])
    except Refused as refused:
        sys.exit(f"toy: error: {refused}")
    run(given, os.environ)
