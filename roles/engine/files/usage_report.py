# SPDX-License-Identifier: GPL-3.0-or-later
"""What a streamed answer uses, for the edge: in comments of the stream, which clients skip.

An engine says what a stream used only if its client asked, and then at its end. Its own option to say it always would
change the streams of clients that did not ask: a last piece without choices, on which ``choices[0]`` fails, and usage
in each piece, which langchain adds up. So the engine is asked here, on behalf of each client, and what the client did
not ask for is taken out again. The edge gets it in front of the end; for clients with limits also every quarter of a
second, so that a stream counts that is broken off:

    : usage {"prompt_tokens":12,"total_tokens":40,"completion_tokens":28}

This happens to requests on which the edge has set X-Fleet-Usage (end, or always), and to no others. Before the end of a
stream a comment alone is not harmless: openai-go before 3.43 takes it for the end. Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
import typing as t

Message = t.MutableMapping[str, t.Any]
Receive = t.Callable[[], t.Awaitable[Message]]
Send = t.Callable[[Message], t.Awaitable[None]]
App = t.Callable[[t.Any, Receive, Send], t.Awaitable[None]]

#: The edge's header, and its value where a stream is reported while it runs.
HEADER = b"x-fleet-usage"
ALWAYS = b"always"
PATHS = ("/v1/chat/completions", "/v1/completions")
#: Seconds between two reports.
INTERVAL = 0.25

# In a text quotes have a backslash in front of them, so this is never text.
_USAGE = re.compile(rb'"usage":\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_WITHOUT_CHOICES = re.compile(rb'"choices":\s*\[\]')
_END = b"data: [DONE]"


@dataclasses.dataclass(frozen=True)
class UsageWish:
    """What a client asked for.

    Attributes:
        options: of its stream, as it gave them.
        usage: to say at the end what was used.
        continuous: to say it in each piece.
        single: whether it asked for one answer. The pieces of several ones have each their own usage.
    """

    options: t.Mapping[str, t.Any]
    usage: bool
    continuous: bool
    single: bool


def asked_in(body: bytes) -> UsageWish | None:
    """What the client asked for; None if its answer is not streamed, or the body is not understood."""
    if b'"stream"' not in body:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("stream") is not True:
        return None
    options = document.get("stream_options") or {}
    prompt = document.get("prompt")
    if not isinstance(options, dict):
        return None
    usage = options.get("include_usage") is True
    several = document.get("n") not in (None, 1) or document.get("best_of") not in (None, 1)
    several = several or (isinstance(prompt, list) and not all(isinstance(one, int) for one in prompt))
    return UsageWish(options, usage, usage and options.get("continuous_usage_stats") is True, not several)


def with_usage(body: bytes, asked: UsageWish, always: bool) -> bytes:
    """The body with the engine asked for usage. Of a name that is there twice, the last one counts.

    Args:
        body: the client's.
        asked: what it says.
        always: whether the stream is reported while it runs.
    """
    options = {**asked.options, "include_usage": True}
    if asked.single and always:
        options["continuous_usage_stats"] = True
    head, _brace, _rest = body.rpartition(b"}")
    return head + b',"stream_options":' + json.dumps(options).encode() + b"}"


class StreamUsage:
    """One stream: takes out what its client did not ask for, and puts reports in.

    Args:
        asked: what its client asked for.
        clock: in seconds.
    """

    def __init__(self, asked: UsageWish, clock: t.Callable[[], float] = time.monotonic) -> None:
        self._asked = asked
        self._clock = clock
        self._due = clock()
        self._unreported = b""

    def rewrite(self, data: bytes, more: bool) -> bytes:
        """What goes out in place of ``data``. Engines send whole events; what is none passes as it is.

        Args:
            data: a piece of the stream.
            more: whether there are further ones.
        """
        if b'"usage"' in data or _END in data:
            *events, rest = data.split(b"\n\n")
            data = b"".join(map(self._event, events)) + rest
        return data if more else data + self._report()

    def _event(self, event: bytes) -> bytes:
        found = _USAGE.search(event)
        if not found:
            return (self._report() if event.startswith(_END) else b"") + event + b"\n\n"
        is_last = bool(_WITHOUT_CHOICES.search(event))
        kept = self._asked.continuous or (is_last and self._asked.usage)
        self._unreported = b"" if kept else found[1]
        if kept:
            return event + b"\n\n"
        if is_last:
            return self._report()
        piece = event[: found.start(1)] + b"null" + event[found.end(1) :] + b"\n\n"
        return piece + self._report() if self._clock() >= self._due else piece

    def _report(self) -> bytes:
        """A report of what was not reported yet."""
        if not self._unreported:
            return b""
        report = b": usage " + self._unreported.replace(b"\n", b"") + b"\n\n"
        self._unreported = b""
        self._due = self._clock() + INTERVAL
        return report


class UsageReport:
    """ASGI middleware behind the request guard, which has read the body as a whole.

    Args:
        app: what answers.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: t.Any, receive: Receive, send: Send) -> None:
        mark = dict(scope.get("headers", ())).get(HEADER)
        if scope.get("path") not in PATHS or mark is None:
            return await self._app(scope, receive, send)
        message = await receive()
        asked = None
        if message["type"] == "http.request" and not message.get("more_body", False):
            asked = asked_in(message.get("body", b""))
        first = [message]
        if asked is not None:
            body = with_usage(message["body"], asked, mark == ALWAYS)
            first = [{**message, "body": body}]
            scope = {**scope, "headers": _with_length(scope["headers"], len(body))}
            send = _rewriting(StreamUsage(asked), send)

        async def receive_again() -> Message:
            return first.pop() if first else await receive()

        return await self._app(scope, receive_again, send)


def _with_length(headers: t.Iterable[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    return [(name, str(length).encode() if name == b"content-length" else value) for name, value in headers]


def _rewriting(stream: StreamUsage, send: Send) -> Send:
    """What sends an answer on, rewritten if it is a stream of events."""
    streams = False

    async def rewrite(message: Message) -> None:
        nonlocal streams
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            streams = any(kind.startswith(b"text/event-stream") for kind in kinds)
        elif message["type"] == "http.response.body" and streams:
            more = message.get("more_body", False)
            data = stream.rewrite(message.get("body", b""), more)
            if not data and more:
                return
            message = {**message, "body": data}
        await send(message)

    return rewrite
