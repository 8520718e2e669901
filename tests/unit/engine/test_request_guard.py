"""What the request guard passes to an engine and what it refuses: the real middleware, a small application."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from tests.programs import load

ROLES = Path(__file__).parents[3] / "roles"
PROGRAM = ROLES / "engine/files/request_guard.py"
PICTURE = "data:image/png;base64,iVBORw0KGgo="

# A package of this name that is an application's base, an engine built on it, and a request to it.
ENGINE = """
import asyncio, json
from starlette.applications import Starlette

async def ask():
    sent = []
    async def receive():
        return {"type": "http.request", "body": b'{"image_url": "/etc/passwd"}', "more_body": False}
    async def send(message):
        sent.append(message)
    await Starlette()({"type": "http", "method": "POST", "path": "/v1/chat/completions"}, receive, send)
    return sent

if __name__ == "__main__":
    print(json.dumps([message.get("status") for message in asyncio.run(ask())]))
"""
STARLETTE = """
class Starlette:
    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
"""


@pytest.fixture(scope="module")
def guard() -> t.Any:
    load(ROLES / "engine/files/usage_report.py")
    return load(PROGRAM)


class Engine:
    """An application that records its requests."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, _scope: t.Any, receive: t.Any, send: t.Any) -> None:
        message = await receive()
        self.bodies.append(message.get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": (await receive())["type"].encode()})


def ask(guard: t.Any, body: bytes, *, method: str = "POST", pieces: int = 1) -> tuple[Engine, int, bytes]:
    """The result of a request that arrives in so many pieces, after which the client stays."""
    engine = Engine()
    size = -(-len(body) // pieces) or 1
    parts = [body[place : place + size] for place in range(0, len(body), size)] or [b""]
    arriving = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]
    arriving.append({"type": "http.disconnect"})
    sent: list[dict[str, t.Any]] = []

    async def receive() -> dict[str, t.Any]:
        return arriving.pop(0)

    async def send(message: dict[str, t.Any]) -> None:
        sent.append(message)

    asyncio.run(guard.RequestGuard(engine)({"type": "http", "method": method, "path": "/v1/x"}, receive, send))
    return engine, sent[0]["status"], sent[1]["body"]


def chat(*parts: dict[str, t.Any], **more: t.Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": list(parts)}], **more}).encode()


def image(url: t.Any) -> dict[str, t.Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    "place",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "/dev/zero",
        "/9j/4AAQSkZJRg==",
        "picture.png",
        "../picture.png",
        " data:image/png;base64,AAAA",
        "DATA:image/png;base64,AAAA",
        "http://169.254.169.254/latest/meta-data",
        "https://example.com/cat.png",
        "ftp://example.com/cat.png",
        "s3://bucket/cat.png",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["image_url", "video_url", "audio_url"])
def test_only_data_passes_where_no_domain_is_allowed(guard: t.Any, kind: str, place: str) -> None:
    engine, status, body = ask(guard, chat({"type": kind, kind: {"url": place}}))
    assert (status, engine.bodies) == (400, [])
    error = json.loads(body)["error"]
    assert error["code"] == "media_not_allowed"
    assert error["param"] == kind
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [
        chat({"type": "image_url", "image_url": "/dev/zero"}),
        chat({"image_url": "/dev/zero", "uuid": "1"}),
        chat({"type": "image", "image": "/dev/zero"}),
        chat({"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}),
        chat({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "/dev/zero"}}]}),
        json.dumps({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "/a.png"}]}]}).encode(),
        json.dumps({"input": [{"type": "computer_call_output", "output": {"image_url": "/a.png"}}]}).encode(),
        json.dumps({"input": [{"text": "a", "image": "/a.png"}]}).encode(),
        json.dumps({"input": [{"text": "a", "video": "/a.mp4"}]}).encode(),
        json.dumps({"images": [{"url": "/a.png"}]}).encode(),
        json.dumps({"text": "a", "image_data": [[PICTURE, "/dev/zero"]]}).encode(),
        json.dumps({"text": "a", "video_data": "/dev/zero"}).encode(),
        json.dumps({"text": "a", "audio_data": ["/dev/zero"]}).encode(),
        # Engines disagree about which of two counts.
        b'{"image_url": "/dev/zero", "image_url": "%s"}' % PICTURE.encode(),
        b'{"image_url": "%s", "image_url": "/dev/zero"}' % PICTURE.encode(),
        b'{"type": "text", "source": {"url": "/dev/zero"}, "type": "image"}',
        b'{"image\\u005furl": "\\u002fdev/zero"}',
        '{"image_url": "/dev/zero"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"image_url": "/dev/zero"}',
    ],
)
def test_a_path_is_refused_wherever_an_engine_would_take_it(guard: t.Any, body: bytes) -> None:
    engine, status, answer = ask(guard, body)
    assert (status, engine.bodies) == (400, [])
    assert json.loads(answer)["error"]["code"] == "media_not_allowed"


