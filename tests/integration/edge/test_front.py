"""A gateway without a process behind its edge: HAProxy finds the model, checks the client, and leads into the pools."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import EdgeDrain, Paths
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import AWS

from tests.certificates import certificate
from tests.integration.edge.conftest import (
    IS_HAPROXY_2_4,
    KEY,
    Answer,
    Edge,
    error_of,
    eventually,
    free_port,
    unstarted_edge,
)
from tests.integration.edge.engine import Recorder

pytestmark = pytest.mark.skipif(IS_HAPROXY_2_4, reason="refused at preflight: HAProxy 2.4 has no filters in Lua")

UPSTREAM = "sk-what-the-gateway-shows-to-the-hosts-00000000"
#: Clients with limits, by name.
KEYS = {name: f"sk-the-key-of-{name}-for-tests-only-000000000" for name in ("alpha", "one", "few", "minute", "two")}
LIMITS: dict[str, dict[str, t.Any]] = {
    "alpha": {"models": ["org/Alpha"]},
    "one": {"max_concurrent": 2},
    "minute": {"requests_per_minute": 200},
    "two": {"models": ["org/Alpha", "beta"]},
}
BREAKS = ("break", "status/500", "status/502", "status/504")


class Front:
    """Gateways of this kind, and the hosts behind: two for the model org/Alpha, one for the model beta."""

    def __init__(
        self, stack: contextlib.ExitStack, place: Path, gateways: int, hosts: int = 3, certificate: str = ""
    ) -> None:
        self.certificate = certificate
        self.engines = [Recorder() for _ in range(hosts)]
        for engine in self.engines:
            stack.callback(engine.stop)
        self.hosts = [self._edge(stack, place / f"host-{n}", [engine]) for n, engine in enumerate(self.engines)]
        for host in self.hosts:
            host.set_keys({UPSTREAM: "gateway"})
            host.start_and_wait()
        self.gateways = [self._edge(stack, place / f"gateway-{n}", []) for n in range(gateways)]
        self.counters = [free_port() for _ in self.gateways]
        for number, gateway in enumerate(self.gateways):
            keys = {KEY: "team-a", UPSTREAM: "gateway", **{key: name for name, key in KEYS.items()}}
            gateway.set_keys(keys, LIMITS, upstream_key=UPSTREAM)
            gateway.start(**self.variables(number))
        for gateway in self.gateways:
            eventually(lambda gateway=gateway: all(server.up for server in gateway.servers()))  # type: ignore[misc]
        # HAProxy tries again after some seconds where the other one was not there yet.
        eventually(lambda: all(self.are_connected(gateway) for gateway in self.gateways), 30)

    @staticmethod
    def are_connected(gateway: Edge) -> bool:
        """Whether the gateway and all others tell each other what their clients have had."""
        remote = [line for line in haproxy.ask(gateway.socket, "show peers").splitlines() if "(remote," in line]
        return all("last_status=ESTA" in line for line in remote)

    def variables(self, number: int) -> dict[str, t.Any]:
        """What the role of a gateway gets."""
        others = [n for n in range(len(self.gateways)) if n != number]
        tls = {"tls": bool(self.certificate), "tls_name": "gateway.internal"}
        service = {
            "port": self.gateways[number].port,
            "kind": "pools",
            "served_name": "org/Alpha",
            "instances": [],
            "models": [{"name": "org/Alpha", "pool": "alpha"}, {"name": "beta", "pool": "beta"}],
            "peers": [
                {"name": f"gateway-{n}", "address": "127.0.0.1", "port": self.gateways[n].port, **tls} for n in others
            ],
            "counters": {
                "name": f"gateway-{number}",
                "port": self.counters[number],
                "local_port": free_port(),
                "peers": [
                    {"name": f"gateway-{n}", "address": "127.0.0.1", "port": self.counters[n], **tls} for n in others
                ],
            },
        }
        servers = [
            {"name": f"inference-{n}", "address": "127.0.0.1", "port": host.port} for n, host in enumerate(self.hosts)
        ]
        return {
            "edge_services": [service],
            "edge_pools": [{"name": "alpha", "servers": servers[:-1]}, {"name": "beta", "servers": servers[-1:]}],
            "edge_pools_port": free_port(),
            "inventory_hostname": f"gateway-{number}",
            "edge_tls_certificate": self.certificate,
            "edge_tls_ca": self.certificate,
        }

    @staticmethod
    def _edge(stack: contextlib.ExitStack, place: Path, engines: list[Recorder]) -> Edge:
        place.mkdir()
        return stack.enter_context(unstarted_edge(place, engines))

    def ask(self, body: t.Any, key: str = KEY, path: str = "/v1/x", gateway: int = 0, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.gateways[gateway].ask(path, key, method="POST", body=data, **headers)

    def asked(self) -> list[int]:
        """The requests that each engine got."""
        return [len(engine.seen) for engine in self.engines]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Front]:
    with contextlib.ExitStack() as stack:
        yield Front(stack, tmp_path_factory.mktemp("front"), gateways=2)


@pytest.fixture
def front(running: Front) -> Front:
    """The same for all tests here, with everything repaired."""
    for engine in running.engines:
        engine.seen.clear()
        engine.breaks = False
    for gateway in running.gateways:
        eventually(lambda gateway=gateway: all(server.up for server in gateway.servers()))  # type: ignore[misc]
    return running


def chosen(front: Front) -> list[str]:
    """The models of the pools that were asked, and that no more than a pool's path was changed."""
    seen = [
        ("beta" if n == 2 else "alpha", request) for n, engine in enumerate(front.engines) for request in engine.seen
    ]
    assert all(request.path == "/v1/x" for _name, request in seen)
    return [name for name, _request in seen]


