"""A Redis that cannot be used is reported with host, port and error, and never with the password."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import typing as t

import pytest

from tests.unit.conftest import Result, RunModule

PASSWORD = "a/secret@with:signs"
QUOTED = "a%2Fsecret%40with%3Asigns"


class Look(t.Protocol):
    def __call__(self, url: str, **options: t.Any) -> Result: ...


class _Answers(socketserver.StreamRequestHandler):
    """The used part of Redis."""

    server: FakeRedis

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                length = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(length + 2)[:-2].decode())
            self.server.seen.append(words)
            self.wfile.write(self.server.answer(words))


class FakeRedis(socketserver.ThreadingTCPServer):
    """A server that requires PASSWORD, and records its commands."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.seen: list[list[str]] = []
        self.role = "master"
        self.let_in = False

    def answer(self, words: list[str]) -> bytes:
        if words[0] == "AUTH":
            self.let_in = words[-1] == PASSWORD
            return b"+OK\r\n" if self.let_in else b"-WRONGPASS invalid username-password pair\r\n"
        if not self.let_in:
            return b"-NOAUTH Authentication required.\r\n"
        if words[0] == "SELECT":
            return b"+OK\r\n"
        text = f"# {words[1]}\r\nredis_version:7.0.15\r\nrole:{self.role}\r\n".encode()
        return b"$%d\r\n%s\r\n" % (len(text), text)


@pytest.fixture
def redis() -> t.Iterator[FakeRedis]:
    with FakeRedis() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def look(run_module: RunModule) -> Look:
    def run(url: str, **options: t.Any) -> Result:
        result = run_module("gateway_store_info", {"redis_url": url, "timeout": 2, **options})
        shown = json.dumps(result, ensure_ascii=False)
        assert PASSWORD not in shown
        assert QUOTED not in shown
        assert not result.get("changed", False)
        return result

    return run


def test_a_redis_that_can_be_used(look: Look, redis: FakeRedis) -> None:
    port = redis.server_address[1]
    result = look(f"redis://:{QUOTED}@127.0.0.1:{port}/3")
    assert result["redis"] == {"place": f"127.0.0.1:{port}", "version": "7.0.15"}
    assert redis.seen[:2] == [["AUTH", PASSWORD], ["SELECT", "3"]]


def test_a_user_is_shown_too(look: Look, redis: FakeRedis) -> None:
    assert look(f"redis://me:{QUOTED}@127.0.0.1:{redis.server_address[1]}/0")["redis"]["version"]
    assert redis.seen[0] == ["AUTH", "me", PASSWORD]


@pytest.mark.parametrize(("login", "said"), [(":wrong@", "WRONGPASS"), ("", "NOAUTH")])
def test_a_password_that_is_not_taken(look: Look, redis: FakeRedis, login: str, said: str) -> None:
    port = redis.server_address[1]
    message = look(f"redis://{login}127.0.0.1:{port}/0")["msg"]
    assert f"Redis at 127.0.0.1:{port} (litellm_redis_url) refuses: {said}" in message


def test_a_replica_takes_no_writes(look: Look, redis: FakeRedis) -> None:
    redis.role = "slave"
    assert "is a replica" in look(f"redis://:{QUOTED}@127.0.0.1:{redis.server_address[1]}/0")["msg"]


def test_nothing_listens(look: Look) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        message = look(f"redis://:{QUOTED}@127.0.0.1:{port}/0", redis_option="x")["msg"]
    assert f"Redis at 127.0.0.1:{port} (x) does not answer: Connection refused" in message


def test_a_silent_listener_times_out(look: Look) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        message = look(f"redis://:{QUOTED}@127.0.0.1:{port}/0", timeout=0.2)["msg"]
    assert f"Redis at 127.0.0.1:{port} (litellm_redis_url) does not answer: no answer in time" in message


def test_something_else_listens(look: Look) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _address = other.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        message = look(f"redis://:{QUOTED}@127.0.0.1:{other.getsockname()[1]}/0")["msg"]
        thread.join()
    assert "does not speak Redis' protocol" in message


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{QUOTED}@host/0",
        f"redis://:{QUOTED}@/0",
        f"redis://:{QUOTED}@host/zero",
        f"redis://:{PASSWORD}@host:6379/0",
    ],
)
def test_what_is_no_address(look: Look, url: str) -> None:
    assert "litellm_redis_url must be redis://:PASSWORD@HOST:PORT/0" in look(url)["msg"]


def test_a_database_that_does_not_answer_is_reported_without_its_password(run_module: RunModule) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"postgresql://litellm:{QUOTED}@127.0.0.1:{port}/litellm"
    failed = run_module("gateway_store_info", {"database_url": url, "redis_url": ""})
    assert f"PostgreSQL at 127.0.0.1:{port}/litellm (litellm_database_url) does not answer" in failed["msg"]
    assert QUOTED not in failed["msg"]
    assert PASSWORD not in failed["msg"]


def test_without_addresses_there_is_nothing_to_look_at(run_module: RunModule) -> None:
    result = run_module("gateway_store_info", {"redis_url": "", "database_url": ""})
    assert not result["changed"]
    assert not {"failed", "redis", "database"} & set(result)
