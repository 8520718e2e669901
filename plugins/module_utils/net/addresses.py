# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Parses addresses that may hold a password. Pure."""

from __future__ import annotations

import typing as t
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


def split(
    url: str, form: str, schemes: t.Collection[str], default_port: int
) -> tuple[urllib.parse.SplitResult, str, int]:
    """The parts of an address, its host and its port.

    Args:
        url: the address.
        form: the expected form, for the message.
        schemes: the valid schemes.
        default_port: where it has none.

    Raises:
        FleetError: it is invalid. The message has no part of it, because any could be the password.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or default_port
    except ValueError:
        raise FleetError(
            f"{form}. Its port is no number; a password with characters such as / or @ has to be percent-encoded."
        ) from None
    if parts.scheme not in schemes or not parts.hostname:
        raise FleetError(f"{form}. It begins with another word, or names no host.")
    return parts, parts.hostname, port
