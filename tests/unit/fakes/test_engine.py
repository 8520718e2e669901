"""The stand-in speaks the protocol: OpenAI's own client works with it, and the imitations are right."""

from __future__ import annotations

import base64
import http.client
import io
import json
import signal
import socket
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
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import Load, load
from PIL import Image, ImageDraw

from tests.fakes import engine as fake
from tests.fakes.engine import MODEL, FakeEngine, colour_of
from tests.project import open_directly

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
        with open_directly(url, timeout=5) as reply:
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


def test_what_does_not_run_yet_waits_and_what_is_too_much_is_refused() -> None:
    with FakeEngine(first_token=0.5, max_running=1, max_in_flight=2) as engine:
        chat = client(engine).chat.completions
        answers: list[str | None] = []

        def say_hi() -> None:
            answers.append(chat.create(model=MODEL, messages=ask("hi")).choices[0].finish_reason)

        asking = [threading.Thread(target=say_hi, daemon=True) for _ in range(2)]
        for thread in asking:
            thread.start()
        end = time.monotonic() + 5
        while engine.waiting == 0 and time.monotonic() < end:
            time.sleep(0.01)
        metrics = get(f"{engine.url}/metrics")[1].decode()
        assert load(metrics) == Load("vllm", 1, 1, 1.0)
        with pytest.raises(openai.InternalServerError, match="currently busy"):
            chat.create(model=MODEL, messages=ask("hi"))
        for thread in asking:
            thread.join()
        assert answers == ["stop", "stop"]
        metrics = get(f"{engine.url}/metrics")[1].decode()
        assert load(metrics) == Load("vllm", 0, 0, 0.0)
        assert 'vllm:admission_rejections_total{model_name="Qwen/Qwen3-VL-8B-Instruct"' in metrics
        assert engine.rejected == 1


def test_more_than_the_context_is_refused() -> None:
    with FakeEngine(max_model_len=100) as engine:
        chat = client(engine).chat.completions
        assert next(iter(client(engine).models.list())).model_dump()["max_model_len"] == 100
        with pytest.raises(openai.BadRequestError, match="cannot be greater than max_model_len=100"):
            chat.create(model=MODEL, messages=ask("hi"), max_tokens=101)


def test_it_takes_several_keys_as_vllm_does() -> None:
    other = "sk-other-key-0123456789"
    with FakeEngine(key=KEY, other_keys=[other]) as fake:
        assert [model.id for key in (KEY, other) for model in client(fake, key).models.list()] == [MODEL, MODEL]
        with pytest.raises(openai.AuthenticationError):
            client(fake, "sk-wrong").models.list()


def test_nothing_listens_before_it_is_started() -> None:
    engine = FakeEngine()
    with pytest.raises(urllib.error.URLError):
        get(f"{engine.url}/health")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            FakeEngine(port=other.getsockname()[1])
    with engine:
        assert get(f"{engine.url}/health")[0] == 200


class Stream:
    """A streamed answer, read by a thread of its own once its first piece is there."""

    def __init__(self, engine: FakeEngine, tokens: int) -> None:
        chat = client(engine).chat.completions
        self._chunks = chat.create(model=MODEL, messages=ask("Count without end."), max_tokens=tokens, stream=True)
        self.pieces = 0
        self.finish: str | None = None
        self.error: Exception | None = None
        next(self._chunks)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for chunk in self._chunks:
                self.pieces += 1
                self.finish = chunk.choices[0].finish_reason
        except openai.APIError as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()


def test_while_it_drains_what_runs_finishes_and_nothing_new_begins() -> None:
    engine = FakeEngine(token=0.02, shutdown_timeout=10)
    engine.start()
    stream = Stream(engine, 40)
    draining = threading.Thread(target=engine.drain, daemon=True)
    draining.start()
    while not engine.draining:
        time.sleep(0.01)
    assert get(f"{engine.url}/health")[0] == 200
    with pytest.raises(openai.InternalServerError, match="cannot schedule new futures after shutdown"):
        client(engine).chat.completions.create(model=MODEL, messages=ask("hi"))
    stream.join()
    assert (stream.finish, stream.pieces) == ("length", 41)
    draining.join(timeout=5)
    assert not draining.is_alive()
    with pytest.raises(urllib.error.URLError):
        get(f"{engine.url}/health")


