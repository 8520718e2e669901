# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request may not make an engine open or do: it stands in front of the engine, in the engine's own process.

Engines load a picture, a video or a sound from wherever its URL points to: SGLang opens paths of the host. Here
``data:`` passes, http and https pass for the domains in FLEET_MEDIA_DOMAINS, and everything else is refused with 400
before the engine sees it. So is a request for more answers than FLEET_MAX_ANSWERS: an engine serves requests in turn,
and one with thousands of answers keeps all others waiting. HAProxy cannot do either: a body is larger than what it
holds of one.

vLLM takes RequestGuard as --middleware; sglang_start.py puts it in front of SGLang. Standard library only.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import os
import time
import typing as t
import urllib.parse

from usage_report import App, Message, Receive, Send, UsageReport

#: The fields that engines load media from, in any of their interfaces.
MEDIA = frozenset(
    [f"{kind}{end}" for kind in ("image", "video", "audio") for end in ("", "s", "_url", "_urls", "_data")]
    + [f"input_{kind}" for kind in ("image", "video", "audio")]
    + ["file_url"]
)
#: Where such a field, if it is an object, names a place.
PLACES = ("url", "uri", "path", "file")
#: What describes data and is none: nothing is loaded from there, and a schema may well have a property "image".
DESCRIPTIONS = frozenset(["tools", "functions", "response_format", "structured_outputs", "metadata"])
#: Lists of further files, which a decoder would open in turn.
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"v=0", b"<")
#: How much of a file says what it is.
HEAD = 2048
#: Seconds that a body may take, and the bytes for which it gets a further one: one that comes more slowly would hold a
#: place that the edge gives to few at a time.
BODY_SECONDS = 30.0
BODY_BYTES_PER_SECOND = 16384
#: The fields that say how many answers a prompt has.
ANSWERS = ("n", "best_of")
#: How many answers one request may ask for where nothing else is said: as many as OpenAI gives.
MAX_ANSWERS = 128

_GUARDED = "inference.fleet.guarded"


