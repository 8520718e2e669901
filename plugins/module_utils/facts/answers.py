# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What answers used, as the edge's access log says it: tokens by client and model, times of tokens by client. Pure."""

from __future__ import annotations

import dataclasses
import re
import typing as t

#: What is known of an answer's usage: all of it, what it was some time before it was broken off, or nothing.
WHOLE, PARTIAL, UNKNOWN = "whole", "partial", "unknown"
KNOWN = (WHOLE, PARTIAL, UNKNOWN)

#: Further clients, and further models of a client, count under this name. An engine may repeat
#: whatever model its client named, so the bound is for each client: it spoils its own figures alone.
OTHER = "other"
_MOST_CLIENTS = 1000
_MOST_MODELS = 20

# The end of a line of the access log.
_ANSWER = re.compile(
    r" answer=(?P<answer>whole|stream) model=(?P<model>\S*) prompt=(?P<prompt>\S*) cached=(?P<cached>\S*) "
    r"completion=(?P<completion>\S*) first_token_ms=(?P<first>\S*) tokens_ms=(?P<tokens>\S*)$"
)
_NOTHING = "-"
#: HAProxy's word for an end that neither side broke off.
_COMPLETE = "--"


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        client: whose it was.
        model: that gave it, by its own name; empty if it is not known.
        complete: whether neither side broke it off.
        prompt: tokens; None if they are not known, as for the next two.
        cached: of these.
        completion: tokens of the answer.
        first: milliseconds until the first token; None if it was not streamed.
        tokens: milliseconds from there until the end.
    """

    client: str
    model: str
    complete: bool
    prompt: int | None
    cached: int | None
    completion: int | None
    first: int | None
    tokens: int | None

    @property
    def known(self) -> str:
        """One of KNOWN."""
        if self.prompt is None and self.completion is None:
            return UNKNOWN
        return WHOLE if self.complete and self.prompt is not None else PARTIAL


def parse(line: str, client: str, end: str) -> Answer | None:
    """The answer of a request.

    Args:
        line: of the access log.
        client: that it names.
        end: how it says that the request ended.

    Returns:
        None if the line tells of none.
    """
    match = _ANSWER.search(line)
    if not match:
        return None
    names = ("prompt", "cached", "completion", "first", "tokens")
    numbers = {name: int(match[name]) if match[name].isdecimal() else None for name in names}
    model = "" if match["model"] == _NOTHING else match["model"]
    return Answer(client=client, model=model, complete=end == _COMPLETE, **numbers)


@dataclasses.dataclass
class AnswerCounters:
    """Counters that only grow.

    Attributes:
        answers: by client, model and what is known of their usage.
        tokens: of prompts, of these in the cache, and of answers; by client and model.
        first: streams, and the milliseconds until their first tokens; by client.
        gaps: tokens after the first, and the milliseconds that they took; by client.
    """

    answers: dict[tuple[str, str, str], int] = dataclasses.field(default_factory=dict)
    tokens: dict[tuple[str, str], tuple[int, int, int]] = dataclasses.field(default_factory=dict)
    first: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    gaps: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        client, model = self._bounded(answer)
        key = (client, model, answer.known)
        self.answers[key] = self.answers.get(key, 0) + 1
        prompt, cached, completion = self.tokens.get((client, model), (0, 0, 0))
        self.tokens[client, model] = (
            prompt + (answer.prompt or 0),
            cached + (answer.cached or 0),
            completion + (answer.completion or 0),
        )
        if answer.first is not None:
            self.first[client] = _more(self.first.get(client), 1, answer.first)
        # One that was broken off has gone on since it was counted.
        if answer.known == WHOLE and answer.tokens is not None and (answer.completion or 0) > 1:
            self.gaps[client] = _more(self.gaps.get(client), (answer.completion or 0) - 1, answer.tokens)

    def document(self) -> dict[str, t.Any]:
        """The counters, for a file."""
        return {
            "answers": [[*key, count] for key, count in self.answers.items()],
            "tokens": [[*key, *counts] for key, counts in self.tokens.items()],
            "first": [[client, *counts] for client, counts in self.first.items()],
            "gaps": [[client, *counts] for client, counts in self.gaps.items()],
        }

    @classmethod
    def read(cls, document: t.Mapping[str, t.Any]) -> AnswerCounters:
        """The counters that document() returned."""
        return cls(
            {(str(client), str(model), str(known)): int(n) for client, model, known, n in document["answers"]},
            {(str(client), str(model)): (int(a), int(b), int(c)) for client, model, a, b, c in document["tokens"]},
            {str(client): (int(count), int(total)) for client, count, total in document["first"]},
            {str(client): (int(count), int(total)) for client, count, total in document["gaps"]},
        )

    def _bounded(self, answer: Answer) -> tuple[str, str]:
        client, model = answer.client, answer.model
        if (client, model) in self.tokens:
            return client, model
        clients = {known for known, _model in self.tokens}
        if client not in clients and len(clients) >= _MOST_CLIENTS:
            client = OTHER
        models = {known for of, known in self.tokens if of == client}
        if model not in models and len(models) >= _MOST_MODELS:
            model = OTHER
        return client, model


def _more(before: tuple[int, int] | None, count: int, total: int) -> tuple[int, int]:
    counts, totals = before or (0, 0)
    return counts + count, totals + total
