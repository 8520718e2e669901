# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The hosts that a rollout changes together, and their order. Pure."""

from __future__ import annotations

import json
import math
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

_EXAMPLE = "For example: rollout_waves: [1, '25%', '100%'] is one host, then up to a quarter of them, then the rest."
_PERCENT = re.compile(r"^(\d+(?:\.\d+)?)\s*%$")


def parse_waves(given: t.Any) -> list[int | float]:
    """The sizes of the waves: an int is that many further hosts, a float the share (0 to 1) that is done after it.

    Args:
        given: a list of numbers and percentages, or that list as JSON (so it comes from the command line).

    Raises:
        FleetError: it is empty, or an item is neither a number of hosts nor a percentage.
    """
    items = given
    if isinstance(given, str):
        try:
            items = json.loads(given)
        except ValueError:
            items = [item.strip() for item in given.split(",")]
    if isinstance(items, (int, float)) and not isinstance(items, bool):
        items = [items]
    if not isinstance(items, list) or not items:
        raise FleetError(f"rollout_waves is {given!r}, which names no wave. {_EXAMPLE}")
    return [_size(item) for item in items]


def _size(item: t.Any) -> int | float:
    text = str(item).strip()
    percent = _PERCENT.match(text)
    if percent and 0 < float(percent[1]) <= 100:
        return float(percent[1]) / 100
    if text.isdigit() and int(text) > 0 and not isinstance(item, bool):
        return int(text)
    raise FleetError(
        f"rollout_waves has {item!r}, which is neither a number of hosts from 1 nor a percentage up to 100 %. "
        f"{_EXAMPLE}"
    )


def check_waves(waves: t.Any) -> list[int | float]:
    """The sizes, from parse_waves, if they cover all hosts.

    Raises:
        FleetError: the last one is not 100 %, or they are invalid.
    """
    sizes = parse_waves(waves)
    if not (isinstance(sizes[-1], float) and sizes[-1] == 1.0):
        shown = waves if isinstance(waves, str) else json.dumps(waves)
        raise FleetError(f"rollout_waves is {shown}, which never reaches 100 %: end it with '100%'. {_EXAMPLE}")
    return sizes


def split(hosts: list[str], canary: t.Collection[str], waves: t.Any) -> list[list[str]]:
    """The waves: the canary ring first, then the others by ``waves``.

    Args:
        hosts: those that take part, in the order of the inventory.
        canary: the hosts of the canary ring.
        waves: as for check_waves; shares are of the hosts that are not canaries.

    Raises:
        FleetError: as check_waves.
    """
    sizes = check_waves(waves)
    ring = [host for host in hosts if host in canary]
    others = [host for host in hosts if host not in canary]
    result = [ring] if ring else []
    done = 0
    for size in sizes:
        # Rounded up, so that a small share of a small fleet is not an empty wave.
        end = done + size if isinstance(size, int) else max(done, math.ceil(size * len(others) - 1e-9))
        if others[done:end]:
            result.append(others[done:end])
        done = min(end, len(others))
    return result


def together(waves: list[list[str]], companions: t.Mapping[str, t.Collection[str]]) -> list[list[str]]:
    """The waves, with hosts that share an instance in the wave of the first of them.

    Args:
        waves: as split gives them.
        companions: for each host those that must be changed with it.
    """
    left = [host for wave in waves for host in wave]
    result = []
    for wave in waves:
        taken = [host for host in wave if host in left]
        for host in taken:
            taken += [other for other in left if other in companions.get(host, ()) and other not in taken]
        left = [host for host in left if host not in taken]
        if taken:
            result.append(taken)
    return result
