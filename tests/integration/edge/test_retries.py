"""Retries: in total, a request reaches one further engine after one that broke off."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
import typing as t
import uuid
from pathlib import Path

import pytest

from tests.integration.edge.conftest import KEY, Answer, Edge, error_of, eventually, free_port, unstarted_edge
from tests.integration.edge.engine import Recorder

UPSTREAM = "sk-what-the-gateway-shows-to-the-hosts-00000000"
HOST_KEY = "sk-engine-key-that-stays-on-the-host-0000"
#: Ways in which an engine ends a request that it began, as paths of the stand-in for one.
BREAKS = ("break", "status/500", "status/502", "status/504")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """HAProxy resets the connection of a health check as soon as it has read enough."""


class Persistent:
    """The stand-in for LiteLLM: retries the pool, and passes on the request's name."""

    def __init__(self, tries: int) -> None:
        self.tries = tries
        self.pools = 0
        self.asked = 0
        #: After this many answers of the pool it dies.
        self.dies_after = 99
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: bytes, name: str) -> Answer | None:
        for number in range(1, self.tries + 1):
            self.asked += 1
            try:
                answer = ask(self.pools, f"/qwen{path}", HOST_KEY, body, X_Fleet_Request=name)
            except (OSError, http.client.HTTPException):
                # An edge that refuses a body need not read it.
                answer = (500, {}, b"")
            if number == self.dies_after:
                self.stop()
                return None
            if answer[0] < 500:
                break
        # It words errors in its own way.
        return answer if answer[0] < 500 else (500, {}, b'{"error": {"message": "litellm.InternalServerError"}}')


def _handler(litellm: Persistent) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 - the base class calls it so
            return

        def do_GET(self) -> None:
            self._send(200, b"{}")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = litellm.answer(self.path, body, self.headers["X-Fleet-Request"])
            if answer is None:
                self.close_connection = True
            else:
                self._send(answer[0], answer[2])

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def ask(port: int, path: str, key: str, body: bytes = b"{}", **headers: str) -> Answer:
    asked = Edge.__new__(Edge)
    asked.port = port
    return asked.ask(path, key, method="POST", body=body, **headers)


class Fleet:
    """Two gateways and the hosts behind both, with one engine each."""

    def __init__(self, stack: contextlib.ExitStack, place: Path, hosts: int) -> None:
        self.engines = [Recorder() for _ in range(hosts)]
        self.litellms = [Persistent(tries=4) for _ in range(2)]
        for engine in self.engines:
            stack.callback(engine.stop)
        for litellm in self.litellms:
            stack.callback(litellm.stop)
        self.hosts = [self._edge(stack, place / f"host-{n}", [engine]) for n, engine in enumerate(self.engines)]
        self.gateways = [self._edge(stack, place / f"gateway-{n}", []) for n in range(2)]
        for host in self.hosts:
            host.set_keys({UPSTREAM: "gateway", KEY: "team-a"})
            host.start_and_wait()
        servers = [
            {"name": f"inference-{number}", "address": "127.0.0.1", "port": host.port}
            for number, host in enumerate(self.hosts, 1)
        ]
        for number, (gateway, litellm) in enumerate(zip(self.gateways, self.litellms)):
            gateway.set_keys({KEY: "team-a", UPSTREAM: "gateway"}, upstream_key=UPSTREAM)
            litellm.pools = free_port()
            peers = [
                {"name": f"gateway-{n}", "address": "127.0.0.1", "port": other.port}
                for n, other in enumerate(self.gateways)
                if other is not gateway
            ]
            service = {
                "port": gateway.port,
                "kind": "gateway",
                "instances": [{"name": "litellm-0", "port": litellm.port}],
                "peers": peers,
            }
            pool = {"name": "qwen", "servers": servers}
            gateway.start(
                edge_services=[service],
                edge_pools=[pool],
                edge_pools_port=litellm.pools,
                inventory_hostname=f"gateway-{number}",
            )
        for gateway in self.gateways:
            eventually(lambda gateway=gateway: all(server.up for server in gateway.servers()))  # type: ignore[misc]

    @staticmethod
    def _edge(stack: contextlib.ExitStack, place: Path, engines: list[Recorder]) -> Edge:
        place.mkdir()
        return stack.enter_context(unstarted_edge(place, engines))

    def pool(self, path: str, body: bytes = b"{}", **headers: str) -> Answer:
        """The first gateway's pool's answer to its LiteLLM."""
        return ask(self.litellms[0].pools, f"/qwen{path}", HOST_KEY, body, **headers)

    def began(self, path: str) -> list[int]:
        """How often each engine began on requests with this path."""
        return [sum(seen.path == path for seen in engine.seen) for engine in self.engines]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        yield Fleet(stack, tmp_path_factory.mktemp("fleet"), hosts=4)


