# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A gate from its options to its record, and the same gate once more from that record."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.gate.gate import Gate, GatePlan
from ansible_collections.inference.fleet.plugins.module_utils.gate.record import (
    checked_key,
    good_figures,
    key_in,
    record_of,
)
from ansible_collections.inference.fleet.plugins.module_utils.gate.replay import Replaying
from ansible_collections.inference.fleet.plugins.module_utils.gate.targets import answers_of
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, Reply

# Options that a record keeps beside those of the plan. Never a key.
_CONNECTION = ("api_key_file", "ca_path", "validate_certs", "record")
# Options of a gate that is conducted again, which the record does not have.
_AGAIN = {"api_key": None, "baseline": None, "expect_failure": False, "replay": False}


def key_of(options: dict[str, t.Any]) -> str | None:
    """The key for a target.

    Raises:
        FleetError: it is configured but missing.
    """
    if options["api_key"] is not None and options["api_key_file"] is not None:
        raise FleetError(f"{options['name']} has both api_key and api_key_file. Give one of them.")
    if options["api_key"] is not None:
        return checked_key(options["api_key"], "api_key")
    path = options["api_key_file"]
    if path is None:
        return None
    try:
        text = read_text(path)
    except OSError as error:
        raise FleetError(f"api_key_file is {path}, which cannot be read: {error.strerror}. Use become.") from error
    if text is None:
        raise FleetError(f"api_key_file is {path}, which does not exist. Run site.yml on this host first: it makes it.")
    return key_in(text, path)


def plan_of(options: dict[str, t.Any], key: str | None) -> GatePlan:
    """The gate of one target.

    Raises:
        FleetError: an option or the baseline is invalid.
    """
    baseline = options["baseline"]
    if baseline is None:
        document = last_record(options["record"])[0]
    else:
        document = read_json(baseline) if isinstance(baseline, str) else baseline
    same = {name: options[name] for name in GatePlan.__dataclass_fields__ if name in options}
    same.update(
        key=key,
        good=good_figures(document, options["model"]),
        checks=tuple(options["checks"]),
        judge_speed=bool(options["judge_speed"]),
        health_path=options.get("health_path"),
        expect_text=tuple(options["expect_text"]),
        expect_image=answers_of(options["expect_image"]),
    )
    plan = GatePlan(**same)
    plan.check()
    return plan


def gate(options: dict[str, t.Any], plan: GatePlan, check_mode: bool) -> dict[str, t.Any]:
    """Gate one target and record it; a record that cannot be written is a warning, apart from the target."""

    replies: dict[str, Reply] = {}

    def client_for(key: str | None) -> HttpClient:
        connection = (plan.url, key, plan.timeout, options["ca_path"], options["validate_certs"])
        return Replaying(replies, *connection) if options.get("replay") else HttpClient(*connection)

    result = Gate(plan, client_for).run()
    warnings = [last_record(options["record"])[1]] if options["baseline"] is None else []
    if options["record"] and not check_mode and not options["expect_failure"]:
        warnings.append(write_record(options["record"], result, asked_of(options)))
    return {**result, "record_problems": [warning for warning in warnings if warning]}


def last_record(path: str | None) -> tuple[t.Any, str]:
    """The record of the last gate, None where there is none; and its error."""
    try:
        return (read_json(path) if path else None), ""
    except FleetError as error:
        return None, f"{error.message} Nothing is compared with it."


def write_record(path: str, result: dict[str, t.Any], asked: dict[str, t.Any]) -> str:
    """Replace the record of the last gate; return the error where it cannot be written, else nothing."""
    try:
        make_directories(os.path.dirname(path))
        record = record_of(result, last_record(path)[0], times.now())
        write_atomically(path, json.dumps({**record, "asked": asked}, indent=1) + "\n")
    except OSError as error:
        return f"Failed to write the record {path}: {error.strerror}. Make room or correct record."
    return ""


def asked_of(options: dict[str, t.Any]) -> dict[str, t.Any]:
    """The options with which the same gate can be conducted again; without any key."""
    names = [name for name in GatePlan.__dataclass_fields__ if name not in ("key", "good")]
    return {name: options[name] for name in (*names, *_CONNECTION) if name in options}


def again(record: str) -> dict[str, t.Any] | None:
    """Conduct the gate of a record once more, and record it; None where the record does not have its questions.

    Raises:
        FleetError: the record, or what it names, cannot be used.
    """
    document = read_json(record)
    asked = document.get("asked") if isinstance(document, dict) else None
    if not isinstance(asked, dict) or not asked.get("api_key_file"):
        return None
    options = {**asked, **_AGAIN, "record": record}
    try:
        return gate(options, plan_of(options, key_of(options)), check_mode=False)
    except (KeyError, TypeError) as error:
        raise FleetError(
            f"{record} does not have the questions of a gate ({error!r}). The next run of site.yml writes it again."
        ) from error
