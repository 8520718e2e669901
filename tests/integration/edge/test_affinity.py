"""Which instance, and at a gateway which host, a request is sent to. With a real HAProxy."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import http.client
import http.server
import json
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy

from tests.fakes.engine import MODEL, FakeEngine, tokens_of
from tests.fakes.prefix_cache import PrefixCache
from tests.integration.edge.conftest import (
    ENGINE_KEY,
    IS_HAPROXY_2_4,
    KEY,
    ROLE,
    Edge,
    Engine,
    eventually,
    free_port,
    unstarted_edge,
)
from tests.integration.edge.engine import Recorder

pytestmark = pytest.mark.skipif(IS_HAPROXY_2_4, reason="affinity begins with HAProxy 2.5")

CHAT = "/v1/chat/completions"
UPSTREAM = "sk-what-the-gateway-shows-to-the-hosts-00000000"
OTHER_KEY = "sk-the-key-of-team-b-for-tests-only-000000000"
SESSIONS = [f"session {number}" for number in range(200)]

Homes = dict[str, int]


def body_of(session: str) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": session}]}).encode()


def session_of(body: bytes) -> str:
    return str(json.loads(body)["messages"][0]["content"])


class Client:
    """One connection."""

    def __init__(self, port: int, key: str = KEY) -> None:
        self._key = key
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, session: str, path: str = CHAT, method: str = "POST", **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = body_of(session) if method == "POST" else None
        self._connection.request(method, path, body, {"Authorization": f"Bearer {self._key}", **named})
        response = self._connection.getresponse()
        response.read()
        return response.status


def homes(port: int, engines: list[Recorder], sessions: t.Sequence[str] = SESSIONS, key: str = KEY) -> Homes:
    """The engine that each session meets. One after the other, so that none has more to do than another."""
    for engine in engines:
        engine.seen.clear()
    client = Client(port, key)
    assert [client.ask(session) for session in sessions] == [200] * len(sessions)
    found = {session_of(seen.body): number for number, engine in enumerate(engines) for seen in engine.seen}
    assert sum(len(engine.seen) for engine in engines) == len(found) == len(sessions)
    return found


def shares(found: Homes) -> list[int]:
    """How many sessions each engine has, the most first."""
    return sorted(collections.Counter(found.values()).values(), reverse=True)


def moved(before: Homes, after: Homes) -> set[tuple[int, int]]:
    return {(before[session], after[session]) for session in before if before[session] != after[session]}


@contextlib.contextmanager
def held(port: int, engines: list[Recorder], count: int, session: str = "") -> t.Iterator[list[int]]:
    """So many requests in flight, one sent after the other, of a session or of none: how many each engine has."""
    aborted = sum(engine.aborted for engine in engines)
    for engine in engines:
        engine.seen.clear()
    headers = {"Authorization": f"Bearer {KEY}", **({"X-Session-ID": session} if session else {})}
    with contextlib.ExitStack() as stack:
        for number in range(1, count + 1):
            connection = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)))
            connection.request("POST", "/v1/slow/60", b"{}", headers)
            eventually(lambda number=number: sum(len(engine.seen) for engine in engines) == number)  # type: ignore[misc]
        yield [len(engine.seen) for engine in engines]
    eventually(lambda: sum(engine.aborted for engine in engines) >= aborted + count)


@contextlib.contextmanager
def some_engines(count: int) -> t.Iterator[list[Recorder]]:
    engines = [Recorder() for _ in range(count)]
    try:
        yield engines
    finally:
        for engine in engines:
            engine.stop()


@contextlib.contextmanager
def caching_engines(count: int, capacity: int) -> t.Iterator[list[FakeEngine]]:
    """Engines with a prefix cache of so many tokens."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(FakeEngine(cache=PrefixCache(capacity), first_token=0.01, remember=False))
            for _ in range(count)
        ]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[tuple[Edge, list[Recorder]]]:
    with some_engines(4) as engines, unstarted_edge(tmp_path_factory.mktemp("edge"), engines) as edge:
        edge.set_keys({KEY: "team-a", OTHER_KEY: "team-b", UPSTREAM: "gateway"})
        yield edge.start_and_wait(edge_max_connections=500), engines


