"""A stand-in for vLLM and SGLang: their HTTP on the loopback interface, the lab model's answers, and faults on request.

In a test, in this process::

    with FakeEngine(key="sk-test-0123456789") as engine:
        engine.faults.set("garbage")
        ... engine.url ...

As a program, for hosts without a real engine::

    python3 engine.py --port 8100 --model Qwen/Qwen3-VL-8B-Instruct --key-file /etc/inference/engine_key.env

Faults are given with --fault, or while it runs: POST /fake/faults {"garbage": true}; what is not named ends.
tests/fakes/standin makes it an engine that the roles install and start. Standard library only, Python 3.9 and newer.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hmac
import http.server
import json
import os
import re
import select
import signal
import socket
import struct
import sys
import threading
import time
import typing as t
import uuid
import zlib

MODEL = "Qwen/Qwen3-VL-8B-Instruct"
GARBAGE = "!" * 40
COUNTED = (
    "one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen, sixteen, "
    "seventeen, eighteen, nineteen, twenty."
)
ANSWERS = (
    (r"capital of france", "Paris"),
    (r"capital of italy", "Rome"),
    (r"capital of japan", "Tokyo"),
    (r"capital of peru", "Lima"),
    (r"two plus two", "Four"),
    (r"opposite of hot", "Cold"),
    (r"count from one to twenty", COUNTED),
    (r"count without end", "0 1 2 3 4 5 6 7 8 9 " * 2000),
    (r"^(hello|hi|good morning|hey)\b", "Hello! I am a tiny model and know few answers."),
)
COLOURS = {"red": (220, 20, 20), "green": (20, 170, 40), "blue": (30, 60, 220)}
PNG_CHANNELS = {0: 1, 2: 3, 6: 4}
OTHER_ANSWER = "I do not know: I am a tiny model."

#: What requests may use that an engine compiles or loads on demand.
USES = ("image", "schema", "logprobs", "prompt_logprobs", "sampling", "long_prompt", "tools", "forced_tool")
LONG_PROMPT = 500

#: Each fault, and what its value means. A count says how many requests it hits; true is all of them.
FAULTS = {
    "status": "answer completions with this status",
    "status_times": "how often 'status' is answered before all is well",
    "retry_after": "the Retry-After header of 'status'",
    "hang": "never answer, until it is stopped",
    "freeze": "the core stops: nothing is answered, and the metrics stand as they were",
    "mute": "the HTTP server takes requests and answers none, /health and /metrics neither",
    "stall": "stream one piece, then nothing more",
    "cut": "reset the connection in the middle of a stream",
    "truncate": "end a stream without finish reason, usage and [DONE]",
    "stream_error": "an error object in the middle of a stream",
    "slow_first": "seconds before the first token",
    "slow_token": "seconds between tokens",
    "slow_times": "how many streams the two above hit",
    "garbage": "answer !!!!!!!!",
    "wrong_answer": "answer London",
    "empty": "answer nothing",
    "blind": "call every picture red",
    "dies_on": "the core dies on requests that use this, or one of these: " + ", ".join(USES),
    "cannot": "pass over this, or these, in requests",
    "no_tools": "refuse tools, as vLLM does without a parser for them",
    "opens_files": "open files of the host for pictures, as SGLang does without the request guard",
    "finish_reason": "this finish reason",
    "no_ignore_eos": "end an answer where it ends, although ignore_eos was asked",
    "no_usage": "leave usage out",
    "wrong_model": "serve, and list, this model instead",
    "no_auth": "accept any key, and none",
    "reject": "refuse every key",
    "echo_key": "repeat the request's Authorization header in a 500",
    "not_json": "answer with a page of HTML",
    "not_streaming": "answer a streamed request whole",
    "unhealthy": "answer /health with 503",
    "dies_after": "seconds until the engine's core dies, and the process with it",
    "deaf": "pass over SIGTERM",
    "draft_share": "have a draft model, of whose tokens this share is taken",
}

#: How many prompts a cache holds.
CACHED_PROMPTS = 100

#: Seconds between two looks whether a client still waits.
LOOK = 0.2

#: vLLM's answers while it stops, when its queue is full and when its core is dead.
STOPPING = "cannot schedule new futures after shutdown"
BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class Faults:
    """What goes wrong, changeable while the server runs."""

    def __init__(self) -> None:
        self._values: dict[str, t.Any] = {}
        self._lock = threading.Lock()

    def set(self, name: str, value: t.Any = True) -> None:
        if name not in FAULTS:
            raise ValueError(f"unknown fault {name!r}; known are {', '.join(FAULTS)}")
        with self._lock:
            self._values[name] = value

    def clear(self) -> None:
        with self._lock:
            self._values.clear()

    def get(self, name: str, default: t.Any = None) -> t.Any:
        with self._lock:
            return self._values.get(name, default)

    def use(self, name: str) -> bool:
        """Whether a fault with a count hits this time; without a count it always does."""
        with self._lock:
            left = self._values.get(name)
            if left is None:
                return True
            self._values[name] = left - 1
            return bool(left > 0)


class Cache(t.Protocol):
    """What keeps the beginnings of prompts, such as tests/fakes/prefix_cache.py."""

    def find(self, tokens: t.Sequence[str]) -> int: ...

    def keep(self, tokens: t.Sequence[str]) -> None: ...


class FakeEngine:
    """The server. ``port`` 0 takes a free one.

    Args:
        engine: ``vllm``, ``sglang``, or ``toy``, whose load and health have other names.
        model: the name that it answers to.
        key: the key that it requires; None for none.
        other_keys: further ones that it takes, as vLLM does.
        host: where it listens.
        port: where it listens, from ``start`` on; it is taken before.
        first_token: seconds before the first token.
        token: seconds between tokens.
        shutdown_timeout: seconds that requests in flight get in ``drain``.
        max_running: requests that run at once; the others wait. None sets no limit.
        max_in_flight: requests that run or wait; vLLM answers the others with 503. None sets no limit.
        max_model_len: most tokens of an answer; more are refused. None refuses none.
        keep_alive: seconds that an idle connection stays open; None closes none.
        with_cached: whether usage has the tokens of the prompt that were in the cache.
        stream_usage: what a stream says of usage that its client did not ask for: nothing (``asked``), the whole at its
            end (``end``, SGLang's --stream-response-default-include-usage), or in each piece, too (``each``, vLLM's
            --enable-force-include-usage).
        usage_report: the module of role engine, if it stands in front as in an engine's process.
        version: what /version says.
        with_metrics: whether there is /metrics.
        remember: whether to keep ``requests``; a program that runs for long does not.
        cache: the cache of prompts whose hits its usage has; None for none.
        prefill: seconds before the first token for each of the prompt's tokens that is not in ``cache``.

    Attributes:
        requests: (method, path, authorization, body) of each request, in order.
        running, waiting: the requests in flight.
        starting: whether it listens and is not yet healthy, as SGLang while it asks itself a first question.
        draining: whether it has begun to stop.
        dead: whether its core has died.
        ended: set when the process should end by itself.
    """

    def __init__(
        self,
        *,
        engine: str = "vllm",
        model: str = MODEL,
        key: str | None = None,
        other_keys: t.Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        first_token: float = 0.0,
        token: float = 0.0,
        shutdown_timeout: float = 30.0,
        max_running: int | None = None,
        max_in_flight: int | None = None,
        max_model_len: int | None = None,
        keep_alive: float | None = None,
        with_cached: bool = False,
        stream_usage: str = "asked",
        usage_report: t.Any = None,
        version: str = "0.0.0-fake",
        with_metrics: bool = True,
        remember: bool = True,
        cache: Cache | None = None,
        prefill: float = 0.0,
    ) -> None:
        self.engine = engine
        self.model = model
        self.key = key
        self.keys = [known for known in (key, *other_keys) if known]
        self.host = host
        self.first_token = first_token
        self.token = token
        self.shutdown_timeout = shutdown_timeout
        self.max_running = max_running
        self.max_in_flight = max_in_flight
        self.max_model_len = max_model_len
        self.keep_alive = keep_alive
        self.with_cached = with_cached
        self.stream_usage = stream_usage
        self.usage_report = usage_report
        self.version = version
        self.with_metrics = with_metrics
        self.remember = remember
        self.cache = cache
        self.prefill = prefill
        self.faults = Faults()
        self.requests: list[tuple[str, str, str | None, t.Any]] = []
        self.running = 0
        self.waiting = 0
        self.rejected = 0
        self.prompted = 0
        self.generated = 0
        self.cached_prompts: list[str] = []
        self.finished = 0
        self.starting = False
        self.draining = False
        self.dead = False
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.ended = threading.Event()
        self._freed = threading.Condition(self.lock)
        self._reported = (0, 0)
        self._death: threading.Timer | None = None
        # As the engines do: the port is taken at once, and answers when all is loaded.
        self._server = _Server((host, port), _Handler, bind_and_activate=False)
        self._server.fake = self
        try:
            self._server.server_bind()
        except OSError:
            self._server.server_close()
            raise
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> FakeEngine:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self, poll: float = 0.02) -> None:
        """Listen.

        Args:
            poll: seconds that ``stop`` may take to be noticed; an idle server wakes up as often.
        """
        self._server.server_activate()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(poll,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._close()
        if self._death:
            self._death.cancel()
        if self._thread:
            self._server.shutdown()
        self._server.server_close()

    def drain(self) -> None:
        """What the engine does on SIGTERM: let what is in flight finish, as long as it may, then leave.

        vLLM begins nothing new meanwhile, and breaks off what is left at the end. SGLang goes on accepting.
        """
        self.draining = True
        self._wait_until_idle(self.shutdown_timeout)
        self._close()
        self._wait_until_idle(1)
        self.stop()

    def _wait_until_idle(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.running + self.waiting:
            time.sleep(0.05)

    def _close(self) -> None:
        self.closing.set()
        with self._freed:
            self._freed.notify_all()

    def set_faults(self, values: dict[str, t.Any]) -> None:
        """Have these faults, and no others.

        Raises:
            ValueError: one of them is not known.
        """
        self.faults.clear()
        if self._death:
            self._death.cancel()
        for name, value in values.items():
            self.faults.set(name, value)
        if "dies_after" in values:
            self._death = threading.Timer(float(values["dies_after"]), self.die)
            self._death.daemon = True
            self._death.start()

    def die(self) -> None:
        """What is seen of an engine whose core has died: errors, and soon the end of the process."""
        self.dead = True
        self._close()
        self.ended.set()

    @contextlib.contextmanager
    def slot(self, gone: t.Callable[[], bool]) -> t.Iterator[bool]:
        """A place among the requests that run, once there is one.

        Args:
            gone: whether the client has gone away.

        Yields:
            False where there is none: the queue is full, or the client has gone.
        """
        runs = self._queue(gone)
        try:
            yield runs
        finally:
            if runs:
                with self._freed:
                    self.running -= 1
                    self._freed.notify()

    def _queue(self, gone: t.Callable[[], bool]) -> bool:
        with self._freed:
            if self.max_in_flight is not None and self.running + self.waiting >= self.max_in_flight:
                self.rejected += 1
                return False
            self.waiting += 1
            try:
                while self.max_running is not None and self.running >= self.max_running and not self.closing.is_set():
                    self._freed.wait(LOOK)
                    if gone():
                        return False
                self.running += 1
                return True
            finally:
                self.waiting -= 1

    def cached_of(self, prompt: str, tokens: int) -> int:
        """How many tokens of a prompt are in the cache: but for the last one all, if it was asked before."""
        with self.lock:
            known = prompt in self.cached_prompts
            self.cached_prompts = [*self.cached_prompts[-CACHED_PROMPTS:], prompt]
        return tokens - 1 if known else 0

    def work(self, prompted: int = 0, generated: int = 0, finished: int = 0) -> bool:
        """Count what the core has done, once it is not frozen; False where the process ends before."""
        while self.faults.get("freeze") and not self.closing.wait(LOOK):
            pass
        with self.lock:
            self.prompted += prompted
            self.generated += generated
            self.finished += finished
        return not self.closing.is_set()

    def _counted(self) -> tuple[float, ...]:
        """The requests running and waiting, the tokens and the requests so far. The core reports the first two with its
        steps, so that those of a core that stands still are old."""
        if not self.faults.get("freeze"):
            self._reported = (self.running, self.waiting)
        return tuple(map(float, (*self._reported, self.prompted, self.generated, self.finished)))

    def metrics(self) -> str:
        running, waiting, prompted, generated, finished = self._counted()
        usage = min(1.0, running / (self.max_running or 8))
        if self.engine == "vllm":
            labels = f'{{engine="0",model_name="{self.model}"}}'
            names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        elif self.engine == "toy":
            labels = f'{{model="{self.model}"}}'
            names = ("toy_requests_active", "toy_requests_queued", "toy_cache_ratio")
        else:
            labels = f'{{engine_type="unified",model_name="{self.model}",moe_ep_rank="0",pp_rank="0",tp_rank="0"}}'
            names = ("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage")
        values = (running, waiting, usage)
        lines = [f"# HELP {n} x\n# TYPE {n} gauge\n{n}{labels} {v}\n" for n, v in zip(names, values)]
        if self.engine == "vllm":
            name = "vllm:admission_rejections_total"
            labels = f'{{model_name="{self.model}",reason="max_num_queued_reqs"}}'
            lines.append(f"# HELP {name} x\n# TYPE {name} counter\n{name}{labels} {float(self.rejected)}\n")
        counted = {
            "vllm": {
                "vllm:prompt_tokens_total": prompted,
                "vllm:generation_tokens_total": generated,
                "vllm:request_success_total": finished,
            },
            "sglang": {
                # These two only when a request ends; what moves with each step is realtime_tokens_total.
                "sglang:prompt_tokens_total": finished,
                "sglang:generation_tokens_total": finished,
                "sglang:realtime_tokens_total": prompted + generated,
                "sglang:num_requests_total": finished,
            },
            "toy": {"toy_tokens_total": prompted + generated, "toy_requests_total": finished},
        }.get(self.engine, {})
        for name, value in counted.items():
            labels = f'{{model_name="{self.model}"}}'
            lines.append(f"# HELP {name} x\n# TYPE {name} counter\n{name}{labels} {value}\n")
        return "".join(lines) + self._draft_metrics()

    def _draft_metrics(self) -> str:
        share = self.faults.get("draft_share")
        if share is None:
            return ""
        if self.engine == "sglang":
            return f'sglang:spec_accept_rate{{model_name="{self.model}",tp_rank="0"}} {float(share)}\n'
        labels = f'{{engine="0",model_name="{self.model}"}}'
        # Looked at a moment later there are more of both.
        proposed = time.monotonic() * 1000
        taken = proposed * float(share)
        names = ("vllm:spec_decode_num_draft_tokens_total", "vllm:spec_decode_num_accepted_tokens_total")
        return "".join(f"{name}{labels} {value}\n" for name, value in zip(names, (proposed, taken)))


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    fake: FakeEngine

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """A client that goes away, or a fault that cuts it off, is no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    #: What a stream goes through on its way out, and whether each of its pieces has usage.
    _rewritten: t.Any = None
    _each = False
    #: Seconds for what of the prompt is not in the cache.
    _prefill = 0.0

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.fake.keep_alive)

    def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 - the base class calls it so
        return

    @property
    def fake(self) -> FakeEngine:
        return self.server.fake

    @property
    def served(self) -> str:
        return str(self.fake.faults.get("wrong_model", self.fake.model))

    def do_GET(self) -> None:
        self._seen(None)
        self._wait_while_mute()
        path = self.path.partition("?")[0]
        if path == ("/alive" if self.fake.engine == "toy" else "/health"):
            leaving = self.fake.draining and self.fake.engine == "sglang"
            down = self.fake.starting or self.fake.dead or leaving or self.fake.faults.get("unhealthy")
            self._send(503 if down else 200, b"", "text/plain")
        elif path == "/metrics" and self.fake.with_metrics:
            self._send(200, self.fake.metrics().encode(), "text/plain; version=0.0.4")
        elif path == "/version" and self.fake.engine == "vllm":
            self._json(200, {"version": self.fake.version})
        elif path == "/v1/models":
            if self._authorised():
                length = self.fake.max_model_len or 2048
                model = {"id": self.served, "object": "model", "owned_by": self.fake.engine, "max_model_len": length}
                self._json(200, {"object": "list", "data": [model]})
        else:
            self._not_found(path)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        raw = self._behind_the_report(raw)
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        self._seen(body)
        if self.path == "/fake/faults":
            self._set_faults(body)
            return
        self._wait_while_mute()
        if self.path not in ("/v1/chat/completions", "/v1/completions"):
            self._not_found(self.path)
        elif self._authorised() and not self._stopping() and not self._broken():
            with self.fake.slot(self._gone) as runs:
                if not runs:
                    self._error(503, BUSY, "Service Unavailable")
                elif self.fake.faults.get("hang"):
                    self.fake.closing.wait()
                    self.close_connection = True
                elif self.fake.dead:
                    self._error(500, DEAD, "InternalServerError")
                else:
                    self._complete(body)

    def _behind_the_report(self, raw: bytes) -> bytes:
        """A body as the engine gets it."""
        report = self.fake.usage_report
        self._rewritten = None
        if report is None or self.path not in report.PATHS or report.HEADER.decode() not in self.headers:
            return raw
        asked = report.asked_in(raw)
        if asked is None:
            return raw
        self._rewritten = report.StreamUsage(asked)
        always = self.headers[report.HEADER.decode()] == report.ALWAYS.decode()
        return bytes(report.with_usage(raw, asked, always))

    def _wait_while_mute(self) -> None:
        while self.fake.faults.get("mute") and not self.fake.closing.wait(LOOK):
            pass

    def _not_found(self, path: str) -> None:
        # Both engines look at the key before they look for the route.
        if not path.startswith("/v1/") or self._authorised():
            self._error(404, "Not Found", "NotFoundError")

    def _gone(self) -> bool:
        """Whether the client has closed its end."""
        look = select.poll()
        look.register(self.connection, select.POLLIN)
        if not look.poll(0):
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _seen(self, body: t.Any) -> None:
        if self.fake.remember:
            with self.fake.lock:
                self.fake.requests.append((self.command, self.path, self.headers.get("Authorization"), body))

    def _set_faults(self, body: t.Any) -> None:
        try:
            self.fake.set_faults(body or {})
        except ValueError as error:
            self._error(400, str(error), "BadRequestError")
            return
        self._json(200, {})

    def _authorised(self) -> bool:
        faults = self.fake.faults
        given = self.headers.get("Authorization") or ""
        scheme, _, key = given.partition(" ")
        known = [hmac.compare_digest(key.encode(), one.encode()) for one in self.fake.keys]
        right = scheme.lower() == "bearer" and any(known)
        if (right or self.fake.key is None or faults.get("no_auth")) and not faults.get("reject"):
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _stopping(self) -> bool:
        """Whether the engine begins nothing new."""
        if self.fake.dead:
            self._error(500, DEAD, "InternalServerError")
            return True
        if self.fake.draining and self.fake.engine == "vllm":
            self._error(500, STOPPING, "InternalServerError")
            return True
        return False

    def _broken(self) -> bool:
        """Whether a fault took the place of an answer."""
        faults = self.fake.faults
        if faults.get("echo_key"):
            self._error(500, f"no session for {self.headers.get('Authorization')}", "InternalServerError")
            return True
        if faults.get("not_json"):
            self._send(200, b"<html><h1>It works!</h1></html>", "text/html")
            return True
        status = faults.get("status")
        if status is not None and faults.use("status_times"):
            retry = faults.get("retry_after")
            extra = {} if retry is None else {"Retry-After": str(retry)}
            self._error(int(status), "the fake is set to fail", "InternalServerError", extra)
            return True
        return False

    def _complete(self, body: t.Any) -> None:
        faults = self.fake.faults
        try:
            model = body["model"]
            content = body["prompt"] if self.path == "/v1/completions" else body["messages"][-1]["content"]
            prompt, image = _prompt_of(content, bool(faults.get("opens_files")))
        except (TypeError, KeyError, IndexError):
            self._error(400, "model and messages are required", "BadRequestError")
            return
        except PermissionError as error:
            self._error(400, str(error), "invalid_request_error", param="image_url", code="media_not_allowed")
            return
        except OSError as error:
            self._error(400, f"An exception occurred while loading image data: {error}", "BadRequestError")
            return
        uses = _uses(body, prompt, image)
        if uses & _named(faults.get("dies_on")):
            self.fake.die()
            self._error(500, DEAD, "InternalServerError")
            return
        if uses & {"tools", "forced_tool"} and faults.get("no_tools"):
            why = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            self._error(400, why, "BadRequestError")
            return
        uses -= _named(faults.get("cannot"))
        if model != self.served and self.fake.engine == "vllm":
            self._error(404, f"The model `{model}` does not exist.", "NotFoundError", param="model")
            return
        try:
            text = self._answer(prompt, image, _schema_of(body) if "schema" in uses else None)
        except ValueError as error:
            self._error(400, f"Failed to load image: {error}", "BadRequestError")
            return
        endless = bool(body.get("ignore_eos")) and not self.fake.faults.get("no_ignore_eos")
        limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 256)
        if self.fake.max_model_len is not None and limit > self.fake.max_model_len:
            why = f"max_tokens={limit} cannot be greater than max_model_len={self.fake.max_model_len}."
            self._error(400, why, "BadRequestError", param="max_tokens")
            return
        if self.fake.max_model_len is not None and len(prompt.split()) + limit > self.fake.max_model_len:
            why = f"This model's maximum context length is {self.fake.max_model_len} tokens."
            self._error(400, why, "BadRequestError", param="input_tokens")
            return
        pieces, finish = _cut_to_length(re.findall(r"\s*\S+|\s+$", text), limit, endless)
        finish = str(self.fake.faults.get("finish_reason", finish))
        usage: dict[str, t.Any] = {
            "prompt_tokens": len(prompt.split()) + 8,
            "completion_tokens": max(1, len(pieces)),
        }
        if self.fake.cache:
            tokens = tokens_of(body.get("messages") or [{"content": content}])
            cached = self.fake.cache.find(tokens)
            self.fake.cache.keep(tokens + tokens_of([{"role": "assistant", "content": "".join(pieces)}]))
            usage.update(prompt_tokens=len(tokens), prompt_tokens_details={"cached_tokens": cached})
            self._prefill = (len(tokens) - cached) * self.fake.prefill
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        self.fake.work(prompted=usage["prompt_tokens"])
        if self.fake.with_cached and "prompt_tokens_details" not in usage:
            cached = self.fake.cached_of(prompt, usage["prompt_tokens"])
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        wants_stream = bool(body.get("stream")) and not self.fake.faults.get("not_streaming")
        if wants_stream:
            options = body.get("stream_options") or {}
            self._each = self.fake.stream_usage == "each" or bool(options.get("continuous_usage_stats"))
            counted = self._each or self.fake.stream_usage == "end" or bool(options.get("include_usage"))
            self._stream(model, pieces, finish, usage if counted else None)
        else:
            self._whole(model, pieces, finish, usage, body, uses)
        self.fake.work(finished=1)

    def _answer(self, prompt: str, image: bytes | None, schema: t.Any) -> str:
        faults = self.fake.faults
        if faults.get("garbage"):
            return GARBAGE
        if faults.get("wrong_answer"):
            return "London"
        if faults.get("empty"):
            return ""
        if schema is not None:
            return json.dumps(_example_of(schema))
        if image is not None:
            return "Red" if faults.get("blind") else colour_of(image).capitalize()
        for pattern, answer in ANSWERS:
            if re.search(pattern, prompt.lower()):
                return answer
        return OTHER_ANSWER

    def _pace(self) -> tuple[float, float]:
        """Seconds before the first token, and between tokens."""
        faults = self.fake.faults
        first, token = self.fake.first_token, self.fake.token
        slow = faults.get("slow_first") is not None or faults.get("slow_token") is not None
        if slow and faults.use("slow_times"):
            first, token = float(faults.get("slow_first", first)), float(faults.get("slow_token", token))
        return first + self._prefill, token

    def _whole(
        self, model: str, pieces: list[str], finish: str, usage: dict[str, t.Any], asked: t.Any, uses: set[str]
    ) -> None:
        first, token = self._pace()
        end = time.monotonic() + first + token * len(pieces)
        while time.monotonic() < end and not self._gone():
            if self.fake.closing.wait(min(LOOK, max(0.0, end - time.monotonic()))):
                pieces, finish = [], "abort"
                break
            self.fake.work(generated=1)
        if self.path == "/v1/completions":
            kind, choice = "text_completion", _completion_of(asked, pieces, uses)
        else:
            kind, choice = "chat.completion", _message_of(asked, pieces, uses)
        count = int(asked["n"]) if "sampling" in uses else 1
        choices = [{"index": number, **choice, "finish_reason": finish} for number in range(count)]
        same = {"object": kind, "created": int(time.time()), "model": model}
        counted = {} if self.fake.faults.get("no_usage") else {"usage": usage}
        self._json(200, {"id": f"chatcmpl-{uuid.uuid4()}", **same, "choices": choices, **counted})

    def _stream(self, model: str, pieces: list[str], finish: str, usage: dict[str, t.Any] | None) -> None:
        faults = self.fake.faults
        first, token = self._pace()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.fake.closing.wait(first)
        same = {"object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        head = {"id": f"chatcmpl-{uuid.uuid4()}", **same}

        def choice(delta: dict[str, t.Any], reason: str | None = None, tokens: int = 0) -> dict[str, t.Any]:
            document = {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            if usage is None or not self._each:
                return document
            so_far = {**usage, "completion_tokens": tokens, "total_tokens": usage["prompt_tokens"] + tokens}
            # Only SGLang knows by then what was in the cache.
            if self.fake.engine == "vllm":
                so_far.pop("prompt_tokens_details", None)
            return {**document, "usage": so_far}

        self._event(choice({"role": "assistant", "content": ""}))
        for number, piece in enumerate(pieces):
            if (number and self.fake.closing.wait(token)) or not self.fake.work(generated=1):
                finish = "abort"
                break
            self._event(choice({"content": piece}, tokens=number + 1))
            if faults.get("stall"):
                self.fake.closing.wait()
            if faults.get("cut"):
                self._reset()
                return
            if faults.get("stream_error"):
                self._event({"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}})
                break
        if self.fake.dead:
            self._event({"error": {"message": DEAD, "type": "InternalServerError", "code": 500}})
        elif not faults.get("truncate"):
            self._event(choice({}, finish, len(pieces)))
            if usage is not None and not faults.get("no_usage"):
                self._event({**head, "choices": [], "usage": usage})
            self._piece(b"data: [DONE]\n\n")
        self._piece(b"", more=False)

    def _event(self, document: dict[str, t.Any]) -> None:
        self._piece(b"data: " + json.dumps(document).encode() + b"\n\n")

    def _piece(self, data: bytes, more: bool = True) -> None:
        if self._rewritten is not None:
            data = self._rewritten.rewrite(data, more)
        if data:
            self._chunk(data)
        if not more:
            self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _reset(self) -> None:
        """Close as a killed process does: the client sees a reset, not an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _json(self, status: int, document: t.Any, extra: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(document).encode(), "application/json", extra)

    def _error(
        self,
        status: int,
        message: str,
        kind: str,
        extra: dict[str, str] | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        error = {"message": message, "type": kind, "param": param, "code": code or status}
        self._json(status, {"error": error}, extra)

    def _send(self, status: int, body: bytes, kind: str, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _prompt_of(content: t.Any, opens_files: bool) -> tuple[str, bytes | None]:
    """The text of a question, and its picture.

    Raises:
        PermissionError: the picture is a file of the host, which is not opened.
        OSError: it is opened, and not there.
    """
    if isinstance(content, str):
        return content, None
    if content and all(isinstance(part, int) for part in content):
        return " ".join(f"token{part}" for part in content), None
    prompt, image = "", None
    for part in content:
        kind = part["type"]
        if kind == "text":
            prompt += part["text"]
        elif kind in ("image_url", "video_url", "audio_url"):
            image = _loaded(part[kind]["url"], kind, opens_files)
    return prompt, image


def tokens_of(messages: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    """A conversation's tokens: its words, and what separates messages."""
    tokens: list[str] = []
    for message in messages:
        content = message["content"]
        words = content if isinstance(content, str) else json.dumps(content)
        tokens += [f"<{message.get('role')}>", *words.split()]
    return tokens


def _loaded(url: str, kind: str, opens_files: bool) -> bytes:
    if url.startswith("data:"):
        return base64.b64decode(url.partition(",")[2])
    if not opens_files:
        raise PermissionError(f"{kind} is loaded only from a data: URL in the request itself.")
    with open(url.partition("file://")[2] or url, "rb") as file:
        return file.read()


def _named(value: t.Any) -> set[str]:
    """The names in a fault's value: one, or a list of them."""
    return set() if value is None else {value} if isinstance(value, str) else set(value)


def _uses(body: t.Any, prompt: str, image: bytes | None) -> set[str]:
    """What a request uses, out of USES."""
    found = {
        "image": image is not None,
        "schema": _schema_of(body) is not None,
        "logprobs": body.get("logprobs") is True,
        "prompt_logprobs": bool(body.get("echo")),
        "sampling": (body.get("n") or 1) > 1,
        "long_prompt": len(prompt.split()) > LONG_PROMPT,
        "tools": bool(body.get("tools")) and not isinstance(body.get("tool_choice"), dict),
        "forced_tool": isinstance(body.get("tool_choice"), dict),
    }
    return {name for name, used in found.items() if used}


def _message_of(body: t.Any, pieces: list[str], uses: set[str]) -> dict[str, t.Any]:
    """A choice of a chat completion."""
    message: dict[str, t.Any] = {"role": "assistant", "content": "".join(pieces)}
    if "forced_tool" in uses:
        name = body["tool_choice"]["function"]["name"]
        (schema,) = (tool["function"]["parameters"] for tool in body["tools"] if tool["function"]["name"] == name)
        function = {"name": name, "arguments": json.dumps(_example_of(schema))}
        message.update(content=None, tool_calls=[{"id": "call_0", "type": "function", "function": function}])
    if "logprobs" not in uses:
        return {"message": message}
    likely = [{"token": piece, "logprob": -0.25} for piece in pieces]
    return {"message": message, "logprobs": {"content": [{**one, "top_logprobs": [one]} for one in likely]}}


def _completion_of(body: t.Any, pieces: list[str], uses: set[str]) -> dict[str, t.Any]:
    """A choice of a completion."""
    tokens = (body["prompt"].split() if body.get("echo") else []) + pieces
    found: dict[str, t.Any] = {"text": " ".join(tokens)}
    if "prompt_logprobs" in uses:
        found["logprobs"] = {"tokens": tokens, "token_logprobs": [None, *[-0.25] * (len(tokens) - 1)]}
    return found


def _schema_of(body: t.Any) -> t.Any:
    """The JSON schema that an answer has to keep to; None for none."""
    response_format = body.get("response_format") or {}
    return response_format["json_schema"]["schema"] if response_format.get("type") == "json_schema" else None


def _example_of(schema: t.Any) -> t.Any:
    """The shortest value that a schema allows, of those that gates and tests use."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: _example_of(part) for name, part in schema.get("properties", {}).items()}
    return {"string": "", "integer": 0, "number": 0, "boolean": False, "array": []}[schema["type"]]


def _cut_to_length(pieces: list[str], limit: int, endless: bool) -> tuple[list[str], str]:
    if endless:
        pieces = pieces + [" more"] * (limit - len(pieces))
    return (pieces[:limit], "length") if len(pieces) >= limit else (pieces, "stop")


def colour_of(png: bytes) -> str:
    """The name of the most colourful pixel's colour in a picture.

    Raises:
        ValueError: it is no PNG of 8 bits a channel without interlace and palette.
    """
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 29:
        raise ValueError("not a PNG")
    width, height, depth, kind, _compression, _filters, interlace = struct.unpack(">IIBBBBB", png[16:29])
    if depth != 8 or interlace or kind not in PNG_CHANNELS:
        raise ValueError("a PNG of a kind that is not supported")
    channels = PNG_CHANNELS[kind]
    try:
        raw = zlib.decompress(_png_data(png))
    except zlib.error as error:
        raise ValueError("a PNG that was cut") from error
    pixels = _png_pixels(raw, width, height, channels)
    red, green, blue = max(pixels, key=lambda pixel: max(pixel) - min(pixel))
    if max(red, green, blue) - min(red, green, blue) < 40:
        return "grey"
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], (red, green, blue))))


def _png_data(png: bytes) -> bytes:
    data, position = b"", 8
    while position + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        if kind == b"IDAT":
            data += png[position + 8 : position + 8 + length]
        position += length + 12
    return data


def _png_pixels(raw: bytes, width: int, height: int, channels: int) -> set[tuple[int, int, int]]:
    stride = width * channels
    if len(raw) != (stride + 1) * height:
        raise ValueError("a PNG that was cut")
    above = bytes(stride)
    seen: set[tuple[int, int, int]] = set()
    for row in range(height):
        start = row * (stride + 1)
        line = _png_line(raw[start], raw[start + 1 : start + 1 + stride], above, channels)
        if line != above or row == 0:
            step = range(0, stride, channels)
            seen.update((line[i], line[i + min(1, channels - 1)], line[i + min(2, channels - 1)]) for i in step)
        above = line
    return seen


def _png_line(kind: int, line: bytes, above: bytes, channels: int) -> bytes:
    if kind == 0:
        return line
    out = bytearray(line)
    for i in range(len(out)):
        left = out[i - channels] if i >= channels else 0
        corner = above[i - channels] if i >= channels else 0
        guess = (0, left, above[i], (left + above[i]) // 2, _paeth(left, above[i], corner))[kind]
        out[i] = (out[i] + guess) & 255
    return bytes(out)


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((left, up, corner), key=lambda value: abs(estimate - value))


def _key_from(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read().strip().rpartition("=")[2]


def serve(fake: FakeEngine, say: t.Callable[[str, str], None] = lambda process, text: None) -> None:
    """Run it as a program does: until SIGTERM or SIGINT, or until it dies by itself.

    Args:
        fake: not yet started.
        say: takes what vLLM would write to its journal: which of its processes, and what.
    """

    def stop(*_signal: object) -> None:
        if not fake.faults.get("deaf"):
            fake.ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # Twenty of these share two cores: a short poll would be most of what they do.
    fake.start(poll=0.5)
    fake.ended.wait()
    if fake.dead:
        say("EngineCore", "EngineCore encountered a fatal error.")
        say("EngineCore", "RuntimeError: CUDA error: an illegal memory access was encountered")
        # For so long vLLM is seen to be dead, or longer: its watchdog looks every five seconds.
        time.sleep(0.5)
        fake.stop()
        return
    say("APIServer", "[shutdown] API server: shutdown triggered")
    mode = "drain" if fake.shutdown_timeout else "abort"
    say("EngineCore", f"[shutdown] EngineCore: start mode={mode} timeout={fake.shutdown_timeout:.0f}s")
    if fake.running + fake.waiting:
        doing = "draining" if fake.shutdown_timeout else "aborting"
        say("EngineCore", f"[shutdown] EngineCore: {doing} in-flight requests count={fake.running + fake.waiting}")
    fake.drain()
    say("EngineCore", "[shutdown] EngineCore: request processing complete; starting resource teardown")


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for vLLM and SGLang.")
    parser.add_argument("--engine", choices=("vllm", "sglang"), default="vllm")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--key", default=os.environ.get("ENGINE_API_KEY"))
    parser.add_argument("--key-file", help="a file with ENGINE_API_KEY=... or the bare key")
    parser.add_argument("--first-token", type=float, default=0.0, help="seconds before the first token")
    parser.add_argument("--token", type=float, default=0.0, help="seconds between tokens")
    parser.add_argument("--start-delay", type=float, default=0.0, help="seconds before it listens, as if it loaded")
    parser.add_argument("--shutdown-timeout", type=float, default=30.0)
    parser.add_argument("--max-running", type=int, help="requests that run at once; the others wait")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME[=JSON]", help=", ".join(FAULTS))
    options = parser.parse_args()
    fake = FakeEngine(
        engine=options.engine,
        model=options.model,
        key=_key_from(options.key_file) if options.key_file else options.key,
        host=options.host,
        port=options.port,
        first_token=options.first_token,
        token=options.token,
        shutdown_timeout=options.shutdown_timeout,
        max_running=options.max_running,
        remember=False,
    )
    time.sleep(options.start_delay)
    faults = (fault.partition("=") for fault in options.fault)
    fake.set_faults({name: json.loads(value) if value else True for name, _, value in faults})
    serve(fake)


if __name__ == "__main__":
    main()