class RefusedError(Exception):
    """A request that must not reach the engine.

    Attributes:
        message: for the client.
        code: as OpenAI's errors have one.
        field: the name of the field at fault; None where it is the body as a whole.
        status: of the answer.
    """

    def __init__(self, message: str, code: str, field: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field
        self.status = status

    def body(self) -> bytes:
        error = {"message": self.message, "type": "invalid_request_error", "param": self.field, "code": self.code}
        return json.dumps({"error": error}).encode()


def allowed_domains(text: str) -> frozenset[str]:
    """The domains in FLEET_MEDIA_DOMAINS."""
    return frozenset(name.strip().rstrip(".").lower() for name in text.split(",") if name.strip())


def check_body(body: bytes, domains: t.Collection[str], max_answers: int = MAX_ANSWERS) -> None:
    """Refuse a body that names media which must not be loaded, asks for too many answers, or cannot be read at all.

    Args:
        body: of a POST; a form is not looked into, since its files come inside it.
        domains: that media may be fetched from.
        max_answers: that it may ask for, over all its prompts.

    Raises:
        RefusedError: so it is.
    """
    if not body.strip() or body.startswith(b"--"):
        return
    try:
        # Every pair of a name that is given twice: engines do not agree on which of them counts.
        document = json.loads(body, object_pairs_hook=lambda pairs: Pairs(pairs))
    except (ValueError, RecursionError):
        raise RefusedError("The body is not valid JSON.", "invalid_json") from None
    if isinstance(document, Pairs):
        _check_answers(document, max_answers)
        document = Pairs(pair for pair in document if pair[0] not in DESCRIPTIONS)
    left = [document]
    while left:
        value = left.pop()
        if isinstance(value, Pairs):
            kinds = [inner for name, inner in value if name == "type"]
            has_source = any(kind in kinds for kind in ("image", "video", "audio", "document"))
            for name, inner in value:
                if name in MEDIA or (name == "source" and has_source):
                    _check_media(name, inner, domains)
                # What a model has called a tool with is text to it.
                if name != "arguments" and not (name == "input" and kinds == ["tool_use"]):
                    left.append(inner)
        elif isinstance(value, list):
            left.extend(value)


class Pairs(list):  # type: ignore[type-arg]
    """A JSON object as it was written: its names and values in their order."""


def _check_answers(document: Pairs, limit: int) -> None:
    each = max([1, *(_number(value) for name, value in document if name in ANSWERS)])
    prompts = max([1, *(_prompts(value) for name, value in document if name == "prompt")])
    if each * prompts > limit:
        field = "n" if each > 1 else "prompt"
        raise RefusedError(
            f"The request asks for more than {limit} answers, which is the most here: n is {each}, with {prompts} "
            f"prompt{'s' if prompts > 1 else ''}. Send several requests.",
            "too_many_answers",
            field,
        )


def _number(value: t.Any) -> float:
    """A number as engines read one, who take it out of a text, too; 0 for what is none."""
    try:
        return float(value) if isinstance(value, (int, float, str)) else 0
    except (ValueError, OverflowError):
        return math.inf if isinstance(value, int) else 0


def _prompts(value: t.Any) -> int:
    """How many prompts these are; a list of token ids is one."""
    return len(value) if isinstance(value, list) and any(not isinstance(item, int) for item in value) else 1


def _check_media(field: str, value: t.Any, domains: t.Collection[str]) -> None:
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            _check_url(field, item, domains)
        elif isinstance(item, Pairs):
            for name, inner in item:
                if name in PLACES and isinstance(inner, str):
                    _check_url(field, inner, domains)
                elif name == "data" and isinstance(inner, str):
                    _check_content(field, inner)
        elif isinstance(item, list):
            left.extend(item)


def _check_url(field: str, url: str, domains: t.Collection[str]) -> None:
    if url.startswith("data:"):
        return _check_content(field, url.partition(",")[2])
    if not _is_allowed(url, domains):
        places = f", and by http or https from {', '.join(sorted(domains))}" if domains else ""
        raise RefusedError(
            f"{field} is loaded only from a data: URL in the request itself{places}.", "media_not_allowed", field
        )


def _is_allowed(url: str, domains: t.Collection[str]) -> bool:
    # What parsers read differently is not read at all.
    if any(character in "\\@" or not "!" <= character <= "~" for character in url):
        return False
    try:
        parts = urllib.parse.urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and host in domains


def _check_content(field: str, content: str) -> None:
    """Refuse a video or a sound that is in fact a list of places to load it from."""
    if "image" in field:
        return
    try:
        # Whole groups of four.
        head = base64.b64decode(content[: HEAD // 3 * 4])
    except (binascii.Error, ValueError):
        return
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(PLAYLISTS):
        raise RefusedError(f"{field} is a playlist; send the file itself.", "media_not_allowed", field)


class RequestGuard:
    """ASGI middleware. Each body is read as a whole, in time, looked at, and given to the application as it came.

    Only where the edge wants to know what a stream uses does ``usage_report.py`` add to it.

    Args:
        app: what is guarded.
        checks_media: whether the application is an engine, which loads media itself and reports usage, and does not
            only pass requests on.
    """

    def __init__(self, app: App, checks_media: bool = True) -> None:
        self._app: App = UsageReport(app) if checks_media else app
        self._checks_media = checks_media
        self._domains = allowed_domains(os.environ.get("FLEET_MEDIA_DOMAINS", ""))
        self._max_answers = int(os.environ.get("FLEET_MAX_ANSWERS") or MAX_ANSWERS)

    async def __call__(self, scope: t.Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH") or scope.get(_GUARDED):
            return await self._app(scope, receive, send)
        scope[_GUARDED] = True
        try:
            body = await _read_body(receive)
            if body is None:
                return None
            if self._checks_media:
                check_body(body, self._domains, self._max_answers)
        except RefusedError as refused:
            return await _answer(send, refused)
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return whole.pop() if whole else await receive()

        return await self._app(scope, receive_again, send)


async def _read_body(
    receive: Receive, clock: t.Callable[[], float] = time.monotonic, seconds: float = BODY_SECONDS
) -> bytes | None:
    """A request's whole body; None if its client has gone.

    Raises:
        RefusedError: it comes too slowly.
    """
    body = bytearray()
    began = clock()
    more = True
    while more:
        left = began + seconds + len(body) / BODY_BYTES_PER_SECOND - clock()
        try:
            message = await asyncio.wait_for(receive(), max(left, 0))
        except asyncio.TimeoutError:
            raise RefusedError("The request's body did not arrive in time.", "request_timeout", status=408) from None
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


async def _answer(send: Send, refused: RefusedError) -> None:
    body = refused.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # The rest of a body that comes slowly is not waited for.
    headers += [(b"connection", b"close")] if refused.status == 408 else []
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def guard_applications(checks_media: bool = True) -> None:
    """Put the guard in front of every application of this process, and of those that it starts and that do the same.

    Whatever serves it: uvicorn in this process or in workers, or another server.

    Args:
        checks_media: as RequestGuard has it.

    Raises:
        ImportError: there is no Starlette, which FastAPI is made of: the engine's HTTP is of another kind.
    """
    from starlette.applications import Starlette  # type: ignore[import-not-found,unused-ignore]

    unguarded = Starlette.__call__

    async def guarded(self: t.Any, scope: t.Any, receive: Receive, send: Send) -> None:
        async def app(scope: t.Any, receive: Receive, send: Send) -> None:
            await unguarded(self, scope, receive, send)

        await RequestGuard(app, checks_media)(scope, receive, send)

    Starlette.__call__ = guarded