@pytest.fixture
def host(running: tuple[Edge, list[Recorder]]) -> Edge:
    """A host with four instances, for tests that leave it as it was."""
    edge, _engines = running
    assert all(server.up and not server.draining for server in edge.servers())
    return edge


@pytest.fixture
def engines(running: tuple[Edge, list[Recorder]]) -> list[Recorder]:
    for engine in running[1]:
        engine.seen.clear()
    return running[1]


# Within a host


def test_a_session_stays_with_its_instance_and_sessions_are_shared_out(host: Edge, engines: list[Recorder]) -> None:
    found = homes(host.port, engines)
    assert homes(host.port, engines) == found
    assert len(shares(found)) == 4
    assert shares(found)[0] <= 1.25 * len(SESSIONS) / 4
    # Another client's are shared out in another way.
    others = homes(host.port, engines, key=OTHER_KEY)
    assert 0.15 < sum(found[session] == others[session] for session in SESSIONS) / len(SESSIONS) < 0.35


def test_what_has_no_prompt_goes_to_the_server_with_the_fewest_requests(host: Edge, engines: list[Recorder]) -> None:
    client = Client(host.port)
    for _ in range(20):
        assert client.ask("", "/v1/models", "GET", X_Session_ID="one") == 200
        assert client.ask("the same", "/v1/embeddings") == 200
    assert [len(engine.seen) for engine in engines] == [10] * 4


def test_an_instance_that_leaves_moves_its_own_sessions_and_gets_them_back(host: Edge, engines: list[Recorder]) -> None:
    before = homes(host.port, engines)
    engines[2].healthy = False
    eventually(lambda: not host.servers()[2].up)
    try:
        after = homes(host.port, engines)
        # To all others, each time to the same one.
        assert moved(before, after) == {(2, 0), (2, 1), (2, 3)}
        assert homes(host.port, engines) == after
    finally:
        engines[2].healthy = True
        eventually(lambda: host.servers()[2].up)
    assert homes(host.port, engines) == before


def test_a_drained_instance_is_not_in_its_sessions_way(host: Edge, engines: list[Recorder]) -> None:
    before = homes(host.port, engines)
    for name in ("engine-1", "engine-3"):
        host.drain(state="drained", instance=name, wait=5)
    try:
        after = homes(host.port, engines)
        assert moved(before, after) == {(1, 0), (1, 2), (3, 0), (3, 2)}
        assert homes(host.port, engines) == after
        host.reload()
        assert homes(host.port, engines) == after
    finally:
        for name in ("engine-1", "engine-3"):
            host.drain(state="undrained", instance=name)
    assert homes(host.port, engines) == before


def test_an_instance_that_has_just_died_loses_no_request(host: Edge, engines: list[Recorder]) -> None:
    before = homes(host.port, engines)
    port = engines[0].port
    engines[0].stop()
    try:
        # From the first request on, before a check could have noticed.
        client = Client(host.port)
        own = [session for session in SESSIONS if before[session] == 0][:20]
        assert [client.ask(session) for session in own] == [200] * 20
    finally:
        engines[0] = Recorder(port)
        eventually(lambda: all(server.up for server in host.servers()))


def test_few_requests_at_once_stay_together(host: Edge, engines: list[Recorder]) -> None:
    with held(host.port, engines, 4, "one") as had:
        assert sorted(had) == [0, 0, 0, 4]


def test_many_at_once_are_shared_with_the_same_others(host: Edge, engines: list[Recorder]) -> None:
    with held(host.port, engines, 8, "one") as first:
        assert sorted(first) == [0, 0, 1, 7]
    with held(host.port, engines, 8, "one") as again:
        assert again == first
    for count, most in ((16, 10), (40, 19)):
        with held(host.port, engines, count, "one") as had:
            # Half as much again as the mean, and four.
            assert max(had) == most, had