@pytest.fixture
def fleet(running: Fleet) -> Fleet:
    """The same for all tests here, with everything repaired."""
    for litellm in running.litellms:
        if litellm.asked >= litellm.dies_after:
            litellm.start()
        litellm.asked, litellm.dies_after = 0, 99
    for engine in running.engines:
        engine.seen.clear()
        engine.breaks = False
    for gateway in running.gateways:
        eventually(lambda gateway=gateway: all(server.up for server in gateway.servers()))  # type: ignore[misc]
    return running


def is_final(answer: Answer) -> bool:
    """Whether people and client libraries can see that it must not be retried."""
    return (answer[0], error_of(answer)["code"], answer[1].get("x-should-retry")) == (502, "engine_failed", "false")


@pytest.mark.parametrize("how", BREAKS)
def test_a_pool_asks_one_further_engine_and_another_one(fleet: Fleet, how: str) -> None:
    assert is_final(fleet.pool(f"/v1/{how}"))
    assert sorted(fleet.began(f"/v1/{how}")) == [0, 0, 1, 1]


def test_an_engine_that_breaks_off_loses_no_request(fleet: Fleet) -> None:
    fleet.engines[0].breaks = True
    while fleet.began("/v1/x")[0] < 3:
        assert fleet.pool("/v1/x")[0] == 200


def test_litellm_asks_no_further_engine_however_often_it_asks(fleet: Fleet) -> None:
    name = str(uuid.uuid4())
    answers = [fleet.pool("/v1/break", X_Fleet_Request=f"{name}.0") for _ in range(4)]
    assert all(is_final(answer) for answer in answers)
    assert sum(fleet.began("/v1/break")) == 2


def test_a_body_that_does_not_fit_is_asked_once_more_by_litellm(fleet: Fleet) -> None:
    assert is_final(ask(fleet.gateways[0].port, "/v1/break", KEY, b"x" * 300_000))
    assert sorted(fleet.began("/v1/break")) == [0, 0, 1, 1]
    fleet.engines[0].breaks = True
    while not fleet.began("/v1/x")[0]:
        assert ask(fleet.gateways[0].port, "/v1/x", KEY, b"x" * 300_000)[0] == 200


def test_what_clients_did_wrong_and_what_hosts_refuse_counts_for_nothing(fleet: Fleet) -> None:
    name = f"{uuid.uuid4()}.0"
    assert [fleet.pool(f"/v1/status/{status}", X_Fleet_Request=name)[0] for status in (400, 429, 503, 503, 503)] == [
        *(400, 503, 503, 503, 503)
    ]
    assert fleet.pool("/v1/x", X_Fleet_Request=name)[0] == 200


@pytest.mark.parametrize("how", BREAKS)
def test_the_client_of_a_gateway_gets_a_final_error_after_two_engines(fleet: Fleet, how: str) -> None:
    answer = ask(fleet.gateways[0].port, f"/v1/{how}", KEY)
    assert is_final(answer)
    assert sum(fleet.began(f"/v1/{how}")) == 2


@pytest.mark.parametrize("dies_after", [1, 2])
@pytest.mark.parametrize("size", [2, 300_000])
def test_attempts_count_across_gateways(fleet: Fleet, dies_after: int, size: int) -> None:
    # The engines break off, and then LiteLLM does.
    fleet.litellms[0].dies_after = dies_after
    answer = ask(fleet.gateways[0].port, "/v1/break", KEY, b"x" * size)
    # What fits the buffer goes to the other gateway.
    assert [litellm.asked > 0 for litellm in fleet.litellms] == [True, size == 2]
    assert is_final(answer) == (size == 2 or dies_after == 2)
    assert sum(fleet.began("/v1/break")) == (2 if size == 2 else dies_after)


