# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The instance's metadata (IMDSv2): a token first, and a new one when it is refused. Needs no rights, uses no proxy."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure, Reply
from ansible_collections.inference.fleet.plugins.module_utils.notices.announced import (
    PATHS,
    Notice,
    Unreadable,
    read_notices,
)
from ansible_collections.inference.fleet.plugins.module_utils.notices.decision import MetadataLook

ENDPOINT = "http://169.254.169.254"

_TOKEN_PATH = "/latest/api/token"  # noqa: S105
_DATA_PATH = "/latest/meta-data/"
_TOKEN_SECONDS = 3600
# It is on the host's own link: a second is long.
_TIMEOUT = 1.0


class Unreachable(Exception):
    """The metadata does not answer, with the reason for people."""


class Metadata:
    """The metadata of this instance.

    Args:
        url: where it answers.
    """

    def __init__(self, url: str = ENDPOINT) -> None:
        self.url = url
        self._client = HttpClient(url, timeout=_TIMEOUT)
        self._token = ""
        self._renew_at = 0.0

    def answers(self) -> str:
        """Why the metadata cannot be read; empty where it can."""
        try:
            self._ask_for_token()
        except Unreachable as error:
            return str(error)
        return ""

    def look(self) -> MetadataLook:
        """Everything that AWS announces now. A problem with one document hides none of the others."""
        found: list[Notice] = []
        problems: list[str] = []
        for kind, path in PATHS.items():
            try:
                text = self._get(path)
                found += read_notices(kind, text) if text is not None else []
            except Unreadable as error:
                problems.append(str(error))
            except Unreachable as error:
                # The others would not answer either, and each would take as long.
                return MetadataLook(tuple(found), "; ".join([*problems, str(error)]))
        return MetadataLook(tuple(found), "; ".join(problems))

    def _get(self, path: str) -> str | None:
        """A document; None where there is none."""
        if time.monotonic() >= self._renew_at:
            self._ask_for_token()
        reply = self._read(path)
        if reply.status == 401:
            # A token ends with its time, and with a stop of the instance.
            self._ask_for_token()
            reply = self._read(path)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise Unreadable(f"{path} was answered {reply.status}")
        return reply.text()

    def _read(self, path: str) -> Reply:
        return self._send("GET", _DATA_PATH + path, {"X-aws-ec2-metadata-token": self._token})

    def _ask_for_token(self) -> None:
        self._renew_at = 0.0
        asked = time.monotonic()
        reply = self._send("PUT", _TOKEN_PATH, {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)})
        token = reply.text().strip()
        # A token is one printable word; anything else would come back as a broken header.
        if reply.status != 200 or not token.isascii() or not token.isprintable() or not token:
            raise Unreachable(f"{self.url} gives no token (status {reply.status})")
        self._token = token
        self._renew_at = asked + _TOKEN_SECONDS / 2

    def _send(self, method: str, path: str, headers: t.Mapping[str, str]) -> Reply:
        try:
            return self._client.send(method, path, headers)
        except HttpFailure as failure:
            raise Unreachable(f"{self.url}: {failure.said}") from failure