def remembering(place: Path, seconds: float) -> dict[str, str]:
    """The variables of an edge whose averages go back no further than this."""
    program = (ROLE / "files" / "home.lua").read_text()
    assert program.count("\nlocal MEMORY = 60\n") == 1
    path = place / "home.lua"
    path.write_text(program.replace("\nlocal MEMORY = 60\n", f"\nlocal MEMORY = {seconds}\n"))
    return {"__edge_home_program": str(path)}


def look_for(edge: Edge, seconds: float) -> None:
    """Send requests, with each of which the edge looks at what its instances have to do: each of its threads."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert Client(edge.port).ask("a look") == 200
        time.sleep(0.02)


def test_an_instance_with_too_much_leaves_some_of_its_sessions_and_always_the_same(
    tmp_path: Path, engines: list[Recorder]
) -> None:
    with unstarted_edge(tmp_path, engines) as edge:
        edge.start_and_wait(**remembering(tmp_path, 0.5))
        before = homes(edge.port, engines)
        others = ("engine-0", "engine-2", "engine-3")
        with held(edge.port, engines, 28) as had:
            assert had == [7, 7, 7, 7]
            for name in others:
                edge.drain(state="drained", instance=name, wait=0)
            with held(edge.port, engines, 3) as more:
                assert more == [0, 3, 0, 0]
                for name in others:
                    edge.drain(state="undrained", instance=name)
                # A fourth more than the mean, and so more than half of its sessions leave.
                look_for(edge, 2)
                during = homes(edge.port, engines)
                assert {old for old, _new in moved(before, during)} == {1}
                assert {new for _old, new in moved(before, during)} == {0, 2, 3}
                own = [session for session in SESSIONS if before[session] == 1]
                assert 0.3 < sum(during[session] != 1 for session in own) / len(own) < 0.85
                assert homes(edge.port, engines) == during
        look_for(edge, 2)
        assert homes(edge.port, engines) == before


def test_an_instance_that_returns_drives_no_sessions_from_the_others(tmp_path: Path, engines: list[Recorder]) -> None:
    with unstarted_edge(tmp_path, engines) as edge:
        edge.start_and_wait(**remembering(tmp_path, 3))
        few = SESSIONS[:40]
        before = homes(edge.port, engines, few)
        edge.drain(state="drained", instance="engine-3", wait=5)
        with held(edge.port, engines, 30) as had:
            assert had == [10, 10, 10, 0]
            look_for(edge, 6)
            edge.drain(state="undrained", instance="engine-3")
            after = homes(edge.port, engines, few)
        # With an average of zero it would be two thirds of theirs.
        assert sum(before[session] != after[session] for session in few) / len(few) < 0.35


def test_a_full_instance_is_passed_over_and_what_is_too_much_waits_for_any(
    tmp_path: Path, engines: list[Recorder]
) -> None:
    with unstarted_edge(tmp_path, engines) as edge, concurrent.futures.ThreadPoolExecutor(4) as pool:
        edge.start_and_wait(edge_instance_max_requests=2)

        def queued() -> dict[str, int]:
            rows = haproxy.workers(edge.socket, edge.master_socket)[0].statistics()
            return {row["svname"]: int(row["qcur"]) for row in rows if row["pxname"] == f"instances_{edge.port}"}

        with held(edge.port, engines, 8, "one") as had:
            assert had == [2] * 4
            waiting = [pool.submit(Client(edge.port).ask, "", X_Session_ID="one") for _ in range(4)]
            eventually(lambda: queued()["BACKEND"] == 4)
            # None waits for its own instance.
            assert {number for name, number in queued().items() if name != "BACKEND"} == {0}
        assert [one.result() for one in waiting] == [200] * 4


def services(port: int, engines: dict[str, Recorder], **weights: int) -> list[dict[str, t.Any]]:
    instances = [
        {"name": name, "port": engine.port, "weight": weights.get(name.replace("-", "_"), 1)}
        for name, engine in engines.items()
    ]
    return [{"port": port, "instances": instances}]


def test_names_decide_and_not_places(tmp_path: Path, engines: list[Recorder]) -> None:
    with some_engines(1) as [new], unstarted_edge(tmp_path, engines) as edge:
        everyone = [*engines, new]
        named = {f"engine-{number}": engine for number, engine in enumerate(engines)}
        edge.start_and_wait(edge_services=services(edge.port, named))
        before = homes(edge.port, everyone)
        edge.configure(edge_services=services(edge.port, {"engine-00": new, **dict(reversed(named.items()))}))
        edge.reload()
        eventually(lambda: all(server.up for server in edge.servers()))
        after = homes(edge.port, everyone)
        # The new one gets a fifth, and nothing else moves.
        assert moved(before, after) == {(number, 4) for number in range(4)}
        assert 0.12 < sum(home == 4 for home in after.values()) / len(SESSIONS) < 0.28


def test_an_instance_gets_as_much_as_it_weighs(tmp_path: Path, engines: list[Recorder]) -> None:
    with unstarted_edge(tmp_path, engines) as edge:
        pair = {f"engine-{number}": engines[number] for number in range(2)}
        edge.start_and_wait(edge_services=services(edge.port, pair, engine_1=3))
        found = homes(edge.port, engines)
        assert 0.68 < sum(home == 1 for home in found.values()) / len(SESSIONS) < 0.82
        # So does what has no affinity, and so does what is too much for one.
        with held(edge.port, engines, 16) as had:
            assert had[:2] == [4, 12]
        with held(edge.port, engines, 24, "one") as had:
            assert had[1] >= 15, had


@pytest.mark.parametrize(("affinity", "instances"), [("client", 1), ("none", 4)])
def test_there_are_other_ways(tmp_path: Path, engines: list[Recorder], affinity: str, instances: int) -> None:
    with unstarted_edge(tmp_path, engines) as edge:
        edge.start_and_wait(edge_affinity=affinity)
        found = homes(edge.port, engines, SESSIONS[:20])
        assert len(shares(found)) == instances


def test_a_host_believes_gateways_alone_what_a_request_is_known_by(host: Edge, engines: list[Recorder]) -> None:
    given = {"X_Fleet_Affinity": "0123456789abcdef"}
    for key, instances in ((KEY, 4), (UPSTREAM, 1)):
        for engine in engines:
            engine.seen.clear()
        client = Client(host.port, key)
        assert {client.ask(session, **given) for session in SESSIONS[:40]} == {200}
        assert sum(bool(engine.seen) for engine in engines) == instances
        names = {name.lower() for engine in engines for seen in engine.seen for name in seen.headers}
        # What the edge says to its own engine.
        assert {name for name in names if name.startswith("x-fleet")} == {"x-fleet-usage"}
    for engine in engines:
        engine.seen.clear()
    # Not in its form: the body decides.
    assert {client.ask(session, X_Fleet_Affinity="0") for session in SESSIONS[:40]} == {200}
    assert sum(bool(engine.seen) for engine in engines) == 4


# From gateways to hosts and their instances


class Rewriter:
    """The stand-in for LiteLLM: sends bodies of its own to its gateway's pool, and passes on what the edge says."""

    def __init__(self, pools: int) -> None:
        rewriter = self
        self.pools = pools

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 - the base class calls it so
                return

            def do_GET(self) -> None:
                self._send(200)

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = {name: value for name, value in self.headers.items() if name.lower().startswith("x-fleet-")}
                connection = http.client.HTTPConnection("127.0.0.1", rewriter.pools, timeout=30)
                rewritten = json.dumps({"extra": 1, **asked, "messages": [*asked["messages"]], "user": "x"})
                headers = {**said, "Authorization": f"Bearer {ENGINE_KEY}"}
                connection.request("POST", f"/qwen{self.path}", rewritten, headers)
                response = connection.getresponse()
                answer = response.read()
                connection.close()
                self._send(response.status, answer)

            def _send(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


E = t.TypeVar("E", bound=Engine)


class Fleet(t.Generic[E]):
    """Two gateways, and hosts with instances.

    Args:
        stack: ends them.
        place: a directory.
        hosts: the instances of each host.
    """

    def __init__(self, stack: contextlib.ExitStack, place: Path, hosts: dict[str, list[E]]) -> None:
        self.engines: list[E] = []
        self.hosts: dict[str, Edge] = {}
        for name, own in hosts.items():
            self.engines += own
            edge = self.hosts[name] = self._edge(stack, place / name, own)
            edge.set_keys({UPSTREAM: "gateway", KEY: "team-a"})
            edge.start_and_wait()
        self.gateways = [self._gateway(stack, place / f"gateway-{number}", number) for number in range(2)]

    @staticmethod
    def _edge(stack: contextlib.ExitStack, place: Path, engines: t.Sequence[Engine]) -> Edge:
        place.mkdir()
        return stack.enter_context(unstarted_edge(place, engines))

    def _gateway(self, stack: contextlib.ExitStack, place: Path, number: int) -> Edge:
        edge = self._edge(stack, place, [])
        edge.set_keys({KEY: "team-a", OTHER_KEY: "team-b", UPSTREAM: "gateway"}, upstream_key=UPSTREAM)
        litellm = Rewriter(free_port())
        stack.callback(litellm.stop)
        servers = [
            {"name": name, "address": "127.0.0.1", "port": host.port} for name, host in sorted(self.hosts.items())
        ]
        # In which order a gateway knows them is nothing that others agree with it on.
        pool = {"name": "qwen", "servers": servers[::-1] if number else servers}
        instances = [{"name": "litellm-0", "port": litellm.port}]
        service = {"port": edge.port, "kind": "gateway", "instances": instances, "peers": []}
        edge.start(edge_services=[service], edge_pools=[pool], edge_pools_port=litellm.pools)
        eventually(lambda: all(server.up for server in edge.servers()))
        return edge

    def of(self, host: str) -> set[int]:
        """Which of the engines are the host's."""
        ports = self.hosts[host].instance_ports
        return {number for number, engine in enumerate(self.engines) if engine.port in ports}


@pytest.fixture(scope="module")
def fleet_running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet[Recorder]]:
    with contextlib.ExitStack() as stack:
        engines = stack.enter_context(some_engines(4))
        # Hosts with the names of instances: nothing but the level tells them apart.
        hosts = {"engine-0": engines[:2], "engine-1": engines[2:]}
        yield Fleet(stack, tmp_path_factory.mktemp("fleet"), hosts)