PADDING = "x" * 300_000


@pytest.mark.parametrize("name", ["org/Alpha", "beta"])
@pytest.mark.parametrize(
    "place",
    [
        {"model": "NAME", "messages": [{"role": "user", "content": "model"}]},
        {"messages": [{"role": "user", "content": '{"model": "other"}'}], "model": "NAME"},
        {"metadata": {"model": "other"}, "model": "NAME", "stream": True},
        {"model": "NAME", "messages": [{"role": "user", "content": PADDING}]},
    ],
)
def test_the_model_is_found_in_the_body(front: Front, name: str, place: t.Any) -> None:
    body = json.dumps(place).replace("NAME", name).encode()
    assert front.ask(body)[0] == 200
    assert chosen(front) == [name.removeprefix("org/").lower()]
    # Nothing of it is changed.
    [seen] = [request for engine in front.engines for request in engine.seen]
    assert seen.body == body


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [("beta", 200, ""), ("org/Alpha", 200, ""), ("gamma", 404, "model_not_found"), (None, 400, "model_required")],
)
@pytest.mark.parametrize("body", [b'{"messages": ["' + PADDING.encode() + b'"], "model": "beta"}', b"{}"])
def test_what_the_buffer_does_not_show_is_in_a_header(
    front: Front, body: bytes, header: str | None, status: int, code: str
) -> None:
    headers = {"X_Model": header} if header else {}
    answer = front.gateways[0].ask("/v1/x", KEY, method="POST", body=body, **headers)
    assert answer[0] == status
    if code:
        assert (error_of(answer)["code"], front.asked()) == (code, [0, 0, 0])
        if status == 400:
            assert "X-Model: NAME" in error_of(answer)["message"]
    else:
        assert chosen(front) == ["beta" if header == "beta" else "alpha"]
        assert not any("x-model" in request.headers for engine in front.engines for request in engine.seen)


def test_the_body_counts_more_than_the_header(front: Front) -> None:
    assert front.ask({"model": "beta"}, X_Model="org/Alpha")[0] == 200
    assert chosen(front) == ["beta"]


def test_a_client_with_one_model_need_not_name_it(front: Front) -> None:
    assert front.ask({}, KEYS["alpha"])[0] == 200
    assert chosen(front) == ["alpha"]
    assert error_of(front.ask({}, KEYS["two"]))["code"] == "model_required"


@pytest.mark.parametrize(
    ("body", "key", "status", "code"),
    [
        ({"model": "gamma"}, KEY, 404, "model_not_found"),
        ({"model": "beta"}, KEYS["alpha"], 403, "model_not_allowed"),
        ({"model": "gamma"}, KEYS["alpha"], 403, "model_not_allowed"),
        ({"model": 5}, KEY, 400, "bad_request"),
        ({"model": ["beta"]}, KEY, 400, "bad_request"),
        ({"model": None}, KEY, 400, "bad_request"),
        (b'{"model": "beta", "model": "org/Alpha"}', KEY, 400, "bad_request"),
        (b"[]", KEY, 400, "bad_request"),
        (b"model=beta", KEY, 400, "bad_request"),
        (b'{"model": "be', KEY, 400, "model_required"),
        (b"\x1f\x8b\x08\x00gzip", KEY, 400, "bad_request"),
    ],
)
def test_nothing_is_guessed(front: Front, body: t.Any, key: str, status: int, code: str) -> None:
    answer = front.ask(body, key, Content_Type="application/json")
    assert (answer[0], error_of(answer)["code"], front.asked()) == (status, code, [0, 0, 0])


def models_of(answer: Answer) -> list[str]:
    assert answer[0] == 200
    document = json.loads(answer[2])
    assert document["object"] == "list"
    assert all({"id", "object", "created", "owned_by"} == set(one) for one in document["data"])
    return [one["id"] for one in document["data"]]


