# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The hold of an edge whose host was away: it serves no request until its keys are confirmed.

roles/edge/files/edge_presence.py decides at boot and writes both files; role edge makes them first.
"""

from __future__ import annotations

import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.edge.haproxy import Worker
from ansible_collections.inference.fleet.plugins.module_utils.edge.maps import EdgeMap

MAP_PATH = "/etc/haproxy/maps/hold.map"
PRESENCE_PATH = f"{STATE_DIRECTORY}/presence.json"
#: Of the program that records when the host runs.
UNIT = "inference-presence.service"
#: The map's only key.
KEY = "keys"

_TITLE = "Whether this host waits until its keys are confirmed. Written by edge_presence.py and module edge_keys."
_BOOT = "/proc/sys/kernel/random/boot_id"


class Held(t.NamedTuple):
    """Since when (UTC) and why an edge is held."""

    since: str
    why: str


class Hold:
    """The hold of one host.

    Args:
        map_path: the map that HAProxy asks.
        presence_path: the record of when the host ran.
        workers: HAProxy's running processes.
    """

    def __init__(self, map_path: str, presence_path: str, workers: list[Worker]) -> None:
        self._map = EdgeMap(map_path, _TITLE, workers)
        self._map_path = map_path
        self._presence_path = presence_path

    def held(self) -> Held | None:
        """The hold; None where there is none."""
        entries = dict(self._map.entries() or [])
        if KEY not in entries:
            return None
        return Held(entries[KEY], str(self._presence().get("why") or "the reason is not recorded"))

    def ensure(self, check: bool) -> None:
        """Make the map that HAProxy does not start without."""
        entries = self._map.entries()
        if entries is None and not check:
            self._map.make([])

    def release(self, check: bool) -> list[str]:
        """End the hold: the host has the keys of the store. Return the actions.

        Raises:
            FleetError: a file cannot be written.
        """
        actions = []
        held = self.held()
        presence = self._presence()
        # In this order: a host that boots in between is held once more.
        if self._map.differs([]):
            if held:
                actions.append(f"end the hold since {held.since}: {held.why}, and its keys are those of the store now")
            if not check:
                self._map.make([])
        boot = _boot_id()
        # For the next start of HAProxy in this boot, where it has not started yet. No change of what it does.
        if not check and (presence.get("boot") != boot or presence.get("why")):
            self._write({"started": "", "stopped": False, **presence, "boot": boot, "why": ""})
        return actions

    def _presence(self) -> dict[str, t.Any]:
        """The record; empty where there is none that can be read: the next boot then holds the edge."""
        try:
            document = read_json(self._presence_path)
        except (FleetError, OSError):
            return {}
        return document if isinstance(document, dict) else {}

    def _write(self, presence: dict[str, t.Any]) -> None:
        try:
            make_directories(self._presence_path.rpartition("/")[0])
            write_atomically(self._presence_path, json.dumps(presence) + "\n", mode=0o644)
        except OSError as error:
            raise FleetError(
                f"{self._presence_path} cannot be written ({error.strerror}), so after its next boot the host would "
                "wait until its keys are confirmed. Free the disk or correct the directory's rights, then run again."
            ) from error


def _boot_id() -> str:
    with open(_BOOT, encoding="ascii") as file:
        return file.read().strip()
