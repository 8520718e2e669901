# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What differs between the engines, in one table, so that nothing else asks which engine it is.

Pure: text and dictionaries in, text and dictionaries out.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError


@dataclasses.dataclass(frozen=True)
class Engine:
    """What the collection has to know about an engine.

    Attributes:
        name: as in ``engine``.
        program: its command, relative to a runtime.
        subcommand: words before the options.
        check_program: Python that lets the engine's own parser judge a config file; gets its path as argument.
        negatable: whether ``false`` is written as ``no-<option>: true``. vLLM drops ``<option>: false`` without a
            word (its top-level parser does not know the negative form when it reads the file).
        limit_option: the option that bounds the requests that it works on at once.
        default_limit: that bound where nobody sets it. vLLM: 256 below 70 GiB of GPU memory; SGLang works it out from
            the memory, and this is what it comes to at most in practice.
    """

    name: str
    program: str
    subcommand: tuple[str, ...]
    check_program: str
    negatable: bool
    limit_option: str
    default_limit: int


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

ENGINES: dict[str, Engine] = {
    "vllm": Engine("vllm", "bin/vllm", ("serve",), _VLLM_CHECK, True, "max-num-seqs", 256),
    "sglang": Engine(
        "sglang", "bin/python", ("-m", "sglang.launch_server"), _SGLANG_CHECK, False, "max-running-requests", 256
    ),
}

#: Options that the collection sets itself; setting them elsewhere would take an instance out of the edge's reach or
#: put its key where it can be read.
RESERVED_OPTIONS = {
    "api-key": "the engine's key is made on the host; clients' keys belong in fleet_clients",
    "config": "the collection writes the config file",
    "host": "an engine listens on the loopback interface only; the edge is what the network sees",
    "port": "an instance's port follows from its index; the edge's port is edge_port or fleet_instances[].port",
    "ssl-certfile": "TLS belongs to the edge: edge_tls_certificate",
    "ssl-keyfile": "TLS belongs to the edge: edge_tls_certificate",
    "uds": "the edge reaches an instance over its loopback port",
}

_OPTION = re.compile(r"^[a-z0-9][a-z0-9-]*$")


def render_config(engine: str, options: dict[str, t.Any]) -> str:
    """The engine's YAML config file.

    Args:
        engine: ``vllm`` or ``sglang``.
        options: option names, with dashes or underscores, and their values. None leaves an option out.

    Raises:
        FleetError: an option's name cannot be one, or two spellings of one option differ.
    """
    rendered: dict[str, t.Any] = {}
    for given, value in options.items():
        name = str(given).replace("_", "-").lstrip("-")
        if not _OPTION.match(name):
            raise FleetError(f"{given!r} cannot be the name of an engine option: use letters, digits and dashes.")
        if value is None:
            continue
        if isinstance(value, bool) and not value:
            if not ENGINES[engine].negatable:
                continue
            name, value = f"no-{name}", True
        if name in rendered and rendered[name] != value:
            raise FleetError(f"The engine option {name} is set twice, to {rendered[name]!r} and to {value!r}.")
        rendered[name] = value
    return "".join(f"{name}: {json.dumps(rendered[name], sort_keys=True)}\n" for name in sorted(rendered))


def request_limit(engine: str | None, options: t.Mapping[str, t.Any], edge_limit: int | None) -> int:
    """How many requests an instance works on at once.

    Args:
        engine: ``vllm`` or ``sglang``; None where nothing is known, which is no room at all.
        options: the engine's.
        edge_limit: how many the edge gives it at once; None where that is not known.
    """
    if engine not in ENGINES:
        return 0
    given = {str(name).replace("_", "-"): value for name, value in options.items()}
    wanted = given.get(ENGINES[engine].limit_option)
    limit = int(wanted) if wanted else ENGINES[engine].default_limit
    return min(limit, edge_limit) if edge_limit else limit


def reserved_options(options: dict[str, t.Any]) -> dict[str, str]:
    """Those of ``options`` that a person must not set, each with the reason."""
    names = (str(option).replace("_", "-").lstrip("-") for option in options)
    return {name: RESERVED_OPTIONS[name] for name in names if name in RESERVED_OPTIONS}


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
        hints = []
        for name in names:
            near = difflib.get_close_matches(name, known, n=3)
            hints.append(f"{name} (did you mean {' or '.join(near)}?)" if near else name)
        return (
            f"{engine} {version} does not know the option {', '.join(hints)}. "
            f"Correct it in {engine}_extra_args or the role's variable; nothing was stopped or changed."
        )
    wrong = re.search(r"error: (.+)", stderr)
    if not wrong:
        wrong = re.search(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)", stderr, re.MULTILINE)
    reason = wrong.group(1).strip() if wrong else (stderr.strip().splitlines() or ["it printed no reason"])[-1]
    return f"{engine} {version} refuses its arguments: {reason} Nothing was stopped or changed."


def engine_problems(
    extra_args: dict[str, t.Any],
    engine: str,
    version: str,
    accelerator: str,
    locks: dict[str, dict[str, t.Any]],
) -> list[str]:
    """What is wrong with an engine's variables, each with the variable, the value and what is valid.

    Args:
        extra_args: ``<engine>_extra_args``.
        engine: ``vllm`` or ``sglang``.
        version: the wanted version.
        accelerator: ``cuda`` or ``cpu``.
        locks: what the role's locks.yml says.
    """
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
        f"{engine}_extra_args sets {name}, which the collection sets itself: {reason}."
        for name, reason in reserved_options(extra_args).items()
    ]
    try:
        render_config(engine, extra_args)
    except FleetError as error:
        problems.append(f"{engine}_extra_args: {error.message}")
    return problems


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
    options = {name: typed(value) for name, value in options.items()}
    for instance in instances:
        own = {"CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in instance["gpus"])} if instance["gpus"] else {}
        result.append(
            {
                "index": instance["index"],
                "options": {**options, "port": instance["engine_port"]},
                "environment": {**environment, **own},
            }
        )
    return result
