# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the edge's map of keys says of a client: its name, and what bounds it. Pure.

A value is the name alone, or ``name|requests a minute|requests in flight|expiry in Unix time|,model,model,`` with 0 for
no bound. The role's configuration takes it apart with HAProxy's converter ``field``.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import keys, times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

_SEPARATOR = "|"


@dataclasses.dataclass(frozen=True, order=True)
class Limits:
    """What bounds a client at each edge.

    Attributes:
        requests_per_minute: 0 for no bound.
        max_concurrent: requests in flight; 0 for no bound.
        expires: Unix time from which on it is refused; 0 for never.
        models: the only models it may use; empty for all.
    """

    requests_per_minute: int = 0
    max_concurrent: int = 0
    expires: int = 0
    models: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = [
            f"{self.requests_per_minute} requests/min" if self.requests_per_minute else "",
            f"{self.max_concurrent} at once" if self.max_concurrent else "",
            f"until {times.moment(self.expires)}" if self.expires else "",
            f"only {', '.join(self.models)}" if self.models else "",
        ]
        return "; ".join(text for text in told if text) or "no limits"


def check_limits(item: t.Mapping[str, t.Any]) -> Limits:
    """The limits of a key as module api_key returns it.

    Raises:
        FleetError: one of them cannot be.
    """
    name = item["name"]
    expires = item.get("expires") or ""
    return Limits(
        requests_per_minute=_count(item, "requests_per_minute"),
        max_concurrent=_count(item, "max_concurrent"),
        expires=times.seconds(times.check_moment(expires, f"expires of client {name}")) if expires else 0,
        models=keys.check_model_names(item.get("models") or (), name),
    )


def _count(item: t.Mapping[str, t.Any], option: str) -> int:
    value = item.get(option)
    if value is None:
        return 0
    if int(value) < 1:
        raise FleetError(
            f"{option} of client {item['name']} is {value}. Give at least 1, or leave it out for no limit."
        )
    return int(value)


def render(name: str, limits: Limits) -> str:
    """The map's value."""
    if limits == Limits():
        return name
    models = f",{','.join(limits.models)}," if limits.models else ""
    numbers = (limits.requests_per_minute, limits.max_concurrent, limits.expires)
    return _SEPARATOR.join([name, *map(str, numbers), models])


def parse(value: str) -> tuple[str, Limits]:
    """Name and limits of a map's value; what somebody else wrote there counts as a name."""
    name, *fields = value.split(_SEPARATOR)
    try:
        requests, concurrent, expires, models = fields
        found = Limits(int(requests), int(concurrent), int(expires), tuple(filter(None, models.split(","))))
    except ValueError:
        return name, Limits()
    return name, found
