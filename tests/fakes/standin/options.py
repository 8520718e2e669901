"""An engine's options as its own parser defines them, from a table that ``learn`` wrote in the engine's runtime."""

from __future__ import annotations

import argparse
import json
import os
import re
import typing as t

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_POWER = {"k": 1, "m": 2, "g": 3, "t": 4}
_CONFIG_LINE = re.compile(r"([A-Za-z0-9_-]+): (.+)")


class Option(t.TypedDict, total=False):
    """One row of a table.

    Attributes:
        names: its spellings, with their dashes.
        kind: ``flag``, ``deprecated`` (a flag), ``switch`` (which has a negative form), ``text``, ``int``, ``float``,
            ``size`` (as 25k), ``length`` (a size, or auto), ``json``, ``object``; with ``?``, None too.
        nargs: as argparse's, where it takes other than one value.
        choices: the values that it takes.
        required: whether the parser insists on it.
    """

    names: list[str]
    kind: str
    nargs: str
    choices: list[str]
    required: bool


class DeprecatedStoreTrueAction(argparse._StoreTrueAction):
    """A flag that goes; its name is in SGLang's message."""


def table(name: str) -> list[Option]:
    """The options of ``<name>.json`` beside this file."""
    with open(os.path.join(os.path.dirname(__file__), f"{name}.json"), encoding="utf-8") as file:
        rows: list[Option] = json.load(file)
    return rows


def add_to(parser: argparse.ArgumentParser, rows: t.Iterable[Option]) -> None:
    """Give a parser the options of a table."""
    for row in rows:
        if row["kind"] == "flag":
            parser.add_argument(*row["names"], action="store_true")
        elif row["kind"] == "deprecated":
            parser.add_argument(*row["names"], action=DeprecatedStoreTrueAction)
        elif row["kind"] == "switch":
            names = [name for name in row["names"] if not name.startswith("--no-")]
            parser.add_argument(*names, action=argparse.BooleanOptionalAction)
        else:
            kind = row["kind"]
            parser.add_argument(
                *row["names"],
                type=value_type(kind),
                nargs=row.get("nargs"),
                choices=_choices(row.get("choices"), kind),
                required=row.get("required", False),
            )


def _choices(given: list[str] | None, kind: str) -> list[t.Any] | None:
    return None if given is None else [value_type(kind)(choice) for choice in given]


def value_type(kind: str) -> t.Callable[[str], t.Any]:
    """What turns a word into a value of ``kind``; its name is what argparse's error message calls the kind."""
    base = kind.rstrip("?")
    converters: dict[str, t.Callable[[str], t.Any]] = {
        "text": str,
        "int": int,
        "float": float,
        "size": human_readable_int,
        "length": human_readable_int_or_auto,
        "json": json.loads,
        "object": _object,
    }
    convert = converters[base]
    if not kind.endswith("?"):
        return convert

    def optional(word: str) -> t.Any:
        if word == "None":
            return None
        try:
            return convert(word)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"Value {word} cannot be converted to {convert}.") from error

    return optional


def human_readable_int(word: str) -> int:
    """5, 25.6k (thousands) and 4K (1024s), as in vLLM."""
    match = _SIZE.fullmatch(word.strip())
    if not match:
        return int(word)
    number, suffix = match.groups()
    if suffix.islower():
        return int(float(number) * 1000 ** _POWER[suffix])
    if "." in number:
        raise argparse.ArgumentTypeError(f"Decimals are not allowed with binary suffixes like {suffix}.")
    return int(int(number) * 1024 ** _POWER[suffix.lower()])


def human_readable_int_or_auto(word: str) -> int:
    return -1 if word.strip().lower() in ("-1", "auto") else human_readable_int(word)


def _object(word: str) -> dict[str, t.Any]:
    try:
        value = json.loads(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"Invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("Input should be an object")
    return value


def read_config(path: str) -> dict[str, t.Any]:
    """A config file as role engine writes it: YAML of one ``name: JSON`` a line, in its order.

    Raises:
        ValueError: a line is not of that form, or the name of the file does not end in .yaml or .yml.
    """
    if not path.endswith((".yaml", ".yml")):
        raise ValueError(f"Config file must be of a yaml/yml type. {path.rpartition('.')[2]} supplied")
    found: dict[str, t.Any] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _CONFIG_LINE.fullmatch(line.strip())
            if not match:
                raise ValueError(f"{path}:{number} is not 'name: JSON', which is all of YAML that the stand-in reads")
            found[match[1]] = json.loads(match[2])
    return found
