"""Clients that send requests without pause and never retry."""

from __future__ import annotations

import collections
import http.client
import threading
import time
import typing as t


class Served(t.Protocol):
    """An edge, or what is in front of some."""

    port: int


class Traffic:
    """While it is open, send requests in some threads; then return the number of each answer."""

    def __init__(self, edge: Served, keys: t.Sequence[str], pause: float = 0.005) -> None:
        self._port = edge.port
        self._pause = pause
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(key,)) for key in keys]
        self.answers: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, key: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._ended.is_set():
            try:
                connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
                response = connection.getresponse()
                response.read()
                self.answers[str(response.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.answers[type(error).__name__] += 1
                connection.close()
            time.sleep(self._pause)
        connection.close()


class Stream:
    """One streamed answer, read to its end in the background."""

    def __init__(self, edge: Served, key: str, seconds: float) -> None:
        self._edge = edge
        self._answer: tuple[int, bytes] = (0, b"")
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(key, seconds))
        self._thread.start()
        assert self._began.wait(10)

    def _read(self, key: str, seconds: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._edge.port, timeout=30)
        connection.request("POST", f"/v1/stream/{seconds}", headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        first = response.read1(10)
        self._began.set()
        self._answer = (response.status, first + response.read())
        connection.close()

    def finished_whole(self) -> bool:
        """Wait for its end: whether every event arrived."""
        self._thread.join()
        status, body = self._answer
        return status == 200 and body.endswith(b"data: [DONE]\n\n")