@pytest.mark.parametrize(
    "body",
    [
        chat(image(PICTURE), {"type": "text", "text": "file:///etc/passwd and /dev/zero"}),
        chat({"type": "image_url", "image_url": PICTURE}),
        chat({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}),
        chat({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}),
        chat({"type": "search_result", "source": "https://example.com/a", "title": "a"}),
        chat(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}),
        chat(
            tools=[
                {"function": {"parameters": {"properties": {"image": {"type": "string"}}, "default": {"image": "a"}}}}
            ]
        ),
        chat(response_format={"json_schema": {"schema": {"properties": {"image_url": {"type": "string"}}}}}),
        chat(metadata={"image_url": "https://example.com/a"}),
        json.dumps(
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {"image": "a"}}}]}]}
        ).encode(),
        chat({"type": "tool_use", "input": {"image": "a.png"}}),
        chat({"type": "image_url", "image_url": None, "uuid": "1"}),
        b"",
        b'--boundary\r\nContent-Disposition: form-data; name="file"\r\n\r\n\x00\x01\r\n--boundary--\r\n',
    ],
)
@pytest.mark.parametrize("pieces", [1, 3])
def test_everything_else_arrives_as_it_was_sent(guard: t.Any, body: bytes, pieces: int) -> None:
    engine, status, answer = ask(guard, body, pieces=pieces)
    assert (status, engine.bodies) == (200, [body])
    # The engine learns afterwards what happens to the client.
    assert answer == b"http.disconnect"


@pytest.mark.parametrize("body", [b"{", b"image_url=/dev/zero", b"[" * 200_000, b"\x80{}"])
def test_what_cannot_be_read_does_not_reach_the_engine(guard: t.Any, body: bytes) -> None:
    engine, status, answer = ask(guard, body)
    assert (status, engine.bodies) == (400, [])
    assert json.loads(answer)["error"]["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("https://pictures.example/cat.png", True),
        ("http://Pictures.Example:8080/cat.png", True),
        ("https://pictures.example./cat.png", True),
        ("https://pictures.example@169.254.169.254/", False),
        ("https://169.254.169.254\\@pictures.example/", False),
        ("https://pictures.example.evil.example/", False),
        ("https://pictures.example /", False),
        ("file://pictures.example/etc/passwd", False),
        ("https://[pictures.example/", False),
    ],
)
def test_allowed_domains_pass(guard: t.Any, monkeypatch: pytest.MonkeyPatch, url: str, passes: bool) -> None:
    monkeypatch.setenv("FLEET_MEDIA_DOMAINS", "pictures.example,other.example")
    _engine, status, answer = ask(guard, chat(image(url)))
    assert status == (200 if passes else 400)
    assert passes or b"other.example, pictures.example" in answer


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\xef\xbb\xbf <?xml version='1.0'?><MPD></MPD>",
    ],
)
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_playlist_is_no_media(guard: t.Any, kind: str, content: bytes) -> None:
    refused = [
        {"type": f"{kind}_url", f"{kind}_url": {"url": data_url(f"{kind}/mp4", content)}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(content).decode(), "format": "mp3"}},
    ]
    for part in refused:
        _engine, status, answer = ask(guard, chat(part))
        assert status == 400
        assert json.loads(answer)["error"]["code"] == "media_not_allowed"
    _engine, status, _answer = ask(
        guard, chat({"type": "video_url", "video_url": {"url": data_url("video/mp4", b"\0\0\0\x18ftypmp42" * 400)}})
    )
    assert status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"n": 129},
        {"n": "129"},
        {"n": 129.0},
        {"best_of": 16000},
        {"n": 10**400},
        {"prompt": ["a"] * 129},
        {"prompt": [[1, 2]] * 65, "n": 2},
        {"prompt": ["a"] * 2, "best_of": 65},
        '{"n": 129, "n": 1}',
        '{"n": Infinity}',
    ],
)
def test_one_request_does_not_fill_an_engine(guard: t.Any, body: t.Any) -> None:
    engine, status, answer = ask(guard, (body if isinstance(body, str) else json.dumps(body)).encode())
    assert (status, engine.bodies) == (400, [])
    error = json.loads(answer)["error"]
    assert (error["code"], "more than 128 answers" in error["message"]) == ("too_many_answers", True)


