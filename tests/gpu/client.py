"""Requests to an instance, or to an edge in front of some: single ones, streams, and a load."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import random
import statistics
import threading
import time
import typing as t
import urllib.error
import urllib.request

from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import load

from tests.project import open_directly

#: Ids that every vocabulary of tests/gpu/model.py has a word for.
IDS = range(2000, 150000)


class Client:
    """Sends requests to one port.

    Args:
        port: of an instance or an edge, on this machine.
        model: the served name.
        key: that the port takes.
    """

    def __init__(self, port: int, model: str, key: str) -> None:
        self._port = port
        self._model = model
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def open(self, path: str, document: t.Any = None, timeout: float = 300) -> t.Any:
        body = None if document is None else json.dumps({"model": self._model, **document}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", body, self._headers)
        return open_directly(request, timeout=timeout)

    def complete(self, tokens: list[int], answer: int, timeout: float = 300) -> dict[str, t.Any]:
        document = {"prompt": tokens, "max_tokens": answer, "temperature": 0, "ignore_eos": True}
        with self.open("/v1/completions", document, timeout) as response:
            result: dict[str, t.Any] = json.load(response)
            return result

    def models(self) -> list[str]:
        """The names that the port serves."""
        with self.open("/v1/models", timeout=30) as response:
            return [model["id"] for model in json.load(response)["data"]]

    def refusal(self, document: t.Mapping[str, t.Any]) -> int:
        """The status of a chat that has no answer; 200 where it has one."""
        question = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}
        try:
            with self.open("/v1/chat/completions", {**question, **document}) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def stream(self, tokens: int) -> tuple[int, bool]:
        """Chunks of a streamed answer, and whether it came to its end."""
        messages = [{"role": "user", "content": f"Count without end, from {random.random()}."}]  # noqa: S311
        document = {"messages": messages, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        chunks, ended = 0, False
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            self.open("/v1/chat/completions", document) as response,
        ):
            for line in response:
                chunks += line.startswith(b"data: {")
                ended = ended or line.startswith(b"data: [DONE]")
        return chunks, ended

    def running(self) -> int | None:
        with self.open("/metrics") as response:
            found = load(response.read().decode())
        return found.running + found.waiting if found else None

    def health(self) -> int | None:
        try:
            with self.open("/health", timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None


class Streams:
    """Streams that run at the same time.

    Args:
        client: to which port.
        count: of streams.
        tokens: of each.
    """

    def __init__(self, client: Client, count: int, tokens: int) -> None:
        self.ends: list[tuple[int, bool]] = []
        self._threads = [
            threading.Thread(target=lambda: self.ends.append(client.stream(tokens)), daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def run(self) -> bool:
        """Whether one of them still runs."""
        return any(thread.is_alive() for thread in self._threads)

    def figures(self, patience: float = 30) -> dict[str, int]:
        """How many came to their end, and what arrived."""
        for thread in self._threads:
            thread.join(patience)
        return {
            "streams": len(self._threads),
            "complete": sum(ended for _chunks, ended in self.ends),
            "chunks": sum(chunks for chunks, _ended in self.ends),
        }


@dataclasses.dataclass(frozen=True)
class Workload:
    """A number of equal requests without a shared prefix.

    Attributes:
        requests: in all, to each port.
        at_once: in flight at a time, at each port.
        prompt: tokens of a prompt.
        answer: tokens of an answer.
    """

    requests: int
    at_once: int
    prompt: int = 896
    answer: int = 128

    def send(self, clients: t.Sequence[Client], seed: int) -> dict[str, t.Any]:
        """Send it to each port at the same time, and say how fast the answers came."""
        numbers = random.Random(seed)  # noqa: S311
        prompts = [[numbers.choices(IDS, k=self.prompt) for _ in range(self.requests)] for _ in clients]
        took: list[float] = []
        failed: list[str] = []

        def ask(client: Client, prompt: list[int]) -> int:
            began = time.time()
            try:
                answer = client.complete(prompt, self.answer)
            except (OSError, urllib.error.URLError) as error:
                failed.append(repr(error)[:200])
                return 0
            took.append(time.time() - began)
            return int(answer["usage"]["completion_tokens"])

        with contextlib.ExitStack() as stack:
            pools = [stack.enter_context(concurrent.futures.ThreadPoolExecutor(self.at_once)) for _ in clients]
            began = time.time()
            asked = [
                pool.submit(ask, client, prompt) for pool, client, own in zip(pools, clients, prompts) for prompt in own
            ]
            tokens = sum(each.result() for each in asked)
            seconds = time.time() - began
        return {
            "requests": len(took),
            "failed": len(failed),
            "errors": failed[:3],
            "at_once": self.at_once * len(clients),
            "seconds": round(seconds, 2),
            "requests_per_second": round(len(took) / seconds, 2),
            "tokens_per_second": round(tokens / seconds, 1),
            "request_median_s": round(statistics.median(took), 2) if took else None,
        }
