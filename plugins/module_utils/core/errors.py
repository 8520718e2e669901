# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The only exception that our code raises on purpose; a module's main() turns it into fail_json."""

from __future__ import annotations

import typing as t


class FleetError(Exception):
    """A failure with an explanation for a person.

    Args:
        message: what failed, on what, with which value, and what to do. Never a secret.
        details: values that the module returns with the message.
    """

    def __init__(self, message: str, **details: t.Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