@pytest.fixture
def fleet(fleet_running: Fleet[Recorder]) -> Fleet[Recorder]:
    for gateway in fleet_running.gateways:
        eventually(lambda gateway=gateway: all(server.up for server in gateway.servers()))  # type: ignore[misc]
    return fleet_running


def test_gateways_agree_and_no_instance_is_left_out(fleet: Fleet[Recorder]) -> None:
    first, second = [homes(gateway.port, fleet.engines) for gateway in fleet.gateways]
    assert first == second
    assert len(shares(first)) == 4
    assert shares(first)[0] <= 1.3 * len(SESSIONS) / 4
    # The affinity includes the client, which hosts do not see.
    others = homes(fleet.gateways[0].port, fleet.engines, key=OTHER_KEY)
    assert 0.1 < sum(first[session] == others[session] for session in SESSIONS) / len(SESSIONS) < 0.4


def test_a_drained_hosts_sessions_meet_another_and_come_back(fleet: Fleet[Recorder]) -> None:
    [gateway, _other] = fleet.gateways
    before = homes(gateway.port, fleet.engines)
    host = fleet.hosts["engine-1"]
    host.drain(state="drained", wait=5)
    try:
        # At once: what the host refuses goes on to another one.
        during = homes(gateway.port, fleet.engines)
        leaving, staying = fleet.of("engine-1"), fleet.of("engine-0")
        assert {old for old, _new in moved(before, during)} == leaving
        assert {new for _old, new in moved(before, during)} == staying
    finally:
        host.drain(state="undrained")
    eventually(lambda: all(server.up for server in gateway.servers()))
    assert homes(gateway.port, fleet.engines) == before