def test_the_list_has_the_models_that_the_client_may_use(front: Front) -> None:
    edge = front.gateways[0]
    assert models_of(edge.ask("/v1/models", KEY)) == ["org/Alpha", "beta"]
    assert models_of(edge.ask("/v1/models/", KEYS["two"])) == ["org/Alpha", "beta"]
    assert models_of(edge.ask("/v1/models", KEYS["alpha"])) == ["org/Alpha"]
    for path in ("/v1/models/org/Alpha", "/v1/models/org%2FAlpha"):
        answer = edge.ask(path, KEYS["alpha"])
        assert (answer[0], json.loads(answer[2])["id"]) == (200, "org/Alpha")
    for name, key in (("beta", KEYS["alpha"]), ("gamma", KEY)):
        answer = edge.ask(f"/v1/models/{name}", key)
        assert (answer[0], error_of(answer)["code"]) == (404, "model_not_found")
    assert front.asked() == [0, 0, 0]


def test_a_request_without_a_body_goes_where_the_header_says(front: Front) -> None:
    edge = front.gateways[0]
    assert error_of(edge.ask("/v1/x", KEY))["code"] == "model_required"
    assert edge.status("/v1/x", KEY, X_Model="beta") == 200
    assert chosen(front) == ["beta"]


def test_hosts_see_the_gateways_key_and_no_clients(front: Front) -> None:
    assert front.ask({"model": "beta"}, Cookie="a=b", X_Fleet_Hop="x")[0] == 200
    [seen] = front.engines[2].seen
    assert KEY not in str(seen.headers)
    assert UPSTREAM not in front.gateways[0].config.read_text()
    eventually(lambda: any("client=gateway" in line for line in front.hosts[2].access_log()))


def test_the_log_has_the_client_and_the_host(front: Front) -> None:
    edge = front.gateways[0]
    before = len(edge.access_log())
    assert front.ask({"model": "beta"})[0] == 200
    assert front.ask({"model": "beta"}, path="/v1/status/500")[0] == 502
    eventually(lambda: len(edge.access_log()) >= before + 2)
    lines = [dict(word.partition("=")[::2] for word in line.split()) for line in edge.access_log()[before:]]
    assert [(line["client"], line["path"], line["status"], line["instance"]) for line in lines] == [
        ("team-a", "/v1/x", "200", "inference-2"),
        ("team-a", "/v1/status/500", "502", "inference-2"),
    ]


def test_the_log_has_what_an_answer_used(front: Front) -> None:
    edge = front.gateways[0]
    before = len(edge.access_log())
    # The engine says what it is asked to say.
    answer = {"model": "beta", "object": "chat.completion", "usage": {"prompt_tokens": 12, "completion_tokens": 3}}
    assert front.ask(answer, path="/v1/says/200", Content_Type="application/json")[0] == 200
    eventually(lambda: len(edge.access_log()) > before)
    line = dict(word.partition("=")[::2] for word in edge.access_log()[before].split())
    assert (line["client"], line["model"], line["prompt"], line["completion"]) == ("team-a", "beta", "12", "3")


# Limits


def test_a_client_has_its_share_of_requests_in_flight_at_each_gateway(front: Front) -> None:
    with contextlib.ExitStack() as stack:
        for gateway in (0, 1):
            thread = threading.Thread(
                target=front.ask, args=({"model": "beta"}, KEYS["one"], "/v1/slow/2", gateway), daemon=True
            )
            thread.start()
            stack.callback(thread.join)
        eventually(lambda: len(front.engines[2].seen) == 2)
        for gateway in (0, 1):
            answer = front.ask({"model": "beta"}, KEYS["one"], gateway=gateway)
            assert (answer[0], error_of(answer)["code"]) == (429, "concurrency_limit_exceeded")


