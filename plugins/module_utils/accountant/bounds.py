# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The limits on tokens of all clients, from the edge's map of keys, which module edge_keys writes."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.accountant.ledger import ClientBounds
from ansible_collections.inference.fleet.plugins.module_utils.clients import edge_values
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


def parse(text: str) -> dict[str, ClientBounds]:
    """The limits by client; a client without any is not there."""
    found = {}
    for line in text.splitlines():
        _digest, _space, value = line.strip().partition(" ")
        if not value or value.startswith("#"):
            continue
        name, limits = edge_values.parse(value)
        period = limits.get("budget_period")
        bounds = ClientBounds(
            int(limits.get("tokens_per_minute") or 0),
            float(limits.get("budget") or 0.0),
            times.duration(period, "budget_period") if period else 0,
        )
        if bounds.tokens or bounds.budget:
            found[name] = bounds
    return found


class BoundsFile:
    """The map's file, read again whenever it changes.

    Args:
        path: the file.
        say: prints a line for people.
    """

    def __init__(self, path: str, say: t.Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._seen: tuple[int, int, int] | None = None
        self._bounds: dict[str, ClientBounds] = {}

    def of(self, client: str) -> ClientBounds:
        """The limits of a client."""
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._seen = seen
                with open(self._path, encoding="utf-8") as file:
                    self._bounds = parse(file.read())
        except (OSError, ValueError, FleetError) as error:
            # The limits that were known hold.
            self._say(f"{self._path} cannot be read, so the limits are those of before: {error}")
        return self._bounds.get(client, ClientBounds())
