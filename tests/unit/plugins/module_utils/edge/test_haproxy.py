from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy as edge_haproxy

from tests.fakes.haproxy import FakeHaproxy, FakeWorker

MAP = "/etc/haproxy/maps/keys.map"


def workers(haproxy: FakeHaproxy) -> list[edge_haproxy.Worker]:
    return edge_haproxy.workers(haproxy.socket, haproxy.master_socket)


def test_no_socket_means_that_it_does_not_run(tmp_path: Path) -> None:
    assert edge_haproxy.workers(str(tmp_path / "none"), str(tmp_path / "none")) == []


def test_a_socket_without_a_listener_means_the_same(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    assert edge_haproxy.workers(str(tmp_path / "left.sock"), str(tmp_path / "none")) == []


def test_the_processes_that_a_reload_left_behind_are_found(tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path, old={11: FakeWorker({MAP: [("a", "b")]}), 12: FakeWorker()}) as haproxy:
        current, first, second = workers(haproxy)
        assert current.map_entries(MAP) is None
        assert first.map_entries(MAP) == [("a", "b")]
        assert second.map_entries(MAP) is None


def test_a_process_that_ended_in_between_has_its_own_error(tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path, old={11: FakeWorker()}) as haproxy:
        _current, old = workers(haproxy)
        haproxy.old.clear()
        with pytest.raises(edge_haproxy.WorkerGone):
            old.map_entries(MAP)


def test_a_map_is_replaced_at_once_however_large(tmp_path: Path) -> None:
    entries = [(f"{number:064x}", "client") for number in range(2000)]
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[MAP] = [("old", "x")]
        workers(haproxy)[0].replace_map(MAP, entries)
        assert haproxy.worker.maps[MAP] == entries
        assert haproxy.worker.commands[-1] == f"commit map @1 {MAP}"


def test_a_map_can_be_emptied(tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[MAP] = [("old", "x")]
        workers(haproxy)[0].replace_map(MAP, [])
        assert haproxy.worker.maps[MAP] == []


@pytest.mark.parametrize("command", ["prepare map", "add map", "commit map"])
def test_a_refusal_of_haproxy_is_reported_without_the_payload(tmp_path: Path, command: str) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.refuse = command
        with pytest.raises(FleetError, match=f"refused '{command}.*Permission denied") as caught:
            workers(haproxy)[0].replace_map(MAP, [("0123", "client")])
        assert "0123" not in caught.value.message


def test_servers_are_up_or_down_and_drain_or_not(tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        # 8 is a forced drain; 32 says that the address could not be resolved.
        haproxy.worker.servers = {
            "a": {"up": 2, "admin": 0},
            "b": {"up": 0, "admin": 8},
            "c": {"up": 1, "admin": 40},
            "d": {"up": 2, "admin": 32},
        }
        assert workers(haproxy)[0].servers() == [
            ("instances_8000", "a", True, False),
            ("instances_8000", "b", False, True),
            ("instances_8000", "c", True, True),
            ("instances_8000", "d", True, False),
        ]


def test_a_server_is_drained_and_undrained(tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.servers = {"a": {"up": 2, "admin": 0}}
        worker = workers(haproxy)[0]
        worker.set_draining(worker.servers()[0], True)
        assert worker.servers()[0].draining
        worker.set_draining(worker.servers()[0], False)
        assert not worker.servers()[0].draining
        with pytest.raises(FleetError, match="No such server"):
            worker.set_draining(edge_haproxy.Server("instances_8000", "z", True, False), True)


def test_requests_have_client_instance_and_age(tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        backend = "instances_8000"
        haproxy.worker.sessions = [
            {"source": "10.0.0.1:5", "backend": backend, "server": "vllm-0", "age": "1h2m3s"},
            {"source": "10.0.0.2:6", "backend": backend, "server": "<none>", "age": "4s"},
            {"source": "10.0.0.3:7", "backend": "<NONE>", "server": "<none>", "age": "4s"},
        ]
        haproxy.worker.clients = {"10.0.0.1:5": "team-a"}
        assert [
            request.as_dict() for request in workers(haproxy)[0].requests("instances_", "once_more_", "inflight")
        ] == [
            {"client": "team-a", "instance": "vllm-0", "seconds": 3723},
            {"client": "unknown", "instance": "", "seconds": 4},
        ]


def test_clients_are_named_of_requests_that_passed_a_socket_of_the_process(tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.sessions = [
            {"source": "10.0.0.1:5", "backend": "once_more_4000", "server": "litellm", "age": "10s"},
            {"source": "10.0.0.2:6", "backend": "once_more_4000", "server": "litellm", "age": "3s"},
            {"source": "10.0.0.3:7", "backend": "once_more_4001", "server": "litellm", "age": "20s"},
            {"source": "unix:1", "backend": "instances_4000", "server": "engine-0", "age": "9s"},
            {"source": "unix:1", "backend": "instances_4000", "server": "engine-1", "age": "3s"},
            {"source": "unix:1", "backend": "instances_4000", "server": "engine-1", "age": "30s"},
        ]
        haproxy.worker.clients = {"10.0.0.1:5": "team-a", "10.0.0.2:6": "team-b", "10.0.0.3:7": "team-c"}
        requests = workers(haproxy)[0].requests("instances_", "once_more_", "inflight")
        assert [request.client for request in requests] == ["team-a", "team-a or team-b", "unknown"]


def test_a_silent_socket_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_haproxy, "_TIMEOUT", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen(1)
        with pytest.raises(FleetError, match=r"does not answer.*systemctl status haproxy"):
            edge_haproxy.workers(str(tmp_path / "silent.sock"), "")