def test_requests_of_a_minute_are_summed_over_the_gateways(front: Front) -> None:
    passed = []
    lock = threading.Lock()

    def hammer(gateway: int) -> None:
        for _ in range(100):
            answer = front.ask({"model": "org/Alpha"}, KEYS["minute"], gateway=gateway)
            with lock:
                passed.append(answer[0])
            assert answer[0] == 200 or error_of(answer)["code"] == "rate_limit_exceeded"

    threads = [threading.Thread(target=hammer, args=(number % 2,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 800
    assert 200 <= passed.count(200) <= 210
    # Another client is not affected, and a refused request reaches no host.
    assert front.ask({"model": "beta"})[0] == 200
    assert sum(front.asked()) == passed.count(200) + 1


def test_a_reload_forgets_no_limit(front: Front) -> None:
    gateway = front.gateways[1]
    gateway.reload()
    eventually(lambda: "key=minute@gateway-1" in haproxy.ask(gateway.socket, "show table clients"))
    assert error_of(front.ask({"model": "beta"}, KEYS["minute"], gateway=1))["code"] == "rate_limit_exceeded"


def test_the_counters_are_for_gateways_alone(front: Front) -> None:
    answers = {}
    for source in ("127.0.0.1", "127.0.0.2"):
        address = ("127.0.0.1", front.counters[0])
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(ConnectionError))
            connection = stack.enter_context(socket.create_connection(address, 5, (source, 0)))
            connection.sendall(b"HAProxyS 2.1\nnobody\nnobody 1 1\n")
            answers[source] = connection.recv(100)
    # HAProxy knows no such gateway; the other address does not get so far.
    assert answers["127.0.0.1"].startswith(b"50")
    assert not answers.get("127.0.0.2")


# Retries


@pytest.mark.parametrize("how", BREAKS)
def test_no_request_meets_more_than_two_engines(front: Front, how: str) -> None:
    answer = front.ask({"model": "org/Alpha"}, path=f"/v1/{how}")
    assert (answer[0], error_of(answer)["code"], answer[1]["x-should-retry"]) == (502, "engine_failed", "false")
    assert front.asked() == [1, 1, 0]


@pytest.mark.parametrize("fault", ["breaks", "killed", "401", "429", "drained"])
def test_a_host_that_fails_loses_no_request(front: Front, fault: str) -> None:
    engine, host = front.engines[0], front.hosts[0]
    key = "sk-another-store-0000000000000000000000000000"
    if fault == "breaks":
        engine.breaks = True
    elif fault == "killed":
        engine.stop()
    elif fault == "401":
        host.set_keys({key: "gateway"})
    elif fault == "429":
        engine.refuses = 429
    else:
        host.drain(state="drained", wait=5)
    try:
        answers = [front.ask({"model": "org/Alpha"}, gateway=n % 2)[0] for n in range(60)]
    finally:
        engine.refuses = 0
        if fault == "killed":
            front.engines[0] = Recorder(engine.port)
        elif fault == "401":
            host.set_keys({UPSTREAM: "gateway"})
        elif fault == "drained":
            host.drain(state="undrained")
    assert answers == [200] * 60


def test_without_hosts_there_is_a_clean_answer(front: Front) -> None:
    front.hosts[2].drain(state="lame_duck")
    try:
        eventually(lambda: not [one for one in front.gateways[0].servers() if one.backend == "pool_beta" and one.up])
        answer = front.ask({"model": "beta"})
        assert (answer[0], answer[1]["retry-after"], error_of(answer)["code"]) == (503, "5", "unavailable")
        # The other model is served, so the gateway is healthy.
        assert front.gateways[0].healthy()
    finally:
        front.hosts[2].drain(state="undrained")


# Several gateways


def test_a_drained_gateway_sends_its_clients_to_another_one(front: Front) -> None:
    first, second = front.gateways
    first.drain(state="drained", wait=5)
    try:
        assert first.status("/health") == 503
        assert front.ask({"model": "beta"})[0] == 200
        assert models_of(first.ask("/v1/models", KEYS["alpha"])) == ["org/Alpha"]
        before = len(second.access_log())
        assert front.ask({}, KEYS["alpha"])[0] == 200
        eventually(lambda: len(second.access_log()) > before)
    finally:
        first.drain(state="undrained")


def test_a_gateway_is_back_when_nothing_is_announced_any_more(front: Front) -> None:
    gateway = front.gateways[0]
    paths = Paths(
        str(gateway.config),
        str(gateway.maps / "drain.map"),
        str(gateway.drains),
        gateway.socket,
        gateway.master_socket,
    )
    EdgeDrain(paths, AWS, "an instance retirement", check=False).announce(["event-1"], 0)
    assert gateway.status("/health") == 503
    assert EdgeDrain(paths, AWS, "", check=False).withdraw()
    assert gateway.healthy()


def test_gateways_with_certificates_tell_each_other_nothing_in_the_clear(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        # It ends only when both are connected.
        front = Front(stack, tmp_path, 2, 2, str(certificate(tmp_path / "pem", "DNS:gateway.internal")))
        with socket.create_connection(("127.0.0.1", front.counters[0]), 5) as connection:
            connection.sendall(b"HAProxyS 2.1\nnobody\nnobody 1 1\n")
            assert not connection.recv(100).startswith(b"50")


def test_a_drain_waits_for_the_requests_in_the_pools(front: Front) -> None:
    thread = threading.Thread(target=front.ask, args=({"model": "beta"}, KEY, "/v1/slow/2"))
    thread.start()
    eventually(lambda: len(front.engines[2].seen) == 1)
    try:
        result = front.gateways[0].drain(state="drained", wait=0.2)
        assert [one["client"] for one in result["requests"]] == ["team-a"]
        assert front.gateways[0].drain(state="drained", wait=10)["idle"]
    finally:
        front.gateways[0].drain(state="undrained")
        thread.join()