def test_a_gateway_that_has_begun_nothing_leaves_both_tries_to_the_other(fleet: Fleet) -> None:
    fleet.gateways[0].drain(state="drained", wait=5)
    try:
        fleet.engines[0].breaks = True
        while not fleet.began("/v1/x")[0]:
            assert ask(fleet.gateways[0].port, "/v1/x", KEY)[0] == 200
    finally:
        fleet.gateways[0].drain(state="undrained")


# What ends LiteLLM itself


class Gateways:
    """Gateways that back each other up, with stand-ins for their processes of LiteLLM.

    Args:
        stack: ends them.
        place: a directory.
        processes: how many each gateway has.
        pools: whether they have a pool, of a host that is away.
    """

    def __init__(self, stack: contextlib.ExitStack, place: Path, processes: tuple[int, ...], pools: bool) -> None:
        self.litellms = [[Recorder() for _ in range(number)] for number in processes]
        self.edges = []
        for number, litellms in enumerate(self.litellms):
            for litellm in litellms:
                stack.callback(litellm.stop)
            (place / str(number)).mkdir()
            self.edges.append(stack.enter_context(unstarted_edge(place / str(number), litellms)))
        for number, (edge, litellms) in enumerate(zip(self.edges, self.litellms)):
            edge.set_keys({KEY: "team-a", UPSTREAM: "gateway"}, upstream_key=UPSTREAM)
            peers = [
                {"name": f"gateway-{n}", "address": "127.0.0.1", "port": other.port}
                for n, other in enumerate(self.edges)
                if other is not edge
            ]
            service = {
                "port": edge.port,
                "kind": "gateway",
                "instances": [{"name": f"engine-{n}", "port": litellm.port} for n, litellm in enumerate(litellms)],
                "peers": peers,
            }
            if pools:
                host = {"name": "inference-1", "address": "127.0.0.1", "port": free_port()}
                edge.variables.update(edge_pools=[{"name": "qwen", "servers": [host]}], edge_pools_port=free_port())
            edge.start(edge_services=[service], inventory_hostname=f"gateway-{number}")
        for edge in self.edges:
            eventually(lambda edge=edge: all(one.up for one in edge.servers() if "pool" not in one.backend))  # type: ignore[misc]

    @property
    def all(self) -> list[Recorder]:
        return [litellm for litellms in self.litellms for litellm in litellms]

    def ask(self, path: str, body: bytes = b"{}", **headers: str) -> Answer:
        return ask(self.edges[0].port, path, KEY, body, **headers)

    def began(self, path: str) -> list[int]:
        """How often the processes of each gateway began on requests with this path."""
        return [sum(seen.path == path for litellm in litellms for seen in litellm.seen) for litellms in self.litellms]


class StartGateways(t.Protocol):
    def __call__(self, *processes: int, pools: bool = False) -> Gateways: ...


@pytest.fixture
def gateways(tmp_path: Path) -> t.Iterator[StartGateways]:
    with contextlib.ExitStack() as stack:
        yield lambda *processes, pools=False: Gateways(stack, tmp_path, processes, pools)


@pytest.mark.parametrize("processes", [(1,), (4,), (1, 1), (4, 4), (1, 1, 1)])
def test_a_request_that_litellm_breaks_off_meets_one_further_process(
    gateways: StartGateways, processes: tuple[int, ...]
) -> None:
    running = gateways(*processes)
    assert is_final(running.ask("/v1/break"))
    assert sum(running.began("/v1/break")) == 2
    assert running.ask("/v1/x")[0] == 200


