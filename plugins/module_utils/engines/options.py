# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The options of an engine: written to its config file, validated, and made specific to each instance.

Pure: text and dictionaries in, text and dictionaries out.
"""

from __future__ import annotations

import decimal
import difflib
import json
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.values import plain_name, typed
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import TOOL_FAMILIES, Engine
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, KINDS, check_engine, kind

# A string, which is not changed, or a number with an exponent.
_SMALL = re.compile(r'("(?:[^"\\]|\\.)*")|-?\d+(?:\.\d+)?[eE][+-]?\d+')
_OPTION = re.compile(r"^[a-z0-9][a-z0-9-]*$")


def engine_kind(engine: str) -> dict[str, t.Any]:
    """What the unit of an engine must know about it.

    Args:
        engine: one of ENGINES.
    """
    known = ENGINES[check_engine(engine)]
    return {
        "title": known.title,
        "documentation": known.documentation,
        "clean_exit": known.launch.clean_exit,
        "tool_parser": known.options.tool_parser,
        "others": [name for name in ENGINES if name != engine],
    }


def render_config(engine: str, options: dict[str, t.Any]) -> str:
    """The engine's YAML config file.

    Args:
        engine: one of KINDS.
        options: option names, with dashes or underscores, and their values. None leaves an option out.

    Raises:
        FleetError: an option's name is invalid, or two spellings of one option differ.
    """
    table = kind(engine).options
    rendered: dict[str, t.Any] = {}
    for given, value in options.items():
        name = str(given) if table.nested else plain_name(given)
        if not _OPTION.match(name.replace("_", "-")):
            raise FleetError(f"{given!r} cannot be the name of an engine option: use letters, digits and dashes.")
        if value is None:
            continue
        if isinstance(value, bool) and not value:
            if not table.negatable:
                continue
            name, value = f"no-{name}", True
        if name in rendered and rendered[name] != value:
            raise FleetError(f"The engine option {name} is set twice, to {rendered[name]!r} and to {value!r}.")
        rendered[name] = value
    return "".join(f"{name}: {_json(rendered[name])}\n" for name in sorted(rendered))


def _json(value: t.Any) -> str:
    """JSON that YAML parses the same way; small numbers are written out, because YAML takes 1e-07 for a string."""
    text = json.dumps(value, sort_keys=True)
    return _SMALL.sub(lambda match: match[1] or format(decimal.Decimal(match[0]), "f"), text)


def request_limit(engine: str | None, options: t.Mapping[str, t.Any], edge_limit: int | None) -> int:
    """How many concurrent requests an instance handles.

    Args:
        engine: one of KINDS; None where it is unknown, which counts as 0.
        options: the engine's.
        edge_limit: the edge's limit of concurrent requests; None where that is unknown.
    """
    if engine is None or engine not in KINDS:
        return 0
    given = {plain_name(name): value for name, value in options.items()}
    table = KINDS[engine].options
    wanted = given.get(table.means.get("max_requests", ""))
    limit = int(wanted) if wanted else table.default_limit
    return min(limit, edge_limit) if edge_limit else limit


def reserved_options(engine: str, options: t.Iterable[str]) -> dict[str, str]:
    """The reserved ones of ``options``, each with the reason."""
    reserved = ENGINES[engine].options.reserved
    return {name: reserved[name] for name in map(plain_name, options) if name in reserved}


def find_counterpart(engine: str, option: str) -> tuple[Engine, str] | None:
    """The engine that has an option which ``engine`` lacks, and ``engine``'s name for it; None where unknown.

    Args:
        engine: one of ENGINES.
        option: as a person gave it.
    """
    own = KINDS[engine].options
    name = plain_name(option).removeprefix("no-")
    if name in own.means.values():
        return None
    for other in ENGINES.values():
        for meaning, theirs in other.options.means.items():
            if other.name != engine and name == theirs and meaning in own.means:
                return other, own.means[meaning]
    return None


def explain_refused_options(engine: str, version: str, stderr: str, known: list[str]) -> str:
    """Why the engine's own parser refused a config file, for a person.

    Args:
        engine: one of KINDS.
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
    found = find_counterpart(engine, name)
    near = [found[1]] if found else difflib.get_close_matches(name, known, n=3)
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
    """The errors in an engine's variables, each with the variable, the value and what is valid.

    Args:
        extra_args: ``<engine>_extra_args``.
        engine: one of ENGINES.
        version: the wanted version.
        accelerator: ``cuda`` or ``cpu``.
        locks: the content of the role's locks.yml.
        options: all that its instances share.
        instances: of this engine, as ``Instance.as_dict`` gives them.
    """
    table = ENGINES[check_engine(engine)].options
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
        found = find_counterpart(engine, option)
        if found:
            problems.append(
                f"{variable} sets {plain_name(option)}, which is an option of {found[0].title}; "
                f"{ENGINES[engine].title} calls it {found[1]}."
            )
    try:
        render_config(engine, extra_args)
    except FleetError as error:
        problems.append(f"{variable}: {error.message}")
    given = {plain_name(name): typed(value) for name, value in (options or {}).items() if value is not None}
    return [*problems, *table.problems(given), *_parallel_problems(engine, given, instances)]


