from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy_socket

PROCESSES = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
10              master          2               0d00h10m00s     2.6.12
# workers
13              worker          0               0d00h00m10s     2.6.12
# old workers
11              worker          2               0d00h09m00s     2.6.12
12              worker          1               0d00h05m00s     2.6.12
# programs
99              worker          0               0d00h00m00s     none
"""


def test_the_processes_that_a_reload_left() -> None:
    assert haproxy_socket.former_workers(PROCESSES) == ["11", "12"]
    assert haproxy_socket.former_workers(PROCESSES.partition("# old workers")[0]) == []


def serve(listening: socket.socket, pieces: list[bytes], heard: list[bytes]) -> None:
    """Answer when the client has sent everything, as HAProxy's master does."""
    connection, _address = listening.accept()
    with connection:
        while received := connection.recv(100):
            heard.append(received)
        for piece in pieces:
            connection.sendall(piece)


def test_an_answer_in_pieces_is_put_together(tmp_path: Path) -> None:
    path, heard = str(tmp_path / "admin.sock"), list[bytes]()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        pieces = [b"one\n" * 20_000, b"\xff", b"\n"]
        serving = threading.Thread(target=serve, args=(listening, pieces, heard))
        serving.start()
        answer = haproxy_socket.ask(path, "show info", 5)
        serving.join()
    assert b"".join(heard) == b"show info\n"
    assert answer == "one\n" * 20_000 + "\ufffd\n"


def test_silence_and_absence_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        haproxy_socket.ask(str(tmp_path / "none.sock"), "show info", 5)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        with pytest.raises(socket.timeout):
            haproxy_socket.ask(str(tmp_path / "silent.sock"), "show info", 0.1)