def test_a_host_that_fails_is_out_of_its_sessions_way(fleet: Fleet[Recorder]) -> None:
    [gateway, _other] = fleet.gateways
    before = homes(gateway.port, fleet.engines)
    failing = fleet.of("engine-0")
    own = [session for session in SESSIONS if before[session] in failing]
    for number in failing:
        fleet.engines[number].breaks = True
        fleet.engines[number].seen.clear()
    try:
        client = Client(gateway.port)
        assert {client.ask(session) for session in own[:30]} == {200}
        # Two errors in a row take it out; then no request is tried there any more, until it has been checked.
        assert sum(len(fleet.engines[number].seen) for number in failing) <= 10
    finally:
        for number in failing:
            fleet.engines[number].breaks = False


# What it is for

#: Sessions at once and their questions. An engine's cache holds a fourth of the sessions, and not all of them.
TALKS, TURNS, CAPACITY = 160, 3, 12_000
PERSONA = " ".join(f"rule{number}" for number in range(200))


class Talk:
    """A conversation, whose every question has all of it before."""

    def __init__(self, number: int) -> None:
        self.number = number
        opening = " ".join(f"topic{number}-{word}" for word in range(40))
        self.messages = [{"role": "system", "content": PERSONA}, {"role": "user", "content": opening}]

    def ask(self, port: int) -> tuple[int, int]:
        """The prompt's tokens, and how many of them were in the cache."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"model": MODEL, "messages": self.messages})
        connection.request("POST", CHAT, body, {"Authorization": f"Bearer {KEY}"})
        response = connection.getresponse()
        assert response.status == 200
        answer = json.loads(response.read())
        connection.close()
        usage = answer["usage"]
        self.go_on(answer["choices"][0]["message"]["content"])
        return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]

    def go_on(self, said: str) -> None:
        more = " ".join(f"detail{self.number}-{len(self.messages)}-{word}" for word in range(30))
        self.messages += [{"role": "assistant", "content": said}, {"role": "user", "content": more}]


def hits_of_sticky_sessions(said: str) -> float:
    """The share of tokens in the cache where each fourth session has an engine, in the same order of questions."""
    caches = [PrefixCache(CAPACITY) for _ in range(4)]
    talks = [Talk(number) for number in range(TALKS)]
    asked = found = 0
    for _turn in range(TURNS):
        for talk in talks:
            cache = caches[talk.number % 4]
            tokens = tokens_of(talk.messages)
            asked, found = asked + len(tokens), found + cache.find(tokens)
            talk.go_on(said)
            cache.keep(tokens + tokens_of([talk.messages[-2]]))
    return found / asked


def test_conversations_find_their_cache_through_two_gateways_and_load_is_even(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        engines = stack.enter_context(caching_engines(4, CAPACITY))
        fleet = Fleet(stack, tmp_path, {"gpu-1": engines[:2], "gpu-2": engines[2:]})
        talks = [Talk(number) for number in range(TALKS)]
        counted: list[tuple[int, int]] = []
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for turn in range(TURNS):
                # A session may come through the other gateway the next time.
                ports = [fleet.gateways[(talk.number + turn) % 2].port for talk in talks]
                counted += pool.map(Talk.ask, talks, ports)
        hits = sum(found for _asked, found in counted) / sum(asked for asked, _found in counted)
        sticky = hits_of_sticky_sessions(talks[0].messages[2]["content"])
        load = [engine.finished for engine in fleet.engines]
    assert sum(load) == TALKS * TURNS
    assert hits >= 0.97 * sticky, (hits, sticky, load)
    assert max(load) <= 1.2 * sum(load) / 4, (hits, sticky, load)
