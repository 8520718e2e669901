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
        return (self, self.fingerprint or words.NOTHING, self.what, self.at or words.NOTHING)


class ShownKeys(t.NamedTuple):
    """What a page says about keys.

    Attributes:
        rows: the keys that need attention soon.
        quiet: what to say without rows.
        rotation: a rotation in progress, in a sentence.
        problem: why nothing is known, if so.
    """

    rows: list[KeyRow]
    quiet: str = ""
    rotation: str = ""
    problem: str = ""


def show_keys(store: t.Mapping[str, t.Any], now: float) -> ShownKeys:
    """The keys that expire, are due for rotation, or are about to be retired.

    Args:
        store: the result of module api_key, or the failure.
        now: Unix time.
    """
    if "clients" not in store:
        why = words.line(store.get("msg") or "the key store was not read", 400)
        return ShownKeys([], problem=f"Nothing is known of the clients' keys: {why}")
    clients = as_dicts(store["clients"])
    rows = [(at, row) for client in clients for at, row in _list_rows(client, now)]
    rows.sort(key=lambda one: (one[0], one[1].client))
    quiet = f"{words.count(len(clients), 'client')}: none expires within 14 days, and no key is due for rotation."
    return ShownKeys([row for _at, row in rows], quiet, _describe_rotation(store))


def show_expiries(expiries: t.Mapping[str, float], now: float) -> ShownKeys:
    """The clients that expire, from what the edges know; they see neither fingerprints nor ages.

    Args:
        expiries: of each client with a last day, Unix time.
        now: Unix time.
    """
    clients = [{"name": name, "expires": times.moment(at)} for name, at in expiries.items()]
    return show_keys({"clients": clients}, now)._replace(
        quiet="No client expires within 14 days. Which keys are due for rotation, the edges do not know."
    )


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


def _describe_rotation(store: t.Mapping[str, t.Any]) -> str:
    """Empty for none."""
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
