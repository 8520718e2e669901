# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether a client can make a server open local files of its host. Pure: requests, and the expected answers.

The answers for an existing and for a missing file are compared: an engine that opens either gives different ones, even
where it then finds no image in it.
"""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.net.http import Reply

from .chat import said
from .golden import CheckFailure

EXISTING = "/etc/hostname"
MISSING = "/nonexistent/inference-fleet"

_PARTS = ("image_url", "video_url", "audio_url")


class Question(t.NamedTuple):
    """A request that is sent with each path.

    Attributes:
        part: the type of a message's part.
        scheme: the prefix of the path.
    """

    part: str
    scheme: str

    def url(self, path: str) -> str:
        return f"{self.scheme}{path}"

    def content(self, path: str) -> list[dict[str, t.Any]]:
        """The message's content."""
        return [{"type": self.part, self.part: {"url": self.url(path)}}, {"type": "text", "text": "What is this?"}]


QUESTIONS = [Question(part, scheme) for part in _PARTS for scheme in ("file://", "")]

# Behind a gateway each request may reach another host, and hosts of two releases may refuse in two ways.
ROUNDS = 4


def refusal(question: Question, path: str, reply: Reply) -> str:
    """A server's refusal to open a file, without the file's name.

    Raises:
        CheckFailure: it does not refuse.
    """
    what = f"for the {question.part} {question.url(path)}"
    if 200 <= reply.status < 300:
        raise CheckFailure("file_opened", f"{reply.status} {what}; expected a refusal")
    if not 400 <= reply.status < 500:
        raise CheckFailure("status", f"{said(reply)}, {what}; expected 400")
    return said(reply).replace(question.url(path), "…").replace(path, "…")


def difference(question: Question, existing: t.Collection[str], missing: t.Collection[str]) -> CheckFailure | None:
    """Evidence that a server answers one way for existing files and always another for missing ones; None for none."""
    if set(existing) & set(missing):
        return None
    one, other = sorted(existing)[0], sorted(missing)[0]
    got = f"{one} for the {question.part} {question.url(EXISTING)}, and {other} where there is no file"
    return CheckFailure("file_opened", got)
