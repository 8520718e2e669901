# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A client that acts like a cache with an incomplete key, so that a gate can show that it detects one."""

from __future__ import annotations

import typing as t

from ..net.http import HttpClient, Reply


class Replaying(HttpClient):
    """Answers every request for a path with the answer to the first one.

    Args:
        kept: the first answers, shared by the clients of one gate.
    """

    def __init__(self, kept: dict[str, Reply], *arguments: t.Any) -> None:
        super().__init__(*arguments)
        self._kept = kept

    def post(self, path: str, document: t.Any, timeout: float | None = None) -> Reply:
        if path in self._kept:
            return self._kept[path]
        reply = super().post(path, document, timeout)
        if reply.status == 200:
            # No cache stores an overload error.
            self._kept[path] = reply
        return reply
