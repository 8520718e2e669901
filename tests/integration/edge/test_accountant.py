"""Limits on tokens at gateways that are HAProxy alone: what passes, what is counted, and what holds in each fault."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.accountant import serve
from ansible_collections.inference.fleet.plugins.module_utils.accountant.ledger import BudgetAccount
from ansible_collections.inference.fleet.plugins.module_utils.accountant.settings import AccountantSettings
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy

from tests.integration.edge.conftest import IS_HAPROXY_2_4, Answer, Edge, error_of, eventually, free_port
from tests.integration.edge.test_front import UPSTREAM, Front
from tests.integration.gateway.conftest import PROGRAM, Redis
from tests.unit.litellm.conftest import SCHEMA, load

pytestmark = pytest.mark.skipif(IS_HAPROXY_2_4, reason="refused at preflight: HAProxy 2.4 has no filters in Lua")

#: Of a token of the prompt and of the answer.
PRICES = {"org/Alpha": (1.0, 2.0), "beta": (0.001, 0.002)}
#: A request of USES books 512 for the template, its bytes, and its max_tokens.
PROMPT, COMPLETION = 50, 100
USES = f"/v1/uses/0/{PROMPT}/{COMPLETION}"
BODY = {"model": "org/Alpha", "max_tokens": COMPLETION}
#: At most: template, body, answer.
BOOKED = 512 + 64 + COMPLETION

LIMITS: dict[str, dict[str, t.Any]] = {
    "minute": {"tokens_per_minute": 3000},
    "money": {"budget": 5000.0},
    "daily": {"budget": 1000.0, "budget_period": "1d"},
    "both": {"tokens_per_minute": 3000, "budget": 100000.0, "requests_per_minute": 1000},
    "free": {"requests_per_minute": 100000},
}


def key_of(name: str) -> str:
    return f"sk-the-key-of-{name}-for-tests-only-000000000"


class Service:
    """The accountant of one gateway, as its unit starts it."""

    def __init__(self, edge: Edge, gateways: int, redis_url: str) -> None:
        self.place = edge.directory
        self.chroot = edge.directory / "chroot"
        self.chroot.mkdir()
        self.chroot.chmod(0o755)
        self.log = self.place / "accountant.log"
        self.state = self.place / "state" / "accountant.json"
        self.metrics = self.place / "state" / "metrics" / "accountant.prom"
        self.program = edge.install_accountant()
        self.config = self.place / "accountant.json"
        self.settings = AccountantSettings(
            gateways=gateways,
            prices=PRICES,
            redis_url=redis_url,
            keys_map=str(edge.maps / "keys.map"),
            directory=str(self.chroot / "accountant"),
            socket=edge.socket,
            state=str(self.state),
            metrics=str(self.metrics),
        )
        self.config.write_text(self.settings.render())
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(self.program), "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        before = self.said("Counting for")
        eventually(lambda: self.said("Counting for") > before or self._ended(), 20)

    def _ended(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log.read_text()
        return False

    def said(self, words: str) -> int:
        return self.log.read_text().count(words)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def document(self) -> dict[str, t.Any]:
        return dict(json.loads(self.state.read_text())) if self.state.exists() else {"budgets": {}, "windows": {}}

    def spent(self, client: str) -> float:
        accounts = self.document()["budgets"].items()
        return sum(BudgetAccount(**one).spent for key, one in accounts if key.startswith(f"fleet:spent:{client}:"))

    def used(self, client: str) -> float:
        return float(sum(self.document()["windows"].get(client, {}).values()))

    def booked(self) -> int:
        return sum(1 for one in self.document().get("bookings", {}).values() if not one["counted"])


class Gateways(Front):
    """Two gateways with accountants."""

    def __init__(self, stack: contextlib.ExitStack, place: Path, redis_url: str = "", gateways: int = 2) -> None:
        self.services: list[Service] = []
        self.redis_url, self.count = redis_url, gateways
        super().__init__(stack, place, gateways)
        for gateway in self.gateways:
            self.keys = {UPSTREAM: "gateway", **{key_of(name): name for name in LIMITS}}
            gateway.set_keys(self.keys, LIMITS, upstream_key=UPSTREAM)

    def _edge(self, stack: contextlib.ExitStack, place: Path, engines: list[t.Any]) -> Edge:  # type: ignore[override]
        edge = Front._edge(stack, place, engines)
        if place.name.startswith("gateway"):
            service = Service(edge, self.count, self.redis_url)
            self.services.append(service)
            service.start()
            stack.callback(service.kill)
        return edge

    def variables(self, number: int) -> dict[str, t.Any]:
        values = super().variables(number)
        values["edge_services"][0]["accountant"] = {"prompt_tokens": 3000, "output_tokens": 400, "media_tokens": 800}
        return {**values, "__edge_chroot": str(self.services[number].chroot)}

    def use(self, name: str, gateway: int = 0, path: str = USES, **headers: str) -> Answer:
        return self.ask(BODY, key_of(name), path, gateway, Content_Type="application/json", **headers)

    def burst(self, name: str, number: int = 32, path: str = f"/v1/uses/1/{PROMPT}/{COMPLETION}") -> list[Answer]:
        """As many requests at once, half at each gateway."""
        ready = threading.Barrier(number)

        def go(index: int) -> Answer:
            ready.wait()
            return self.use(name, index % self.count, path)

        with concurrent.futures.ThreadPoolExecutor(number) as pool:
            return list(pool.map(go, range(number)))

    def settled(self, name: str, value: float, what: str = "used") -> None:
        """Wait until the accountants have counted as much."""

        def found() -> float:
            return sum(getattr(service, what)(name) for service in self.services)

        end = time.monotonic() + 15
        while abs(found() - value) > 1e-6:
            assert time.monotonic() < end, f"{what} of {name} is {found()}, not {value}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Gateways]:
    with contextlib.ExitStack() as stack:
        yield Gateways(stack, tmp_path_factory.mktemp("gateway"), gateways=1)


@pytest.fixture
def one(running: Gateways) -> Gateways:
    """One gateway for all tests here, on which nothing was spent."""
    [service], [gateway] = running.services, running.gateways
    # What the test before has in flight ends first. A line that is lost does not come.
    with contextlib.suppress(AssertionError):
        eventually(lambda: service.process is None or service.booked() == 0, 3)
    service.kill(signal.SIGTERM)
    for path in service.state.parent.glob("accountant.json*"):
        path.unlink()
    service.start()
    gateway.set_keys(running.keys, LIMITS, upstream_key=UPSTREAM)
    for table in ("verdicts", "clients"):
        haproxy.ask(gateway.socket, f"clear table {table}")
    for engine in running.engines:
        engine.seen.clear()
    return running


@pytest.fixture
def own(tmp_path: Path) -> t.Iterator[Gateways]:
    """A gateway of the test's own."""
    with contextlib.ExitStack() as stack:
        yield Gateways(stack, tmp_path, gateways=1)


