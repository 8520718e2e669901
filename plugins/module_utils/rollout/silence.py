# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A silence in an Alertmanager for the hosts that a rollout changes now, through its API version 2."""

from __future__ import annotations

import datetime
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure, Reply, excerpt

PATH = "/api/v2/silences"
#: The label that names a host in every series of the fleet.
LABEL = "host"
_EXPIRED = "expired"

Silence = dict[str, t.Any]


def creator(rollout: str) -> str:
    """How a rollout signs its silences, so that any of its runs finds them."""
    return f"inference.fleet rollout {rollout}"


def matchers(hosts: t.Sequence[str]) -> list[dict[str, t.Any]]:
    """What matches the alerts of these hosts and of no other."""
    # Alertmanager anchors the expression at both ends.
    value = "|".join(re.escape(host) for host in sorted(hosts))
    return [{"name": LABEL, "value": value, "isRegex": True, "isEqual": True}]


def own(silences: t.Any, rollout: str) -> list[Silence]:
    """A rollout's silences that are not over.

    Raises:
        FleetError: this is no list of silences.
    """
    try:
        found = [one for one in silences if one["createdBy"] == creator(rollout)]
        return [one for one in found if one["status"]["state"] != _EXPIRED and one["id"]]
    except (KeyError, TypeError) as error:
        raise FleetError(f"what it returns is no list of silences ({error!r})") from None


def same_hosts(silences: t.Sequence[Silence], hosts: t.Sequence[str]) -> Silence | None:
    """The silence that is for exactly these hosts; None where there is none."""
    wanted = matchers(hosts)
    names = list(wanted[0])
    for one in silences:
        if [{name: matcher.get(name, True) for name in names} for matcher in one.get("matchers", [])] == wanted:
            return one
    return None


def moment(seconds: float) -> str:
    """A Unix time as the API takes it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat()


class Alertmanager:
    """The silences of one Alertmanager.

    Args:
        url: its base URL.
        timeout: seconds for each request.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._client = HttpClient(url, timeout=timeout)

    def of(self, rollout: str) -> list[Silence]:
        """A rollout's silences that are not over.

        Raises:
            FleetError: Alertmanager does not answer, or not as one.
        """
        return own(self._ask(lambda: self._client.get(PATH)), rollout)

    def silence(self, rollout: str, hosts: t.Sequence[str], comment: str, now: float, seconds: float) -> None:
        """Silence these hosts for so long. The rollout's silences of other hosts end; raises like of()."""
        before = self.of(rollout)
        kept = same_hosts(before, hosts)
        wanted = {
            "matchers": matchers(hosts),
            # A silence that has begun is changed in place only if its beginning stays.
            "startsAt": kept["startsAt"] if kept else moment(now),
            "endsAt": moment(now + seconds),
            "createdBy": creator(rollout),
            "comment": comment,
            **({"id": kept["id"]} if kept else {}),
        }
        self._ask(lambda: self._client.post(PATH, wanted))
        self._end([one for one in before if one is not kept])

    def end(self, rollout: str) -> int:
        """End the rollout's silences; how many there were. Raises like of()."""
        before = self.of(rollout)
        self._end(before)
        return len(before)

    def _end(self, silences: t.Iterable[Silence]) -> None:
        for one in silences:
            path = f"/api/v2/silence/{one['id']}"
            self._ask(lambda path=path: self._client.send("DELETE", path, {}))  # type: ignore[misc]

    @staticmethod
    def _ask(request: t.Callable[[], Reply]) -> t.Any:
        try:
            reply = request()
            if reply.status != 200:
                raise FleetError(f"HTTP {reply.status}: {excerpt(reply.text())}")
            return reply.json() if reply.body.strip() else None
        except HttpFailure as error:
            raise FleetError(error.said) from None