def test_what_still_runs_when_the_time_is_over_is_broken_off() -> None:
    engine = FakeEngine(token=0.1, shutdown_timeout=0.3)
    engine.start()
    stream = Stream(engine, 1000)
    began = time.monotonic()
    engine.drain()
    assert 0.3 <= time.monotonic() - began < 3
    stream.join()
    assert stream.finish == "abort"
    assert stream.pieces < 100


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_is_no_longer_in_flight(stream: bool) -> None:
    with FakeEngine(token=0.05, max_running=1) as engine:
        body = {"model": MODEL, "messages": ask("Count without end."), "max_tokens": 1000, "stream": stream}
        connections = [http.client.HTTPConnection("127.0.0.1", engine.port, timeout=5) for _ in range(2)]
        for connection in connections:
            connection.request("POST", "/v1/chat/completions", json.dumps(body))
        until(lambda: (engine.running, engine.waiting) == (1, 1))
        for connection in connections:
            connection.close()
        until(lambda: (engine.running, engine.waiting) == (0, 0))
        assert engine.rejected == 0


def until(true: t.Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_core_that_dies_is_seen_in_flight_and_in_its_health() -> None:
    with FakeEngine(token=0.05) as engine:
        stream = Stream(engine, 1000)
        engine.set_faults({"dies_after": 0.2})
        assert engine.ended.wait(5)
        assert get(f"{engine.url}/health")[0] == 503
        stream.join()
        assert "EngineCore encountered an issue" in str(stream.error)
        with pytest.raises(openai.InternalServerError, match="EngineCore encountered an issue"):
            client(engine).chat.completions.create(model=MODEL, messages=ask("hi"))


def test_a_death_that_is_taken_back_does_not_come() -> None:
    with FakeEngine() as engine:
        engine.set_faults({"dies_after": 0.2})
        engine.set_faults({})
        assert not engine.ended.wait(0.4)
        assert get(f"{engine.url}/health")[0] == 200


def test_an_idle_connection_is_closed_in_time() -> None:
    with FakeEngine(keep_alive=0.2) as engine:
        connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=5)
        connection.request("GET", "/health")
        connection.getresponse().read()
        assert connection.sock.recv(1) == b""
        connection.close()


def test_requests_that_hang_are_in_flight_until_it_stops() -> None:
    engine = FakeEngine(shutdown_timeout=0.2)
    engine.faults.set("hang")
    engine.start()
    failed: list[Exception] = []

    def say_hi() -> None:
        try:
            client(engine).chat.completions.create(model=MODEL, messages=ask("hi"))
        except openai.APIError as error:
            failed.append(error)

    asking = threading.Thread(target=say_hi, daemon=True)
    asking.start()
    while engine.running == 0:
        time.sleep(0.01)
    assert load(get(f"{engine.url}/metrics")[1].decode()) == Load("vllm", 1, 0, 0.125)
    engine.drain()
    asking.join(timeout=5)
    assert len(failed) == 1


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
        assert json.load(open_directly(request, timeout=5)) == {}
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


def test_a_deaf_program_passes_over_sigterm() -> None:
    with FakeEngine() as unused:
        port = unused.port
    process = subprocess.Popen([sys.executable, "-I", fake.__file__, "--port", str(port), "--fault", "deaf"])
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                get(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        assert get(f"http://127.0.0.1:{port}/health")[0] == 200
        open_directly(urllib.request.Request(f"http://127.0.0.1:{port}/fake/faults", b"{}", method="POST"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0
    finally:
        process.kill()
        process.wait()
