"""The stand-in speaks the protocol: OpenAI's own client gets along with it, and so do the things that it imitates."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
import threading
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest
from ansible_collections.inference.fleet.plugins.module_utils._metrics import Load, load
from PIL import Image, ImageDraw

from tests.fakes import engine as fake
from tests.fakes.engine import MODEL, FakeEngine, colour_of

KEY = "sk-0123456789abcdef"


def client(engine: FakeEngine, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{engine.url}/v1", api_key=key, max_retries=0, timeout=10)


def ask(content: t.Any) -> list[t.Any]:
    return [{"role": "user", "content": content}]


def png(colour: tuple[int, int, int], ground: tuple[int, int, int], mode: str = "RGB", **options: t.Any) -> bytes:
    image = Image.new("RGB", (64, 48), ground)
    ImageDraw.Draw(image).rectangle((10, 8, 30, 28), fill=colour)
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, "PNG", **options)
    return buffer.getvalue()


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("ground", [(255, 255, 255), (0, 0, 0), (128, 128, 128)])
@pytest.mark.parametrize("name", ["red", "green", "blue"])
def test_a_square_on_any_ground_has_its_colour(name: str, ground: tuple[int, int, int], mode: str) -> None:
    assert colour_of(png(fake.COLOURS[name], ground, mode)) == name


def test_every_filter_of_png_is_understood() -> None:
    noisy = Image.effect_noise((40, 40), 60).convert("RGB")
    noisy.paste((220, 20, 20), (5, 5, 20, 20))
    buffer = io.BytesIO()
    noisy.save(buffer, "PNG")
    assert colour_of(buffer.getvalue()) == "red"


def test_a_grey_picture_has_no_colour() -> None:
    assert colour_of(png((90, 90, 90), (200, 200, 200))) == "grey"


WHOLE = png((220, 20, 20), (0, 0, 0))


@pytest.mark.parametrize("data", [b"", b"GIF89a", WHOLE[:20], WHOLE[:60], b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_png_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="PNG"):
        colour_of(data)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_openais_client_chats_streams_and_shows_a_picture(kind: str) -> None:
    with FakeEngine(engine=kind, key=KEY) as engine:
        chat = client(engine).chat.completions
        whole = chat.create(model=MODEL, messages=ask("What is the capital of France? Answer with one word."))
        assert whole.choices[0].message.content == "Paris"
        assert whole.usage is not None
        stream = chat.create(
            model=MODEL,
            messages=ask("Count from one to twenty."),
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text.startswith("one, two, three")
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 20
        url = "data:image/png;base64," + base64.b64encode(png((30, 60, 220), (255, 255, 255))).decode()
        picture = [
            {"type": "text", "text": "What colour is the square?"},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        seen = chat.create(model=MODEL, messages=ask(picture))
        assert seen.choices[0].message.content == "Blue"
        assert [model.id for model in client(engine).models.list()] == [MODEL]


def test_errors_are_those_of_the_engines() -> None:
    with FakeEngine(key=KEY) as engine:
        with pytest.raises(openai.AuthenticationError):
            client(engine, "sk-another").chat.completions.create(model=MODEL, messages=ask("hi"))
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client(engine).chat.completions.create(model="x", messages=ask("hi"))
        broken = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
        with pytest.raises(openai.BadRequestError, match="Failed to load image"):
            client(engine).chat.completions.create(model=MODEL, messages=ask(broken))
        assert get(f"{engine.url}/health")[0] == 200
        assert get(f"{engine.url}/invocations")[0] == 404


def test_max_tokens_cuts_an_answer() -> None:
    with FakeEngine() as engine:
        chat = client(engine).chat.completions
        short = chat.create(model=MODEL, messages=ask("Count from one to twenty."), max_tokens=3)
        assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("one, two, three,", "length")


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_requests_in_flight_are_in_its_metrics(kind: str) -> None:
    with FakeEngine(engine=kind, first_token=0.5) as engine:
        asking = threading.Thread(
            target=lambda: client(engine).chat.completions.create(model=MODEL, messages=ask("hi")), daemon=True
        )
        asking.start()
        end = time.monotonic() + 5
        while engine.running == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert load(get(f"{engine.url}/metrics")[1].decode()) == Load(kind, 1, 0, 0.125)
        asking.join()
        assert load(get(f"{engine.url}/metrics")[1].decode()) == Load(kind, 0, 0, 0.0)


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="known are status"):
        FakeEngine().faults.set("nonsense")


def test_as_a_program_it_takes_faults_while_it_runs_and_drains_on_sigterm(tmp_path: Path) -> None:
    key_file = tmp_path / "engine_key.env"
    key_file.write_text(f"ENGINE_API_KEY={KEY}\n")
    with FakeEngine() as unused:
        port = unused.port
    command = [sys.executable, "-I", fake.__file__, "--port", str(port), "--key-file", str(key_file), "--token", "0.02"]
    process = subprocess.Popen([*command, "--engine", "sglang", "--fault", 'finish_reason="abort"'])
    try:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                if get(f"{url}/health")[0] == 200:
                    break
            except OSError:
                time.sleep(0.02)
        chat = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0).chat.completions
        assert str(chat.create(model=MODEL, messages=ask("hi")).choices[0].finish_reason) == "abort"
        request = urllib.request.Request(f"{url}/fake/faults", b"{}", method="POST")
        assert json.load(urllib.request.urlopen(request, timeout=5)) == {}
        assert chat.create(model=MODEL, messages=ask("hi")).choices[0].finish_reason == "stop"
        stream = chat.create(model=MODEL, messages=ask("Count without end."), max_tokens=40, stream=True)
        next(stream)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        assert get(f"{url}/health")[0] == 503
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        assert process.wait(timeout=5) == 0
    finally:
        process.kill()
        process.wait()
