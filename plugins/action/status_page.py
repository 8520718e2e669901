# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the fleet's status as a page; documented as module status_page."""

from __future__ import annotations

import os
import re
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text, write_atomically
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.hourly import Cost
from ansible_collections.inference.fleet.plugins.plugin_utils.status.hosts import HostReading
from ansible_collections.inference.fleet.plugins.plugin_utils.status.keys import show_keys
from ansible_collections.inference.fleet.plugins.plugin_utils.status.page import (
    GATEWAY,
    INFERENCE,
    FleetReading,
    render_status,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.status.prometheus import read_history

#: As a rollout's page: it names people, hosts and clients.
_MODE = 0o600
_TITLE = re.compile(r"<title>Fleet: (.*?)</title>")

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "path": {"type": "path", "required": True},
    "hosts": {"type": "dict", "required": True},
    "gateways": {"type": "list", "elements": "str", "default": []},
    "gpus": {"type": "dict", "default": {}},
    "aws": {"type": "dict", "default": {}},
    "costs": {"type": "list", "elements": "dict", "default": []},
    "beyond": {"type": "list", "elements": "dict", "default": []},
    "store": {"type": "dict", "default": {}},
    "rollouts": {"type": "list", "elements": "str", "default": []},
    "notes": {"type": "list", "elements": "str", "default": []},
    "prometheus_url": {"type": "str", "default": ""},
    "history": {"type": "float", "default": 21600},
}


class ActionModule(ControllerAction):
    """See module status_page."""

    ARGUMENTS = ARGUMENTS

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        path = os.path.abspath(arguments["path"])
        if arguments["history"] <= 0:
            raise FleetError(
                f"history is {arguments['history']:g} seconds; it is the time that the charts show, above 0."
            )
        fleet = _read(arguments, time.time())
        page = render_status(fleet)
        before = _title(path)
        if not self._task.check_mode:
            _write(path, page.text)
        problem = fleet.history.problem if fleet.history else ""
        return {
            "changed": True,
            "page": path,
            "summary": page.title,
            "problem": problem,
            "diff": {
                "before_header": path,
                "after_header": path,
                "before": f"{before}\n" if before else "",
                "after": f"{page.title}\n",
            },
            **({"warnings": [problem]} if problem else {}),
        }


def _read(arguments: dict[str, t.Any], now: float) -> FleetReading:
    costs = {str(cost["host"]): Cost(**cost) for cost in arguments["costs"]}
    url = arguments["prometheus_url"]
    return FleetReading(
        at=now,
        hosts=[
            HostReading(
                host=host,
                tier=GATEWAY if host in arguments["gateways"] else INFERENCE,
                status=status if isinstance(status, dict) else {},
                gpu=arguments["gpus"].get(host) or None,
                aws=arguments["aws"].get(host) or {},
                cost=costs.get(host),
            )
            for host, status in arguments["hosts"].items()
        ],
        beyond=[(str(one["host"]), str(one.get("state", ""))) for one in arguments["beyond"]],
        keys=show_keys(arguments["store"], now),
        rollouts=arguments["rollouts"],
        notes=arguments["notes"],
        history=read_history(url, now, arguments["history"]) if url else None,
    )


def _title(path: str) -> str:
    """The title of the page that is there; empty for none.

    Raises:
        FleetError: something else is there, which a page must not replace.
    """
    if os.path.isdir(path):
        raise FleetError(f"{path} is a directory; give the page's file, such as -e page=status.html.")
    try:
        text = read_text(path)
    except OSError as error:
        raise FleetError(f"{path} cannot be read: {error.strerror}. Nothing was written.") from error
    except ValueError:
        text = "no text"
    found = _TITLE.search(text or "")
    if text and not found:
        raise FleetError(f"{path} is there, and it is no status page. Nothing was overwritten; give another path.")
    return found[1] if found else ""


def _write(path: str, text: str) -> None:
    try:
        write_atomically(path, text, _MODE)
    except OSError as error:
        raise FleetError(f"The page {path} cannot be written: {error.strerror or error}.") from error
