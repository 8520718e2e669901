"""The address of a database: parsed and checked, without ever showing its password."""

from __future__ import annotations

import socketserver
import threading
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gateway import postgresql


class _Answers(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        asked = self.request.recv(8)
        self.request.sendall(self.server.answer if asked == b"\0\0\0\x08\x04\xd2\x16/" else b"?")  # type: ignore[attr-defined]


@pytest.fixture
def server() -> t.Iterator[socketserver.TCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Answers) as one:
        one.answer = b"N"  # type: ignore[attr-defined]
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def address(port: int) -> postgresql.PostgresAddress:
    return postgresql.parse(f"postgresql://litellm:secret@127.0.0.1:{port}/litellm")


def test_an_address_is_taken_apart() -> None:
    found = postgresql.parse("postgres://u:p%40ss@db.example/history?connection_limit=5")
    assert (found.host, found.port, found.database) == ("db.example", 5432, "history")
    assert found.place == "db.example:5432/history"
    assert "p%40ss" not in repr(found)


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "postgresql://u:secret@h", "postgresql:///d", "postgresql://u:sec/ret@h:x/d"]
)
def test_what_is_no_address_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(FleetError, match=postgresql.OPTION) as refused:
        postgresql.parse(url)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("answer", [b"S", b"N"])
def test_a_postgresql_is_known_by_its_answer(server: socketserver.TCPServer, answer: bytes) -> None:
    server.answer = answer  # type: ignore[attr-defined]
    postgresql.look(address(server.server_address[1]), 2)


def test_a_server_that_is_no_postgresql_is_reported(server: socketserver.TCPServer) -> None:
    server.answer = b"H"  # type: ignore[attr-defined]
    with pytest.raises(FleetError, match="is no PostgreSQL"):
        postgresql.look(address(server.server_address[1]), 2)


def test_a_closed_port_is_reported_with_place_and_error(server: socketserver.TCPServer) -> None:
    port = server.server_address[1]
    server.shutdown()
    server.server_close()
    with pytest.raises(
        FleetError, match=rf"127\.0\.0\.1:{port}/litellm \({postgresql.OPTION}\) does not answer: Connection refused"
    ):
        postgresql.look(address(port), 2)
