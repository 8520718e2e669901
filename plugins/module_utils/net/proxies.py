# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Addresses of a host's own, which no proxy of the environment is asked for. Pure; hosts have a copy of this file."""

from __future__ import annotations

import typing as t

#: Loopback, where edge, gateway and engines ask each other, and the instance metadata of EC2.
OWN = ("localhost", "127.0.0.1", "::1", "169.254.169.254")

_NAMES = ("no_proxy", "NO_PROXY")


def exempt_own(environment: t.Mapping[str, str]) -> dict[str, str]:
    """An environment in which programs ask a host's own addresses directly; else it stays as it is."""
    given = [name.strip() for variable in _NAMES for name in environment.get(variable, "").split(",")]
    return {**environment, **dict.fromkeys(_NAMES, ",".join(dict.fromkeys([*filter(None, given), *OWN])))}
