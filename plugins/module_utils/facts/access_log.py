# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the edge's access log says beyond HAProxy's own metrics: refusals by cause, times and usage by client. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.facts.answers import OTHER, AnswerCounters
from ansible_collections.inference.fleet.plugins.module_utils.facts.answers import parse as parse_answer

#: Further clients and causes count as OTHER. Both are few; a client's name is the key store's.
_MOST_CLIENTS = 1000
_MOST_CAUSES = 50

# What role edge's log format writes. No value has a space.
_LINE = re.compile(
    r"client=(?P<client>\S+) key=\S+ from=\S+ for=\S* method=\S+ path=(?P<path>\S*) status=-?\d+ "
    r"instance=(?P<instance>\S*) end=(?P<end>\S*) .*? total_ms=\+?(?P<total>\d+) .* cause=(?P<cause>\S*) request="
)
_API = "/v1/"
_NOTHING = "-"
#: HAProxy's names for no instance.
_NO_INSTANCE = ("", _NOTHING, "<NOSRV>")


class AccessCounters:
    """Counters that only grow.

    Attributes:
        rejected: by client (empty where no key was live) and cause.
        served: requests and their milliseconds, by client.
        answers: what these requests used.
    """

    def __init__(self) -> None:
        self.rejected: dict[tuple[str, str], int] = {}
        self.served: dict[str, tuple[int, int]] = {}
        self.answers = AnswerCounters()

    def add(self, message: str) -> None:
        """Count a line of the log, if it is one of the access log."""
        match = _LINE.match(message)
        if not match:
            return
        client = "" if match["client"] == _NOTHING else match["client"]
        cause = "" if match["cause"] == _NOTHING else match["cause"]
        if cause:
            key = self._bounded(client, cause)
            self.rejected[key] = self.rejected.get(key, 0) + 1
        # Without a client it is a try of a request that has a line of its own.
        elif client and match["path"].startswith(_API) and match["instance"] not in _NO_INSTANCE:
            name = client if client in self.served or len(self.served) < _MOST_CLIENTS else OTHER
            count, total = self.served.get(name, (0, 0))
            self.served[name] = (count + 1, total + int(match["total"]))
            answer = parse_answer(message, client, match["end"])
            if answer:
                self.answers.add(answer)

    def document(self) -> dict[str, t.Any]:
        """The counters, for a file."""
        return {
            "rejected": [[client, cause, count] for (client, cause), count in self.rejected.items()],
            "served": [[client, count, total] for client, (count, total) in self.served.items()],
            "answers": self.answers.document(),
        }

    @classmethod
    def read(cls, document: t.Mapping[str, t.Any]) -> AccessCounters:
        """The counters that document() returned."""
        counters = cls()
        counters.rejected = {(str(client), str(cause)): int(count) for client, cause, count in document["rejected"]}
        counters.served = {str(client): (int(count), int(total)) for client, count, total in document["served"]}
        # Written before answers counted, it has none.
        if "answers" in document:
            counters.answers = AnswerCounters.read(document["answers"])
        return counters

    def _bounded(self, client: str, cause: str) -> tuple[str, str]:
        if (client, cause) in self.rejected:
            return client, cause
        causes = {known for _client, known in self.rejected}
        if cause not in causes and len(causes) >= _MOST_CAUSES:
            cause = OTHER
        clients = {known for known, _cause in self.rejected}
        if client not in clients and len(clients) >= _MOST_CLIENTS:
            client = OTHER
        return client, cause
