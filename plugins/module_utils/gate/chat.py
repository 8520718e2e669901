# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""OpenAI's chat protocol for a gate: one request, whole or streamed, and its exact result."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import METRICS_PATH
from ansible_collections.inference.fleet.plugins.module_utils.net.http import (
    HttpClient,
    HttpFailure,
    Reply,
    excerpt,
    retry_after,
)

CHAT_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"

# A server's statuses while it is not ready or overloaded; a retry is right. A 500 is not among them: the engine failed
# to serve a valid request, which a gate must not ignore.
TRANSIENT_STATUSES = frozenset({408, 425, 429, 502, 503, 504})


class ChatFailure(Exception):
    """The result is not an answer.

    Args:
        reason: one word for programs, see the module's RETURN.
        came_back: the result, for a person.
        transient: a retry may help.
        wait: seconds to wait before a retry, from the server's answer.
    """

    def __init__(self, reason: str, came_back: str, transient: bool = False, wait: float | None = None) -> None:
        super().__init__(came_back)
        self.reason = reason
        self.came_back = came_back
        self.transient = transient
        self.wait = wait


@dataclasses.dataclass
class Completion:
    """One completion, with the seconds since its request was sent."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, t.Any] | None = None
    first: float | None = None
    last: float | None = None
    total: float = 0.0
    id: str | None = None
    created: float | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def completion_tokens(self) -> int | None:
        return self._count("completion_tokens")

    @property
    def prompt_tokens(self) -> int | None:
        return self._count("prompt_tokens")

    def identify(self, document: dict[str, t.Any]) -> None:
        """Take id and time from an answer, or a part of one."""
        self.id = self.id or _text_in(document, "id")
        created = document.get("created")
        if self.created is None and isinstance(created, (int, float)) and not isinstance(created, bool) and created > 0:
            self.created = float(created)

    def _count(self, name: str) -> int | None:
        value = (self.usage or {}).get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def question(
    model: str, prompt: str, max_tokens: int, image_url: str | None = None, **options: t.Any
) -> dict[str, t.Any]:
    """The body of a chat completion request, deterministic as far as an engine can be."""
    content: t.Any = prompt
    if image_url is not None:
        content = [{"type": "image_url", "image_url": {"url": image_url}}, {"type": "text", "text": prompt}]
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
        **options,
    }


def ask(client: HttpClient, document: dict[str, t.Any], timeout: float) -> Completion:
    """The whole answer to a request.

    Raises:
        ChatFailure: there was none.
    """
    reply, body = _post(client, CHAT_PATH, document, timeout)
    try:
        choice = body["choices"][0]
        text = _text_of(choice["message"])
        answer = Completion(
            text, choice.get("finish_reason"), _usage_of(body), total=reply.seconds, headers=reply.headers
        )
        answer.identify(body)
        return answer
    except (AttributeError, KeyError, IndexError, TypeError):
        raise ChatFailure("malformed", f"200, but no chat completion: {excerpt(reply.text())}") from None


def ask_streamed(client: HttpClient, document: dict[str, t.Any], timeout: float) -> Completion:
    """Like ask(), but streamed, with usage and the times of the first and the last chunk."""
    wanted = {**document, "stream": True, "stream_options": {"include_usage": True}}
    try:
        with client.stream(CHAT_PATH, wanted, timeout) as stream:
            kind = stream.headers.get("content-type", "")
            if stream.status != 200:
                _check_status(stream.reply())
            if not kind.startswith("text/event-stream"):
                raise ChatFailure("malformed", f"200, but no event stream: content type {kind or 'missing'}")
            answer = _Collector().collect(stream.events())
            answer.headers = stream.headers
            return answer
    except HttpFailure as failure:
        raise _explained(failure) from None


def ask_document(
    client: HttpClient, path: str, document: dict[str, t.Any], timeout: float
) -> tuple[dict[str, t.Any], Completion]:
    """The whole JSON of an answer, with the fields that every answer has.

    Raises:
        ChatFailure: there was none.
    """
    reply, body = _post(client, path, document, timeout)
    if not isinstance(body, dict):
        raise ChatFailure("malformed", f"200, but no object: {excerpt(reply.text())}")
    answer = Completion(usage=_usage_of(body), total=reply.seconds, headers=reply.headers)
    answer.identify(body)
    return body, answer


def models(client: HttpClient, timeout: float) -> dict[str, int | None]:
    """The names of the models that a server lists, with their context lengths where given.

    Raises:
        ChatFailure: it lists none in OpenAI's shape.
    """
    try:
        reply = client.get(MODELS_PATH, timeout)
        _check_status(reply)
        return {str(model["id"]): _length_of(model) for model in reply.json()["data"]}
    except HttpFailure as failure:
        raise _explained(failure) from None
    except (AttributeError, KeyError, TypeError):
        raise ChatFailure("malformed", f"200, but no list of models: {excerpt(reply.text())}") from None


def counters(client: HttpClient, timeout: float) -> str:
    """An engine's counters, in Prometheus' format.

    Raises:
        ChatFailure: it has none for us.
    """
    try:
        reply = client.get(METRICS_PATH, timeout)
    except HttpFailure as failure:
        raise _explained(failure) from None
    _check_status(reply)
    return reply.text()


def status_of(client: HttpClient, document: dict[str, t.Any], timeout: float) -> Reply:
    """The reply to a request whose status alone matters.

    Raises:
        ChatFailure: there was none, or one that asks for a retry.
    """
    try:
        reply = client.post(CHAT_PATH, document, timeout)
    except HttpFailure as failure:
        raise _explained(failure) from None
    if reply.status in TRANSIENT_STATUSES:
        _check_status(reply)
    return reply


def said(reply: Reply) -> str:
    """A reply's status and body, in one line."""
    text = reply.text()
    try:
        error = json.loads(text)["error"]
        text = error if isinstance(error, str) else str(error["message"])
    except (ValueError, KeyError, TypeError):
        pass
    return f"{reply.status}: {excerpt(text)}" if text.strip() else f"{reply.status} without a body"


