# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The settings of the service, from the file that role fleet_events writes."""

from __future__ import annotations

import dataclasses
import json
import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.events.decide import EventPolicy

#: What needs the rights, for messages.
USED_BY = "playbooks/fleet_events.yml"


@dataclasses.dataclass(frozen=True)
class EventSettings:
    """What role fleet_events knows.

    Attributes:
        queue: the queue's URL.
        region: of the queue and the groups.
        groups: the names of the Auto Scaling groups.
        hooks: the names of the fleet's hooks.
        endpoint: the URL of a stand-in for AWS; empty for AWS.
        state: the directory of the service's own files.
        directory: where the playbooks run: ansible.cfg is read from there.
        command: ansible-playbook with its inventory and further options.
        playbooks: those that join and leave, by verb.
        parallel: how many run at once.
        give_up: seconds after which an instance that does not join is given up.
        spot_seconds: how long a host has after a Spot notice.
        sweep: seconds between looks that no message asks for.
        wait: seconds for which a poll waits, at most 20.
    """

    queue: str
    region: str
    groups: tuple[str, ...]
    hooks: tuple[str, ...]
    endpoint: str
    state: str
    directory: str
    command: tuple[str, ...]
    playbooks: t.Mapping[str, str]
    parallel: int
    give_up: float
    spot_seconds: int
    sweep: float
    wait: int

    @property
    def policy(self) -> EventPolicy:
        """Those that decide."""
        return EventPolicy(self.parallel, self.give_up, self.spot_seconds)


def read_settings(path: str) -> EventSettings:
    """The settings in a file.

    Raises:
        FleetError: it cannot be read, or something is missing or unknown.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise FleetError(f"The settings {path} cannot be read: {error.strerror}. Run {USED_BY}.") from None
    except ValueError as error:
        raise FleetError(f"The settings {path} are not JSON ({error}). Run {USED_BY}.") from None
    fields = {field.name for field in dataclasses.fields(EventSettings)}
    given = set(document) if isinstance(document, dict) else set()
    if given != fields:
        what = ", ".join(sorted(given ^ fields))
        raise FleetError(f"The settings {path} are of another version: {what} differ. Run {USED_BY}.")
    lists = {name: tuple(document[name]) for name in ("groups", "hooks", "command")}
    return EventSettings(**{**document, **lists, "state": os.path.abspath(document["state"])})
