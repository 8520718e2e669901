"""The latency of the edge: runs on an inference host, so it is one file of the standard library.

The engine's own port and the edge get requests in turns, each over a persistent connection, and the first one
alternates: a temporary slowdown of the host affects both.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
import typing as t

ENGINE = ("127.0.0.1", 8100)
EDGE = ("127.0.0.1", 8000)
WARM_UP = 10
MODEL = "Qwen/Qwen3-VL-8B-Instruct"
CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France? Answer with one word."}],
    "max_tokens": 1,
    "temperature": 0,
}
REQUESTS: dict[str, tuple[str, str, t.Any]] = {
    "chat completion of 1 token": ("POST", "/v1/chat/completions", CHAT),
    "/v1/models": ("GET", "/v1/models", None),
}


class Side:
    """One of the two targets."""

    def __init__(self, address: tuple[str, int], key: str) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=60)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: t.Any) -> float:
        """Milliseconds of one request."""
        data = None if body is None else json.dumps(body)
        began = time.perf_counter()
        self._connection.request(method, path, data, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {text!r}")
        return took * 1000


def main(client_key: str, pairs: int) -> None:
    with open("/etc/inference/engine_key.env", encoding="utf-8") as file:
        engine_key = file.readline().strip().partition("=")[2]
    engine, edge = Side(ENGINE, engine_key), Side(EDGE, client_key)
    figures = {}
    for name, request in REQUESTS.items():
        for _ in range(WARM_UP):
            engine.ask(*request)
            edge.ask(*request)
        direct: list[float] = []
        through: list[float] = []
        for number in range(pairs):
            turns = [(direct, engine), (through, edge)]
            for times, side in turns if number % 2 else reversed(turns):
                times.append(side.ask(*request))
        added = statistics.median(b - a for a, b in zip(direct, through))
        figures[name] = {
            "engine_ms": statistics.median(direct),
            "edge_ms": statistics.median(through),
            "added_ms": added,
            "ratio": statistics.median(through) / statistics.median(direct),
        }
    print(json.dumps(figures))