def _post(client: HttpClient, path: str, document: dict[str, t.Any], timeout: float) -> tuple[Reply, t.Any]:
    """The reply to a request that the server accepted, and the JSON in it.

    Raises:
        ChatFailure: it refused, or there was no answer.
    """
    try:
        reply = client.post(path, document, timeout)
        _check_status(reply)
        return reply, reply.json()
    except HttpFailure as failure:
        raise _explained(failure) from None


def _check_status(reply: Reply) -> None:
    if reply.status == 200:
        return
    reason = "unauthorized" if reply.status in (401, 403) else "status"
    raise ChatFailure(reason, said(reply), reply.status in TRANSIENT_STATUSES, retry_after(reply.headers))


def _explained(failure: HttpFailure) -> ChatFailure:
    reasons = {"timeout": "timeout", "cut": "truncated", "garbled": "malformed"}
    transient = failure.kind in ("refused", "reset", "timeout", "unreachable")
    return ChatFailure(reasons.get(failure.kind, "unreachable"), failure.said, transient)


def _length_of(model: dict[str, t.Any]) -> int | None:
    length = model.get("max_model_len")
    return length if isinstance(length, int) and length > 0 else None


def _usage_of(document: dict[str, t.Any]) -> dict[str, t.Any] | None:
    usage = document.get("usage")
    return usage if isinstance(usage, dict) else None


def _text_in(document: dict[str, t.Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) and value else None


def _text_of(message: dict[str, t.Any]) -> str:
    content = message["content"]
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content or ""


class _Collector:
    """Assembles the chunks of a stream. A stream that breaks is a lost answer: a retry would hide it."""

    def __init__(self) -> None:
        self._answer = Completion()
        self._pieces: list[str] = []
        self._opened: float | None = None
        self._seen = 0

    def collect(self, events: t.Iterator[tuple[float, str]]) -> Completion:
        try:
            for elapsed, data in events:
                self._answer.total = elapsed
                if data.strip() == "[DONE]":
                    return self._finished()
                try:
                    self._take(elapsed, _chunk(data))
                except (AttributeError, TypeError):
                    raise ChatFailure("malformed", f"200, but an event of another shape: {excerpt(data)}") from None
        except HttpFailure as failure:
            if self._seen == 0:
                raise
            reason = "timeout" if failure.kind == "timeout" else "truncated"
            raise ChatFailure(reason, self._cut(failure.said)) from None
        raise ChatFailure("truncated", self._cut("the stream ended without [DONE]"))

    def _take(self, elapsed: float, chunk: dict[str, t.Any]) -> None:
        answer = self._answer
        self._seen += 1
        answer.identify(chunk)
        answer.usage = _usage_of(chunk) or answer.usage
        for choice in chunk.get("choices") or []:
            self._opened = elapsed if self._opened is None else self._opened
            answer.last = elapsed
            delta = choice.get("delta") or {}
            if delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
                answer.first = elapsed if answer.first is None else answer.first
            self._pieces.append(_text_of({"content": None, **delta}))
            answer.finish_reason = choice.get("finish_reason") or answer.finish_reason

    def _finished(self) -> Completion:
        self._answer.text = "".join(self._pieces)
        if self._answer.first is None:
            # No token could be shown as text; the first event still came with the first token.
            self._answer.first = self._opened
        return self._answer

    def _cut(self, how: str) -> str:
        return f"200, then {how} after {self._seen} events"


def _chunk(data: str) -> dict[str, t.Any]:
    try:
        chunk = json.loads(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise ChatFailure("malformed", f"200, but an event that is no JSON object: {excerpt(data)}")
    if "error" in chunk:
        error = chunk["error"]
        message = error.get("message", error) if isinstance(error, dict) else error
        raise ChatFailure("truncated", f"200, then an error in the stream: {excerpt(str(message))}")
    return chunk
