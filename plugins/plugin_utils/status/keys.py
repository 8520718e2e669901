# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The clients' keys that need attention soon, from the key store. Pure; it sees fingerprints only."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import as_dict, as_dicts, as_text
from ansible_collections.inference.fleet.plugins.plugin_utils.status.hosts import BAD, WARN

#: Seconds before a client is refused in which it is shown, and in which it is urgent.
SOON = 14 * 86400
URGENT = 3 * 86400


class KeyRow(t.NamedTuple):
    """A key, and what happens to it when."""

    kind: str
    client: str
    fingerprint: str
    what: str
    at: str

    @property
    def cells(self) -> tuple[t.Any, ...]:
        """Its line of a table; the first cell is the row itself."""
        return (self, self.fingerprint, self.what, self.at or "-")


class ShownKeys(t.NamedTuple):
    """What a page says about keys: how many clients there are, rows, and why nothing is known, if so."""

    clients: int
    rows: list[KeyRow]
    problem: str


def show_keys(store: t.Mapping[str, t.Any], now: float) -> ShownKeys:
    """The keys that expire, are due for rotation, or are about to be retired.

    Args:
        store: the result of module api_key, or the failure.
        now: Unix time.
    """
    if "clients" not in store:
        why = words.line(store.get("msg") or "the key store was not read", 400)
        return ShownKeys(0, [], f"Nothing is known of the clients' keys: {why}")
    clients = as_dicts(store["clients"])
    rows = [(at, row) for client in clients for at, row in _list_rows(client, now)]
    rows.sort(key=lambda one: (one[0], one[1].client))
    return ShownKeys(len(clients), [row for _at, row in rows], "")


def _list_rows(client: dict[str, t.Any], now: float) -> t.Iterator[tuple[float, KeyRow]]:
    name, current = as_text(client.get("name")), as_text(client.get("fingerprint"))
    ends = _seconds(client.get("expires"))
    if ends is not None and ends <= now:
        yield ends, KeyRow(BAD, name, current, "expired: its requests are refused", _minute(client, "expires"))
        return
    if ends is not None and ends - now < SOON:
        kind = BAD if ends - now < URGENT else WARN
        left = words.duration(ends - now) if ends - now < 7200 else times.spoken(ends - now)
        yield ends, KeyRow(kind, name, current, f"expires in {left}", _minute(client, "expires"))
    if client.get("due"):
        made = times.minute(as_text(client.get("created")))
        yield now, KeyRow(WARN, name, current, f"due for rotation: made {made}", "")
    for key in as_dicts(client.get("stored_keys")):
        until = _seconds(key.get("retire_at"))
        if key.get("slot") == "previous" and not key.get("retired") and until is not None:
            what = "the previous key, refused from then on"
            yield until, KeyRow("", name, as_text(key.get("fingerprint")), what, _minute(key, "retire_at"))


def describe_rotation(store: t.Mapping[str, t.Any]) -> str:
    """A rotation in progress, in a sentence; empty for none."""
    rotation = as_dict(store.get("rotation"))
    if not rotation:
        return ""
    return (
        f"A rotation of keys is in progress since {times.minute(as_text(rotation.get('started')))}, in step "
        f"{words.line(rotation.get('step', ''), 20)}, by {words.line(rotation.get('by', ''), 60)}."
    )


def _seconds(moment: t.Any) -> float | None:
    try:
        return float(times.seconds(as_text(moment)))
    except ValueError:
        return None


def _minute(of: dict[str, t.Any], name: str) -> str:
    return times.minute(as_text(of.get(name)))