@pytest.mark.parametrize(
    "body",
    [
        {"n": 128},
        {"n": None, "prompt": "a"},
        {"n": "many"},
        {"prompt": list(range(2000)), "n": 128},
        {"prompt": ["a"] * 128},
        {"input": ["a"] * 2000},
        {"messages": [{"role": "user", "content": "a", "n": 500}]},
    ],
)
def test_what_is_not_too_much_passes(guard: t.Any, body: dict[str, t.Any]) -> None:
    _engine, status, _answer = ask(guard, json.dumps(body).encode())
    assert status == 200


def test_the_most_answers_are_the_operators(guard: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_MAX_ANSWERS", "4")
    assert [ask(guard, json.dumps({"n": number}).encode())[1] for number in (4, 5)] == [200, 400]


def test_what_has_no_body_is_not_looked_at(guard: t.Any) -> None:
    engine, status, _answer = ask(guard, b'{"image_url": "/dev/zero"}', method="GET")
    assert (status, len(engine.bodies)) == (200, 1)


def read_body(guard: t.Any, pieces: list[bytes], seconds_each: float, stalls: bool = False) -> bytes:
    """What the guard reads of a body whose pieces arrive at intervals; at the end it may stall for ever."""
    now = 0.0
    left = list(pieces)

    async def receive() -> dict[str, t.Any]:
        nonlocal now
        if not left:
            await asyncio.Event().wait()
        now += seconds_each
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left) or stalls}

    async def read() -> bytes:
        return bytes(await guard._read_body(receive, clock=lambda: now, seconds=30 if not stalls else 0.05))

    return asyncio.run(read())


def test_a_body_that_comes_slowly_but_steadily_is_read(guard: t.Any) -> None:
    pieces = [b"x" * 1_000_000] * 20
    assert len(read_body(guard, pieces, seconds_each=20)) == 20_000_000


@pytest.mark.parametrize(
    ("pieces", "seconds_each", "stalls"), [([b"x"] * 60, 1.0, False), ([b"{"], 0.0, True)], ids=["drips", "stalls"]
)
def test_a_body_that_does_not_come_is_given_up(
    guard: t.Any, pieces: list[bytes], seconds_each: float, stalls: bool
) -> None:
    with pytest.raises(guard.RefusedError) as refused:
        read_body(guard, pieces, seconds_each, stalls)
    assert (refused.value.status, refused.value.code) == (408, "request_timeout")


def start_sglang(place: Path, starlette: str | None) -> subprocess.CompletedProcess[str]:
    """Run the real program as a release has it, with an engine of a few lines that it finds under SGLang's name."""
    for name in ("engine/files/request_guard.py", "engine/files/usage_report.py", "sglang/files/sglang_start.py"):
        (place / Path(name).name).write_text((ROLES / name).read_text())
    packages = place / "packages"
    (packages / "sglang").mkdir(parents=True)
    (packages / "sglang" / "launch_server.py").write_text(ENGINE)
    if starlette is not None:
        (packages / "starlette").mkdir()
        (packages / "starlette" / "applications.py").write_text(starlette)
    return subprocess.run(
        [sys.executable, "-S", str(place / "sglang_start.py")],
        env={"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_sglang_starts_behind_the_guard(tmp_path: Path) -> None:
    done = start_sglang(tmp_path, STARLETTE)
    assert done.stdout.startswith("[400"), done.stderr


def test_sglang_does_not_start_without_the_guard(tmp_path: Path) -> None:
    done = start_sglang(tmp_path, None)
    assert done.returncode == 1
    assert "the request guard does not fit this version of SGLang" in done.stderr
