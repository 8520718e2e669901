"""The edge of a gateway: it checks clients, reaches other hosts through pools, and falls back on other gateways."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import typing as t
from pathlib import Path

import pytest

from tests.certificates import certificate
from tests.integration.edge.conftest import IS_HAPROXY_2_4, KEY, Edge, error_of, eventually, free_port, unstarted_edge
from tests.integration.edge.engine import Recorder

UPSTREAM = "sk-what-the-gateway-shows-to-the-hosts-00000000"
HOST_KEY = "sk-engine-key-that-stays-on-the-host-0000"


class Gateway:
    """An edge with one stand-in for LiteLLM behind it."""

    def __init__(self, name: str, edge: Edge, litellm: Recorder) -> None:
        self.name = name
        self.edge = edge
        self.litellm = litellm

    @property
    def as_peer(self) -> dict[str, t.Any]:
        return {"name": self.name, "address": "127.0.0.1", "port": self.edge.port, "tls": False}

    def start(self, *peers: Gateway, **variables: t.Any) -> None:
        service = {
            "port": self.edge.port,
            "kind": "gateway",
            "health_path": "/health/liveliness",
            "instances": [{"name": "engine-0", "port": self.litellm.port}],
            "peers": [peer.as_peer for peer in peers],
        }
        self.edge.start(edge_services=[service], inventory_hostname=self.name, **variables)

    def states(self) -> dict[str, bool]:
        return {f"{server.backend.partition('_')[0]} {server.name}": server.up for server in self.edge.servers()}

    def wait(self) -> None:
        eventually(lambda: all(self.states().values()))

    def forwarded(self) -> int:
        return len(self.litellm.seen)


@contextlib.contextmanager
def one_gateway(name: str, place: Path) -> t.Iterator[Gateway]:
    place.mkdir()
    litellm = Recorder()
    with unstarted_edge(place, [litellm]) as edge:
        edge.set_keys({KEY: "team-a", UPSTREAM: "gateway"}, upstream_key=UPSTREAM)
        try:
            yield Gateway(name, edge, litellm)
        finally:
            litellm.stop()


@pytest.fixture
def pair(tmp_path: Path) -> t.Iterator[tuple[Gateway, Gateway]]:
    """Two gateways that back each other up."""
    with one_gateway("gateway-1", tmp_path / "1") as first, one_gateway("gateway-2", tmp_path / "2") as second:
        first.start(second)
        second.start(first)
        first.wait()
        second.wait()
        yield first, second


def test_the_clients_key_is_passed_on_and_nothing_else_that_steers_litellm(pair: tuple[Gateway, Gateway]) -> None:
    first, _second = pair
    steering = {"x_litellm_api_key": "sk-other", "X_Litellm_Tags": "a", "x_goog_api_key": "sk-g", "api_key": "sk-a"}
    assert first.edge.status("/v1/x", KEY, **steering) == 200
    [seen] = first.litellm.seen
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert not [name for name in seen.headers if name.startswith("x-litellm") or "api" in name]


def test_a_wrong_key_gets_no_further(pair: tuple[Gateway, Gateway]) -> None:
    first, _second = pair
    answer = first.edge.ask("/v1/models", "sk-wrong")
    assert (answer[0], error_of(answer)["code"]) == (401, "invalid_api_key")
    assert first.forwarded() == 0


def test_refusals_of_litellm_pass_through(pair: tuple[Gateway, Gateway]) -> None:
    first, _second = pair
    assert first.edge.status("/v1/status/401", KEY) == 401
    assert first.edge.ask("/v1/status/429", KEY)[1]["retry-after"] == "5"


def test_another_gateway_answers_while_litellm_is_down(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    first.litellm.stop()
    # From the first request on, before a health check could have noticed.
    assert [first.edge.status("/v1/x", KEY) for _ in range(20)] == [200] * 20
    assert second.forwarded() == 20
    assert first.edge.healthy()
    assert first.edge.status("/health/local") == 503


def test_a_request_that_litellm_began_before_it_died_is_answered_by_another_gateway(
    pair: tuple[Gateway, Gateway],
) -> None:
    first, second = pair
    # LiteLLM is killed: its port closes, and the connection with the request ends without a byte.
    first.litellm.stop()
    eventually(lambda: not first.states()["instances engine-0"])
    with socket.create_server(("127.0.0.1", first.litellm.port)) as dying:

        def dies() -> None:
            while True:
                connection, _address = dying.accept()
                data = connection.recv(65536)
                if b"/health" in data:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    connection.close()
                else:
                    dying.close()
                    connection.close()
                    return

        thread = threading.Thread(target=dies)
        thread.start()
        eventually(lambda: first.states()["instances engine-0"])
        assert first.edge.status("/v1/x", KEY, method="POST", body=b"{}") == 200
        thread.join(10)
    assert second.forwarded() == 1


def test_gateways_with_too_much_to_do_stay_in_service(pair: tuple[Gateway, Gateway]) -> None:
    for gateway in pair:
        gateway.litellm.health_takes = 6.5
    # Longer than three checks in a row.
    deadline = time.monotonic() + 22
    while time.monotonic() < deadline:
        assert [gateway.edge.status("/v1/x", KEY) for gateway in pair] == [200, 200]
        time.sleep(0.5)


def test_a_drained_gateway_sends_its_clients_to_another_one(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    result = first.edge.drain(state="drained", wait=5)
    assert result["idle"]
    assert not first.edge.healthy()
    assert first.edge.status("/health/local") == 503
    eventually(lambda: not second.states()["peers gateway-1"])
    assert [first.edge.status("/v1/x", KEY) for _ in range(5)] == [200] * 5
    assert (first.forwarded(), second.forwarded()) == (0, 5)
    first.edge.drain(state="undrained")
    assert first.edge.status("/v1/x", KEY) == 200
    assert first.forwarded() == 1


def test_a_request_never_goes_round(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    for gateway in pair:
        gateway.litellm.stop()
    eventually(lambda: not first.edge.healthy() and not second.edge.healthy())
    for gateway in pair:
        answer = gateway.edge.ask("/v1/x", KEY)
        assert (answer[0], answer[1]["retry-after"], error_of(answer)["code"]) == (503, "5", "unavailable")
    time.sleep(0.2)
    assert [len(gateway.edge.access_log()) for gateway in pair] == [1, 1]


def test_what_another_gateway_sends_is_answered_here_or_not_at_all(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    hop = {"X_Fleet_Hop": "gateway-2", "X_Fleet_Key": UPSTREAM}
    assert first.edge.status("/v1/x", KEY, **hop) == 200
    assert (first.forwarded(), second.forwarded()) == (1, 0)
    assert not [name for name in first.litellm.seen[0].headers if name in ("x-fleet-hop", "x-fleet-key")]
    first.edge.drain(state="drained", wait=5)
    assert first.edge.status("/v1/x", KEY, **hop) == 503
    assert second.forwarded() == 0


@pytest.mark.parametrize("shown", [{}, {"X_Fleet_Key": KEY}, {"X_Fleet_Key": "sk-wrong"}])
def test_only_a_gateway_is_believed_that_it_is_one(pair: tuple[Gateway, Gateway], shown: dict[str, str]) -> None:
    first, second = pair
    first.edge.drain(state="drained", wait=5)
    # A client that says that it is a gateway is served as any other.
    assert first.edge.status("/v1/x", KEY, X_Fleet_Hop="gateway-2", X_Fleet_Begun="2", **shown) == 200
    assert (first.forwarded(), second.forwarded()) == (0, 1)
    assert second.litellm.seen[0].headers["x-fleet-request"].endswith(".0")


def test_a_drain_waits_for_what_another_gateway_has_sent(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    first.edge.drain(state="drained", wait=5)
    thread = threading.Thread(target=first.edge.status, args=("/v1/slow/3", KEY))
    thread.start()
    eventually(lambda: second.forwarded() == 1)
    waiting = second.edge.drain(state="drained", instance="engine-0", wait=0.6)
    assert [request["instance"] for request in waiting["requests"]] == ["engine-0"]
    assert second.edge.drain(state="drained", instance="engine-0", wait=10)["idle"]
    thread.join()


def test_a_drain_names_the_clients_of_litellms_requests(pair: tuple[Gateway, Gateway]) -> None:
    first, _second = pair
    thread = threading.Thread(target=first.edge.status, args=("/v1/slow/3", KEY))
    thread.start()
    eventually(lambda: first.forwarded() == 1)
    result = first.edge.drain(state="drained", instance="engine-0", wait=0.2)
    assert [(one["client"], one["instance"]) for one in result["requests"]] == [("team-a", "engine-0")]
    assert first.edge.drain(state="drained", instance="engine-0", wait=10)["idle"]
    thread.join()


def test_the_log_has_the_process_and_those_that_gave_no_answer(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    assert first.edge.status("/v1/x", KEY) == 200
    assert first.edge.status("/v1/break/sk-a-key-in-a-path-0", KEY) == 502
    first.litellm.stop()
    assert first.edge.status("/v1/x", KEY) == 200
    second.litellm.stop()
    eventually(lambda: not first.edge.healthy())
    assert first.edge.status("/v1/x", KEY) == 503
    eventually(lambda: len(first.edge.access_log()) == 6)
    lines = [dict(word.partition("=")[::2] for word in line.split()) for line in first.edge.access_log()]
    assert [(line["client"], line["status"], line["instance"]) for line in lines] == [
        ("team-a", "200", "engine-0"),
        ("-", "502", "engine-0"),
        ("-", "502", "engine-0"),
        ("team-a", "502", "-"),
        ("team-a", "200", "gateway-2"),
        ("team-a", "503", "<NOSRV>"),
    ]
    assert len({line["request"] for line in lines[1:4]}) == 1
    assert {line["path"] for line in lines[1:4]} == {"/v1/break/sk-"}
    assert all(line[name].lstrip("-+").isdigit() for line in lines[:3] for name in ("queued_ms", "active", "queue"))


def test_a_drained_gateway_without_peers_answers_503(tmp_path: Path) -> None:
    with one_gateway("gateway-1", tmp_path / "1") as only:
        only.start()
        only.wait()
        assert only.edge.status("/v1/x", KEY) == 200
        only.edge.drain(state="drained", wait=5)
        answer = only.edge.ask("/v1/x", KEY)
        assert (answer[0], error_of(answer)["code"]) == (503, "draining")


@pytest.mark.parametrize(
    ("size", "limit", "status"),
    [(5_000, 10_000, 200), (10_001, 10_000, 413), (200_000, 200_000, 200), (300_000, 200_000, 413)],
)
def test_a_body_without_a_length_is_limited(tmp_path: Path, size: int, limit: int, status: int) -> None:
    # Also where a gateway has held the whole of it before it goes on.
    with one_gateway("gateway-1", tmp_path / "1") as only:
        only.start(edge_max_body_bytes=limit, edge_buffer_bytes=65536)
        only.wait()
        body = iter([b"x" * 1_000] * (size // 1_000) + [b"x" * (size % 1_000)])
        if IS_HAPROXY_2_4 and size > 65536:
            status = 411
        assert only.edge.status("/v1/x", KEY, method="POST", body=body) == status
        assert only.forwarded() == (1 if status == 200 else 0)


def test_a_reload_forgets_no_peer(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    first.litellm.stop()
    eventually(lambda: not first.states()["instances engine-0"])
    first.edge.reload()
    assert [first.edge.status("/v1/x", KEY) for _ in range(5)] == [200] * 5
    assert second.forwarded() == 5


# The way out


class Pools:
    """A gateway's edge as LiteLLM sees it, with two inference hosts' edges behind it."""

    def __init__(self, edge: Edge, hosts: list[Edge]) -> None:
        self.edge = edge
        self.hosts = hosts
        self.port = free_port()
        servers = [
            {"name": f"inference-{number}", "address": "127.0.0.1", "port": host.port, "tls": False}
            for number, host in enumerate(hosts, 1)
        ]
        edge.set_keys({KEY: "team-a"}, upstream_key=UPSTREAM)
        edge.start(edge_pools=[{"name": "qwen", "servers": servers}], edge_pools_port=self.port)
        eventually(lambda: set(self.up()) >= {"inference-1", "inference-2"})

    def up(self) -> list[str]:
        return [server.name for server in self.edge.servers() if server.backend == "pool_qwen" and server.up]

    def ask(self, path: str, key: str | None = HOST_KEY, **options: t.Any) -> tuple[int, dict[str, str], bytes]:
        asked = Edge.__new__(Edge)
        asked.port = self.port
        return asked.ask(path, key, **options)

    def status(self, path: str, **options: t.Any) -> int:
        return self.ask(path, **options)[0]


@pytest.fixture
def pools(tmp_path: Path, engines: list[Recorder]) -> t.Iterator[Pools]:
    with contextlib.ExitStack() as stack:
        places = [tmp_path / name for name in ("gateway", "1", "2")]
        for place in places:
            place.mkdir()
        hosts = [stack.enter_context(unstarted_edge(place, [engine])) for place, engine in zip(places[1:], engines)]
        for host in hosts:
            host.set_keys({UPSTREAM: "gateway"})
            host.start_and_wait()
        yield Pools(stack.enter_context(unstarted_edge(places[0], [])), hosts)


@pytest.mark.parametrize(
    ("tls_name", "authority", "status"),
    [
        ("gpu-1.internal", "its own", 200),
        # The certificate of another host, which the authority accepts as well.
        ("gpu-2.internal", "its own", 503),
        # By its address, which is not in it.
        ("", "its own", 503),
        ("gpu-1.internal", "another", 503),
        ("gpu-1.internal", "", 200),
    ],
)
def test_a_host_is_known_by_its_certificate_and_the_name_in_it(
    tmp_path: Path, engines: list[Recorder], tls_name: str, authority: str, status: int
) -> None:
    pem = certificate(tmp_path / "certificate", "DNS:gpu-1.internal")
    other = certificate(tmp_path / "other", "DNS:gpu-1.internal")
    port = free_port()
    with contextlib.ExitStack() as stack:
        for name in ("host", "gateway"):
            (tmp_path / name).mkdir()
        host = stack.enter_context(unstarted_edge(tmp_path / "host", engines[:1]))
        host.set_keys({UPSTREAM: "gateway"})
        host.start(edge_tls_certificate=str(pem))
        eventually(lambda: all(server.up for server in host.servers()))
        gateway = stack.enter_context(unstarted_edge(tmp_path / "gateway", []))
        gateway.set_keys({KEY: "team-a"}, upstream_key=UPSTREAM)
        server = {"name": "gpu-1", "address": "127.0.0.1", "port": host.port, "tls": True, "tls_name": tls_name}
        gateway.start(
            edge_pools=[{"name": "qwen", "servers": [server]}],
            edge_pools_port=port,
            edge_tls_ca={"its own": str(pem), "another": str(other), "": ""}[authority],
        )
        pool = [one for one in gateway.servers() if one.backend == "pool_qwen"]
        assert {one.name for one in pool} == {"gpu-1", "gpu-1.again"}
        asked = Edge.__new__(Edge)
        asked.port = port
        # Before its checks have failed twice, and after: no request goes to an unknown host.
        answers = [asked.ask("/qwen/v1/x", HOST_KEY)[0] for _ in range(3)]
        eventually(lambda: [one.up for one in gateway.servers() if one.name == "gpu-1"] == [status == 200])
        assert [*answers, asked.ask("/qwen/v1/x", HOST_KEY)[0]] == [status] * 4
        assert bool(engines[0].seen) == (status == 200)


def test_a_pool_gets_the_gateways_key_and_the_path_without_its_name(pools: Pools, engines: list[Recorder]) -> None:
    assert pools.status("/qwen/v1/x?a=1", method="POST", body=b"{}") == 200
    [seen] = [request for engine in engines for request in engine.seen]
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/x?a=1", b"{}")
    eventually(lambda: any("client=gateway" in line for host in pools.hosts for line in host.access_log()))


def test_only_who_has_the_hosts_own_key_uses_a_pool(pools: Pools, engines: list[Recorder]) -> None:
    for key in (None, KEY, UPSTREAM, "sk-wrong"):
        assert pools.ask("/qwen/v1/x", key)[0] == 401
    assert pools.status("/other/v1/x") == 404
    assert not [request for engine in engines for request in engine.seen]


def test_the_pools_are_on_the_loopback_interface_alone(pools: Pools) -> None:
    config = pools.edge.config.read_text()
    assert f"bind 127.0.0.1:{pools.port}" in config
    assert UPSTREAM not in config
    assert (pools.edge.maps / "upstream_key.map").stat().st_mode & 0o777 == 0o600


def test_another_key_is_shown_without_a_reload(pools: Pools) -> None:
    for host in pools.hosts:
        host.set_keys({UPSTREAM: "gateway", "sk-the-next-key-of-the-gateway-000000000000": "gateway"})
    done = pools.edge.set_keys({KEY: "team-a"}, upstream_key="sk-the-next-key-of-the-gateway-000000000000")
    assert [action.partition("…")[0] for action in done["actions"][1:]] == ["show the inference hosts the key sk-"]
    for host in pools.hosts:
        host.set_keys({"sk-the-next-key-of-the-gateway-000000000000": "gateway"})
    time.sleep(2.5)
    assert len(pools.up()) == 4
    assert [pools.status("/qwen/v1/x") for _ in range(10)] == [200] * 10


def test_a_drained_host_gets_nothing(pools: Pools, engines: list[Recorder]) -> None:
    pools.hosts[0].drain(state="lame_duck")
    eventually(lambda: "inference-1" not in pools.up())
    assert [pools.status("/qwen/v1/x") for _ in range(10)] == [200] * 10
    assert [len(engine.seen) for engine in engines] == [0, 10]


def test_a_host_that_refuses_the_gateways_key_gets_nothing(pools: Pools, engines: list[Recorder]) -> None:
    pools.hosts[0].set_keys({KEY: "somebody"})
    # From the first request on: another host is asked instead.
    answers = [pools.status("/qwen/v1/x", method="POST", body=b"{}") for _ in range(10)]
    assert set(answers) == ({200, 503} if IS_HAPROXY_2_4 else {200})
    eventually(lambda: "inference-1" not in pools.up())
    assert [pools.status("/qwen/v1/x", method="POST", body=b"{}") for _ in range(10)] == [200] * 10
    assert len(engines[0].seen) == 0


def test_a_host_whose_engine_fails_is_given_up_for_a_moment(pools: Pools, engines: list[Recorder]) -> None:
    assert [pools.status("/qwen/v1/status/500") for _ in range(6)] == [502] * 6
    # Whatever failed everywhere: others are served.
    assert [pools.status("/qwen/v1/x") for _ in range(6)] == [200] * 6


def test_a_host_with_too_much_to_do_is_no_fault_of_the_gateways(pools: Pools) -> None:
    host = pools.hosts[0]
    assert [host.status("/v1/status/429", key) for key in (UPSTREAM, KEY)] == [503, 401]
    host.set_keys({UPSTREAM: "gateway", KEY: "team-a"})
    answer = host.ask("/v1/status/429", UPSTREAM)
    assert (answer[0], answer[1]["retry-after"], error_of(answer)["code"]) == (503, "5", "engine_busy")
    # Another client gets the engine's answer.
    assert host.status("/v1/status/429", KEY) == 429


def test_a_body_that_does_not_fit_the_buffer_goes_through(pools: Pools) -> None:
    answer = pools.ask("/qwen/v1/x", method="POST", body=b"x" * 1_000_000)
    assert json.loads(answer[2]) == {"length": 1_000_000}


def test_without_hosts_there_is_a_clean_answer(pools: Pools) -> None:
    for host in pools.hosts:
        host.stop()
    eventually(lambda: not pools.up())
    began = time.monotonic()
    answer = pools.ask("/qwen/v1/x")
    assert (answer[0], answer[1]["retry-after"], error_of(answer)["code"]) == (503, "5", "unavailable")
    assert time.monotonic() - began < 1


def test_pools_are_forgotten_by_no_reload(pools: Pools, engines: list[Recorder]) -> None:
    pools.hosts[0].drain(state="lame_duck")
    eventually(lambda: not [name for name in pools.up() if name.startswith("inference-1")])
    pools.edge.reload()
    assert [pools.status("/qwen/v1/x") for _ in range(10)] == [200] * 10
    assert [len(engine.seen) for engine in engines] == [0, 10]
