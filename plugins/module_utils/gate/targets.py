# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The servers that a gate tests, from the module's options, and whether the result is the wanted one. Pure."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, GATEWAY

_SHARED = (
    "model",
    "checks",
    "attempts",
    "judge_speed",
    "no_cache",
    "replay",
    "health_path",
    "baseline",
    "record",
    "expect_failure",
    "expect_reason",
)
_KEY_OPTIONS = ("api_key", "api_key_file")


def targets_of(params: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """The options for each server.

    Raises:
        FleetError: there is none, or an instance lacks its name or port.
    """
    if params["url"] is not None:
        return [params]
    wanted = [_recorded(dict(target), params) for target in params["targets"] or []]
    for instance in params["instances"] or []:
        if not {"name", "engine_port"} <= set(instance):
            raise FleetError(
                f"instances has {instance!r}, without name or engine_port. Give the instances that module "
                "inference.fleet.fleet_facts returns."
            )
        target = {
            "name": instance["name"],
            "url": f"http://127.0.0.1:{instance['engine_port']}",
            # A gateway is as fast as the hosts behind it, which others use at the same time.
            "judge_speed": params["judge_speed"] is not False and instance.get("engine") != GATEWAY,
            "no_cache": params["no_cache"] or instance.get("engine") == GATEWAY,
        }
        if instance.get("engine") in ENGINES:
            target["health_path"] = ENGINES[instance["engine"]].launch.health_path
        if instance.get("served_name"):
            target["model"] = instance["served_name"]
        wanted.append(_recorded(target, params))
    if not wanted:
        raise FleetError("There is nothing to ask: targets and instances are empty. Give url, targets or instances.")
    return [_inherited(target, params) for target in wanted]


def _recorded(target: dict[str, t.Any], params: dict[str, t.Any]) -> dict[str, t.Any]:
    """The target with the default path of its record."""
    if params["record_dir"] and not target.get("record"):
        target["record"] = os.path.join(params["record_dir"], f"{target['name']}.json")
    return target


def _inherited(target: dict[str, t.Any], params: dict[str, t.Any]) -> dict[str, t.Any]:
    merged = {**params, **{name: target[name] for name in ("name", "url")}}
    merged.update({name: target[name] for name in _SHARED if target.get(name) is not None})
    if any(target.get(name) is not None for name in _KEY_OPTIONS):
        merged.update({name: target.get(name) for name in _KEY_OPTIONS})
    return merged


def answers_of(expect_image: dict[str, t.Any]) -> dict[str, list[str]]:
    """The right answers for each colour; a single value is a list of one."""
    return {
        str(colour): [str(answer) for answer in (answers if isinstance(answers, list) else [answers])]
        for colour, answers in expect_image.items()
    }


def shortcoming(options: dict[str, t.Any], result: dict[str, t.Any]) -> str | None:
    """What is wrong with a result, given the wanted one; None when nothing is."""
    if not options["expect_failure"]:
        return None if result["passed"] else str(result["message"])
    where = f"{result['name']} ({result['url']})"
    if result["passed"]:
        return f"The gate passed on {where}, where it had to fail: it cannot be trusted. Stop, and look at its options."
    reasons = {check["reason"] for check in result["checks"] if not check["passed"]}
    wanted = options["expect_reason"]
    if wanted and wanted not in reasons:
        return (
            f"The gate failed on {where} as it had to, but with {', '.join(sorted(reasons))} instead of {wanted}, "
            f"which proves nothing. {result['message']}"
        )
    return None