@pytest.mark.parametrize("pools", [False, True])
@pytest.mark.parametrize(("processes", "began"), [((4,), [2]), ((1, 1, 1), [1, 1]), ((2, 1), [2, 0])])
def test_a_request_that_ends_litellm_ends_one_further_process(
    gateways: StartGateways, processes: tuple[int, ...], began: list[int], pools: bool
) -> None:
    running = gateways(*processes, pools=pools)
    for litellm in running.all:
        litellm.dies = True
    assert is_final(running.ask("/v1/x"))
    # Of two other gateways it was one or the other.
    assert sorted(running.began("/v1/x"), reverse=True)[: len(began)] == began
    assert sum(running.began("/v1/x")) == 2
    for litellm in running.all:
        litellm.dies = False
    # With two processes fewer: others go on where one is left, here or there, once the gateways know of each other.
    eventually(lambda: [running.ask("/v1/y")[0] for _ in range(10)] == [200] * 10)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_error_after_litellm_broke_off_is_final(gateways: StartGateways, status: int) -> None:
    running = gateways(1, 1)
    running.all[0].dies = True
    answer = running.ask(f"/v1/status/{status}")
    assert running.began(f"/v1/status/{status}") == [1, 1]
    if status == 503:
        # Refused: a retry is allowed, and the client's library marks its next request as one.
        assert (answer[0], answer[1].get("x-should-retry")) == (503, None)
    else:
        assert is_final(answer)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_what_litellm_answers_is_asked_of_no_other_process(gateways: StartGateways, status: int) -> None:
    running = gateways(2, 1)
    answer = running.ask(f"/v1/status/{status}", X_Stainless_Retry_Count="0")
    assert (answer[0], answer[1].get("x-should-retry")) == (status, None)
    assert running.began(f"/v1/status/{status}") == [1, 0]


def test_a_body_that_does_not_fit_meets_one_process(gateways: StartGateways) -> None:
    running = gateways(2, 1)
    answers = [running.ask("/v1/break", b"x" * 300_000, X_Stainless_Retry_Count=number) for number in ("0", "1")]
    assert [(answer[0], error_of(answer)["code"]) for answer in answers] == [(502, "engine_failed")] * 2
    assert [answer[1].get("x-should-retry") for answer in answers] == [None, "false"]
    assert running.began("/v1/break") == [2, 0]


def test_processes_that_refuse_count_for_nothing(gateways: StartGateways) -> None:
    running = gateways(5, 1, 1)
    for litellm in running.litellms[0]:
        litellm.stop()
    # From the first request on, before a check could have noticed; also one that does not fit.
    assert running.ask("/v1/x", b"x" * 300_000)[0] == 200
    assert [running.ask("/v1/x")[0] for _ in range(5)] == [200] * 5


def test_where_nothing_further_is_left_a_client_asks_once_more(gateways: StartGateways) -> None:
    running = gateways(1)
    [litellm] = running.all
    for number, should_retry in (("0", None), ("1", "false")):
        litellm.dies = True
        answer = running.ask("/v1/x", X_Stainless_Retry_Count=number)
        assert (answer[0], error_of(answer)["code"], answer[1]["retry-after"]) == (503, "unavailable", "5")
        assert answer[1].get("x-should-retry") == should_retry
        # Nothing began on this one.
        answer = running.ask("/v1/x", X_Stainless_Retry_Count="1")
        assert (answer[0], answer[1].get("x-should-retry")) == (503, None)
        litellm = Recorder(litellm.port)
        eventually(lambda: all(server.up for server in running.edges[0].servers()))
    litellm.stop()


def test_a_client_cannot_name_its_request(fleet: Fleet) -> None:
    name = str(uuid.uuid4())
    for _ in range(2):
        assert is_final(ask(fleet.gateways[0].port, "/v1/break", KEY, X_Fleet_Request=f"{name}.-9"))
    assert sum(fleet.began("/v1/break")) == 4


def test_a_library_repeats_once_what_a_host_itself_answers(fleet: Fleet) -> None:
    first, second = [
        ask(fleet.hosts[0].port, "/v1/break", KEY, X_Stainless_Retry_Count=number) for number in ("0", "1")
    ]
    assert (first[0], error_of(first)["code"], first[1].get("x-should-retry")) == (502, "engine_failed", None)
    assert is_final(second)