def tool_options(model: str, engine: str, parser: str | None) -> dict[str, t.Any]:
    """The options with which an engine parses tool calls.

    Args:
        model: the model's name, which determines its family.
        engine: one of ENGINES.
        parser: the engine's name of a parser, ``auto`` for that of the model's family, ``none`` for no tools.

    Returns:
        Nothing where the family is unknown.
    """
    table = ENGINES[check_engine(engine)].options
    if parser == "auto":
        name = model.rsplit("/", 1)[-1].lower()
        family = next((family for family, pattern in TOOL_FAMILIES.items() if pattern.search(name)), "")
        parser = table.tool_parsers.get(family)
    if parser in (None, "", "none"):
        return {}
    return {table.tool_parser: parser, **({table.tool_switch: True} if table.tool_switch else {})}


def _parallel_problems(
    engine: str, options: dict[str, t.Any], instances: t.Iterable[dict[str, t.Any]]
) -> t.Iterator[str]:
    """Instances with a number of GPUs other than their engine's setting."""
    parallel = options.get(ENGINES[engine].options.parallel) or 1
    for instance in instances:
        count, stages = _gpus_of_all_nodes(instance), _stages(engine, options, instance)
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


def _stages(engine: str, options: dict[str, t.Any], instance: dict[str, t.Any]) -> int:
    """The number of pipeline stages: where no option sets it, one for each node, which needs the least traffic between
    nodes."""
    table = ENGINES[engine].options
    names = (table.stages, *(alias for alias, name in table.aliases.items() if name == table.stages))
    given = next((options[name] for name in names if options.get(name)), None)
    return int(given or len(_nodes(instance)) or 1)


def _nodes(instance: dict[str, t.Any]) -> list[str]:
    return list((instance.get("span") or {}).get("nodes", []))


def _gpus_of_all_nodes(instance: dict[str, t.Any]) -> int:
    return len(instance["gpus"]) * max(1, len(_nodes(instance)))


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
        name, span = check_engine(instance["engine"]), instance.get("span") or {}
        table = ENGINES[name].options
        own: dict[str, t.Any] = {"port": instance["engine_port"], table.served_name: instance["served_name"]}
        if instance["gpus"]:
            own[table.parallel] = _gpus_of_all_nodes(instance) // _stages(name, options, instance)
        own_environment = {}
        if span:
            places = {
                **span,
                "count": len(span["nodes"]),
                "first": span["addresses"][0],
                "own": span["addresses"][span["rank"]],
            }
            own[table.stages] = _stages(name, options, instance)
            texts = {**table.span, **({} if instance["serves"] else table.node)}
            own.update({option: typed(text.format(**places)) for option, text in texts.items()})
            own_environment = {key: value.format(**places) for key, value in table.span_environment.items()}
        # Indexes: before each start they are replaced by the GPUs' names; an index is only valid while all GPUs answer.
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