class Store:
    """A Redis that keeps what it knows over a restart."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self._place = place
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        if not PROGRAM:
            pytest.skip("needs redis-tools")
        words = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._place)]
        with (self._place / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", *words, "--save", "", "--appendonly", "yes"],
                executable=PROGRAM,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._answers)
        return f"redis://127.0.0.1:{self.port}/0"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@pytest.fixture
def store(tmp_path: Path) -> t.Iterator[Store]:
    found = Store(tmp_path / "redis")
    try:
        yield found
    finally:
        found.stop()


def passed(answers: list[Answer], *codes: str) -> int:
    """How many passed; the others have to be refused for one of these reasons."""
    refused = [answer for answer in answers if answer[0] != 200]
    assert {(answer[0], error_of(answer)["code"]) for answer in refused} <= {(429, code) for code in codes}
    for answer in refused:
        assert 1 <= int(answer[1]["retry-after"]) <= 60
    return len(answers) - len(refused)


# The bound


@pytest.mark.parametrize("shared", [False, True])
def test_32_at_once_over_two_gateways_use_no_more_than_the_limit_and_a_request_each(
    tmp_path: Path, store: Store, shared: bool
) -> None:
    with contextlib.ExitStack() as stack:
        two = Gateways(stack, tmp_path, store.start() if shared else "")
        count = passed(two.burst("minute"), "token_limit_exceeded")
        # What is booked stays below the limit and a request at each gateway; of that each uses 150.
        overshoot = 1 if shared else 2
        assert math.ceil(3000 / BOOKED) <= count <= math.ceil(3000 / (512 + COMPLETION)) + overshoot - 1
        assert sum(two.asked()) == count
        two.settled("minute", count * 150)
        # The next ones go by what was used, until that is the limit.
        more = [two.use("minute", index % 2) for index in range(60)]
        count += passed(more, "token_limit_exceeded")
        assert 3000 <= count * 150 <= 3000 + overshoot * BOOKED
        assert two.use("free")[0] == 200


@pytest.mark.parametrize("shared", [False, True])
def test_a_budget_is_not_overspent_by_32_at_once(tmp_path: Path, store: Store, shared: bool) -> None:
    with contextlib.ExitStack() as stack:
        two = Gateways(stack, tmp_path, store.start() if shared else "")
        answers = two.burst("money")
        count = passed(answers, "budget_reserved")
        booked = BOOKED - COMPLETION + 2 * COMPLETION
        assert math.ceil(5000 / booked) <= count <= 5000 // (512 + 2 * COMPLETION) + 2
        if shared:
            eventually(lambda: max(service.spent("money") for service in two.services) == count * 250)
        else:
            two.settled("money", count * 250, "spent")
        for index in range(60):
            answer = two.use("money", index % 2)
            count += answer[0] == 200
        assert 5000 <= count * 250 <= 5000 + (1 if shared else 2) * booked
        answer = two.use("money")
        error = error_of(answer)
        assert (answer[0], error["type"], error["code"]) == (429, "insufficient_quota", "budget_exceeded")
        assert error["message"] == "The client has spent its budget."


def spend_all(gateways: Gateways, client: str) -> None:
    """Spend a budget. What requests in flight have booked is refused too, but given back when they used less."""

    def is_spent() -> bool:
        answer = gateways.use(client)
        return answer[0] == 429 and error_of(answer)["code"] == "budget_exceeded"

    eventually(is_spent)


def test_a_period_s_end_is_when_to_try_again(one: Gateways) -> None:
    spend_all(one, "daily")
    left = 86400 - time.time() % 86400
    assert abs(int(one.use("daily")[1]["retry-after"]) - left) < 10


# What counts


def test_what_an_answer_used_counts_and_not_what_it_had_booked(one: Gateways) -> None:
    assert one.use("both")[0] == 200
    one.settled("both", 150)
    one.settled("both", 250.0, "spent")
    assert one.services[0].booked() == 0


@pytest.mark.parametrize("path", ["/v1/status/500", "/v1/status/404", "/v1/break"])
def test_a_failure_costs_nothing(one: Gateways, path: str) -> None:
    assert one.use("both", path=path)[0] >= 400
    assert one.use("both")[0] == 200
    one.settled("both", 150)


def test_a_stream_that_its_client_breaks_off_counts_as_far_as_it_has_got(one: Gateways) -> None:
    piece = 'data: {}\n\n: usage {"prompt_tokens": 30, "completion_tokens": 7}\n\n'
    body = json.dumps([piece]).encode()
    with socket.create_connection(("127.0.0.1", one.gateways[0].port)) as client:
        client.sendall(
            f"POST /v1/pieces/wait HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key_of('both')}\r\n"
            f"X-Model: org/Alpha\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        seen = b""
        while b"usage" not in seen:
            seen += client.recv(4096)
    one.settled("both", 37)
    # Engines say so in time because the gateway asks them.
    [request] = [request for engine in one.engines for request in engine.seen]
    assert request.headers["x-fleet-usage"] == "always"


def test_an_answer_that_says_nothing_counts_as_it_was_booked(one: Gateways) -> None:
    assert one.use("both", path="/v1/x")[0] == 200
    size = len(json.dumps(BODY))
    one.settled("both", 512 + size + COMPLETION)


def test_hosts_and_clients_are_asked_for_usage_only_where_it_counts(one: Gateways) -> None:
    assert one.use("free", X_Fleet_Usage="always")[0] == 200
    [request] = [request for engine in one.engines for request in engine.seen]
    assert request.headers["x-fleet-usage"] == "end"


@pytest.mark.parametrize(
    ("body", "booked"),
    [
        ({}, 512 + 400),
        ({"max_tokens": 30}, 512 + 30),
        ({"max_completion_tokens": 30, "max_tokens": "50", "n": 3}, 512 + 150),
        ({"max_tokens": 1e3}, 512 + 1000),
        # Escaped.
        ({"^6dax^5ftokens": 1000, "max_tokens": 1, "^6e": 2}, 512 + 2000),
        ({"messages": [{"role": "user", "content": '"max_tokens": 1'}]}, 512 + 400),
        (
            {
                "messages": [
                    {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}]}
                ]
            },
            512 + 800 + 400,
        ),
        ({"prompt": ["a", "b", "c"], "max_tokens": 10}, 512 + 30),
        ({"padding": "x" * 300_000, "max_tokens": 1}, 512 + 300_000 + 400),
        (
            {
                "messages": [
                    {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 300_000}}]}
                ]
            },
            512 + 800 + 3000 + 400,
        ),
    ],
)
def test_a_request_books_what_it_may_use(one: Gateways, body: dict[str, t.Any], booked: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        request = json.dumps({"model": "org/Alpha", **body}).replace("^", "\\u00").encode()
        waiting = pool.submit(one.ask, request, key_of("both"), "/v1/uses/2/1/1")
        eventually(lambda: one.services[0].booked() == 1)
        [booking] = one.services[0].document()["bookings"].values()
        assert waiting.result()[0] == 200
    # The bytes of texts come on top.
    assert booked <= booking["tokens"] <= booked + 200
    one.settled("both", 2)


def test_a_new_key_is_the_same_client(one: Gateways) -> None:
    assert one.use("money")[0] == 200
    key = "sk-the-next-key-of-money-for-tests-only-0000000"
    gateway = one.gateways[0]
    gateway.set_keys({**one.keys, key: "money"}, LIMITS, upstream_key=UPSTREAM)
    gateway.set_keys(
        {**{k: name for k, name in one.keys.items() if name != "money"}, key: "money"}, LIMITS, upstream_key=UPSTREAM
    )
    assert one.use("money")[0] == 401
    assert one.ask(BODY, key, USES)[0] == 200
    one.settled("money", 500.0, "spent")


def test_a_limit_changes_without_a_restart(one: Gateways) -> None:
    spend_all(one, "daily")
    one.gateways[0].set_keys(
        one.keys, {**LIMITS, "daily": {"budget": 1e6, "budget_period": "1d"}}, upstream_key=UPSTREAM
    )
    assert one.use("daily")[0] == 200


def test_requests_of_a_minute_are_bounded_too(one: Gateways) -> None:
    limits = {**LIMITS, "both": {"budget": 1e9, "requests_per_minute": 20}}
    one.gateways[0].set_keys(one.keys, limits, upstream_key=UPSTREAM)
    answers = one.burst("both", 60, "/v1/uses/0.2/1/1")
    assert 20 <= passed(answers, "rate_limit_exceeded") <= 24


def test_metrics_have_what_is_left(one: Gateways) -> None:
    assert one.use("money")[0] == 200
    one.settled("money", 250.0, "spent")
    eventually(lambda: 'fleet_budget_spent_ratio{client="money"} 0.05\n' in one.services[0].metrics.read_text(), 40)
    text = one.services[0].metrics.read_text()
    assert 'fleet_budget_left{client="money"} 4750\n' in text
    # AccountantDown looks at the age of the figures.
    written = re.search(r"^fleet_accountant_last_look_timestamp_seconds (\d+)$", text, re.MULTILINE)
    assert written
    assert time.time() - int(written[1]) < 60


# Faults


def test_a_killed_accountant_fails_no_request_and_forgets_no_spending(one: Gateways) -> None:
    service = one.services[0]
    for _ in range(4):
        assert one.use("money")[0] == 200
    one.settled("money", 1000.0, "spent")
    service.kill()
    # Nothing holds these up, and their lines wait in the ring.
    answers = [one.use("money") for _ in range(30)]
    assert [answer[0] for answer in answers] == [200] * 30
    service.start()
    one.settled("money", 34 * 250.0, "spent")
    assert error_of(one.use("money"))["code"] == "budget_exceeded"
    # Without it the last verdict holds.
    eventually(lambda: "key=money/budget" in haproxy.ask(one.gateways[0].socket, "show table verdicts"))
    service.kill()
    answer = one.use("money")
    assert (answer[0], error_of(answer)["code"]) == (429, "budget_exceeded")
    assert one.use("free")[0] == 200
    assert one.use("both")[0] == 200


def test_an_accountant_that_is_killed_under_load_fails_nothing(one: Gateways) -> None:
    one.gateways[0].set_keys(one.keys, {**LIMITS, "money": {"budget": 1e9}}, upstream_key=UPSTREAM)
    service, statuses, ended = one.services[0], [], threading.Event()

    def hammer() -> None:
        while not ended.is_set():
            statuses.append(one.use("money")[0])

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.7)
        service.kill()
        time.sleep(0.3)
        service.start()
    ended.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert len(statuses) > 50
    # What is lost is what settled in the half second before each kill; what had been booked then counts as booked.
    time.sleep(2 * serve.SAVE)
    assert service.spent("money") >= 250.0 * len(statuses) * 0.4


def test_one_that_hangs_delays_requests_and_fails_none(one: Gateways) -> None:
    process = one.services[0].process
    assert process
    process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert [one.use("both")[0] for _ in range(20)] == [200] * 20
        # Not each of them waits.
        assert time.monotonic() - began < 10
    finally:
        process.send_signal(signal.SIGCONT)
    one.settled("both", 20 * 150)


def test_a_restart_goes_on_where_it_was(one: Gateways) -> None:
    service = one.services[0]
    assert one.use("both")[0] == 200
    one.settled("both", 150)
    service.kill(signal.SIGTERM)
    service.start()
    assert one.use("both")[0] == 200
    one.settled("both", 300)
    one.settled("both", 500.0, "spent")


@pytest.mark.parametrize(
    "content",
    [
        '{"version": 1, "bookings"',
        '{"version": 99}',
        "[]",
        "\x00\xff",
        '{"version":1,"asked":[],"bookings":{},"windows":{},"budgets":{"x":{}}}',
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_put_aside(one: Gateways, content: str) -> None:
    service = one.services[0]
    service.kill()
    service.state.write_bytes(content.encode("latin-1"))
    service.start()
    [aside] = service.state.parent.glob("accountant.json.unreadable-*")
    assert aside.read_bytes() == content.encode("latin-1")
    assert f"{service.state} is not what an accountant wrote" in service.log.read_text()
    assert str(aside) in service.log.read_text()
    assert one.use("both")[0] == 200
    one.settled("both", 150)


def test_half_a_line_in_the_ring_is_left_out(one: Gateways) -> None:
    path = str(one.services[0].chroot / "accountant" / "ring")
    line = (
        "<29>1 - - haproxy 1 - - client=both key=x from=x method=POST path=/v1/x status=200 instance=a end=-- "
        "request=R{} answer=whole model=m prompt=1 cached=- completion=1 first_token_ms=- tokens_ms=-"
    )
    one.use("both")
    one.settled("both", 150)
    with socket.socket(socket.AF_UNIX) as ring:
        ring.connect(path)
        first, second, third = (line.format(number) for number in (1, 2, 3))
        ring.sendall(f"{len(first)} {first}{len(second)} {second[:90]}".encode())
        ring.sendall(f"{len(third)} {third}{len(third)} {third[:50]}".encode())
    one.settled("both", 152)
    assert one.use("both")[0] == 200
    one.settled("both", 302)


def test_a_stream_over_a_reload_is_counted(own: Gateways) -> None:
    gateway = own.gateways[0]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(own.use, "both", 0, "/v1/uses/3/50/100") for _ in range(3)]
        eventually(lambda: own.services[0].booked() == 3)
        gateway.reload()
        assert own.use("both")[0] == 200
        assert [answer.result()[0] for answer in waiting] == [200] * 3
    own.settled("both", 4 * 150)
    # The former process ends when its lines have come.
    eventually(lambda: len(haproxy.workers(gateway.socket, gateway.master_socket)) == 1, 20)


def test_a_reload_of_haproxy_forgets_nothing(own: Gateways) -> None:
    spend_all(own, "daily")
    own.gateways[0].reload()
    assert error_of(own.use("daily"))["code"].startswith("budget_")
    own.gateways[0].stop()
    own.gateways[0].start()
    eventually(lambda: all(server.up for server in own.gateways[0].servers()))
    assert error_of(own.use("daily"))["code"].startswith("budget_")


def test_what_a_killed_haproxy_had_in_flight_counts_as_it_was_booked(own: Gateways) -> None:
    gateway = own.gateways[0]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(own.use, "both", 0, "/v1/uses/5/50/100")
        eventually(lambda: own.services[0].booked() == 1)
        worker = next(iter(own.services[0].document()["bookings"].values()))["worker"]
        os.kill(worker, signal.SIGKILL)
        with contextlib.suppress(Exception):
            waiting.result()
    own.settled("both", 512 + len(json.dumps(BODY)) + COMPLETION)
    gateway.process = None


# With a Redis


def test_gateways_share_a_budget_and_have_each_a_part_of_the_rest_without_redis(tmp_path: Path, store: Store) -> None:
    with contextlib.ExitStack() as stack:
        two = Gateways(stack, tmp_path, store.start())
        # One gateway alone may use more than its half.
        for _ in range(12):
            assert two.use("money")[0] == 200
        eventually(lambda: two.services[0].spent("money") == 3000.0)
        assert two.use("money", 1)[0] == 200
        eventually(lambda: two.services[1].spent("money") == 3250.0)
        store.stop()
        # Each gateway has half of what was left when it last heard of it.
        answers = [two.use("money", index % 2) for index in range(40)]
        count = passed(answers, "budget_exceeded", "budget_reserved")
        assert 1750 <= count * 250 <= 2000 + 2 * (BOOKED + COMPLETION)
        assert two.services[0].said("does not answer, so limits on tokens are counted here alone") == 1
        store.start()
        # What was spent meanwhile is added when it is back.
        total = 3250.0 + count * 250
        eventually(lambda: max(service.spent("money") for service in two.services) == total, 30)


def test_spending_goes_on_with_a_gateway_of_the_other_kind(tmp_path: Path, store: Store) -> None:
    load("client_schema", SCHEMA)
    clients, budgets = load("fleet_clients"), load("fleet_budgets")
    client = clients.Client("daily", {"budget": 1000.0, "budget_seconds": 86400})

    async def spend(cost: float) -> t.Any:
        counted = budgets.Budgets(Redis(store.port))
        refusal = await counted.reserve(client, "r", 1.0)
        if refusal is None:
            await counted.spend(client, "r", cost)
        return refusal

    with contextlib.ExitStack() as stack:
        one = Gateways(stack, tmp_path, store.start(), gateways=1)
        assert asyncio.run(spend(400.0)) is None
        assert one.use("daily")[0] == 200
        eventually(lambda: one.services[0].spent("daily") == 650.0)
        assert asyncio.run(spend(400.0)) is None
        answer = one.use("daily")
        assert (answer[0], error_of(answer)["code"]) == (429, "budget_exceeded")
        assert asyncio.run(spend(1.0)) is budgets.Refusal.SPENT
