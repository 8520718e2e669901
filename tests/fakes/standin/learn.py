"""Ask an engine's parser which options it has, and print the table that ``options`` reads.

To be run by the Python of a runtime that has the engine, from any directory::

    RUNTIME/bin/python tests/fakes/standin/learn.py vllm > tests/fakes/standin/vllm_options.json

The tables here are those of vLLM 0.32.0 and SGLang 0.5.23.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import typing as t

#: Words that distinguish the kinds of values, and for each kind those that it takes; "None" is checked separately.
WORDS = ("5", "5.5", "5k", "auto", "word", "{}", "[]")
KINDS = {
    WORDS: "text",
    ("5",): "int",
    ("5", "5.5"): "float",
    ("5", "5k"): "size",
    ("5", "5k", "auto"): "length",
    ("5", "5.5", "{}", "[]"): "json",
    ("{}",): "object",
}


def parser_of(engine: str) -> argparse.ArgumentParser:
    """The parser of the engine's server."""
    if engine == "vllm":
        serve = importlib.import_module("vllm.entrypoints.cli.serve")
        utils = importlib.import_module("vllm.utils.argparse_utils")
        top = utils.FlexibleArgumentParser(prog="vllm")
        parser: argparse.ArgumentParser = serve.ServeSubcommand().subparser_init(top.add_subparsers(dest="subparser"))
        return parser
    parser = argparse.ArgumentParser(prog="sglang")
    importlib.import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    return parser


def row(parser: argparse.ArgumentParser, action: argparse.Action) -> dict[str, t.Any]:
    """What is kept of an option."""
    names = list(action.option_strings)
    if isinstance(action, argparse.BooleanOptionalAction):
        return {"names": names, "kind": "switch"}
    if action.nargs == 0:
        # SGLang refuses in a config file what is not plainly store_true.
        return {"names": names, "kind": "flag" if type(action) is argparse._StoreTrueAction else "deprecated"}
    kind = "text" if action.choices else KINDS[tuple(word for word in WORDS if _takes(parser, action, word))]
    if action.choices and all(isinstance(choice, int) for choice in action.choices):
        kind = "int"
    optional = kind != "text" and _takes(parser, action, "None")
    found: dict[str, t.Any] = {"names": names, "kind": kind + ("?" if optional else "")}
    if action.nargs is not None:
        found["nargs"] = action.nargs
    if action.choices:
        found["choices"] = [str(choice) for choice in action.choices]
    if action.required:
        found["required"] = True
    return found


def _takes(parser: argparse.ArgumentParser, action: argparse.Action, word: str) -> bool:
    try:
        parser._get_value(action, word)
    except argparse.ArgumentError:
        return False
    return True


def main() -> None:
    parser = parser_of(sys.argv[1])
    actions = (action for action in parser._actions if action.option_strings and action.dest != "help")
    rows = sorted((row(parser, action) for action in actions), key=lambda found: str(found["names"][0]))
    print("[\n" + ",\n".join(json.dumps(found) for found in rows) + "\n]")


if __name__ == "__main__":
    main()
