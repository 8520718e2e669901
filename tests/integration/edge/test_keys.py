"""Keys are added and removed under traffic; HAProxy's memory and the file stay the same."""

from __future__ import annotations

import threading
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy, state

from tests.integration.edge.conftest import KEY, Edge, origin_of
from tests.integration.edge.traffic import Stream, Traffic

SECOND = "sk-the-second-key-of-team-a-for-tests-0000000"
OTHER = "sk-the-key-of-team-b-for-tests-only-000000000"


def live(edge: Edge) -> list[tuple[str, str]]:
    worker = haproxy.workers(edge.socket, edge.master_socket)[0]
    return sorted(worker.map_entries(str(edge.maps / "keys.map")) or [])


def in_file(edge: Edge) -> list[tuple[str, str]]:
    return sorted(state.parse_map((edge.maps / "keys.map").read_text()))


def expected_entries(keys: dict[str, str]) -> list[tuple[str, str]]:
    return sorted((api_keys.sha256(key), f"v=2|{name}") for key, name in keys.items())


def test_a_key_works_at_once_and_is_dead_at_once(edge: Edge) -> None:
    assert edge.status("/v1/models", OTHER) == 401
    assert edge.set_keys({KEY: "team-a", OTHER: "team-b"})["changed"]
    assert edge.status("/v1/models", OTHER) == 200
    assert edge.set_keys({OTHER: "team-b"})["changed"]
    assert edge.status("/v1/models", KEY) == 401
    assert edge.status("/v1/models", OTHER) == 200


def test_a_second_run_changes_nothing(edge: Edge) -> None:
    keys = {KEY: "team-a", SECOND: "team-a", OTHER: "team-b"}
    edge.set_keys(keys)
    result = edge.set_keys(keys)
    assert not result["changed"]
    assert result["actions"] == []
    assert result["live"]
    assert live(edge) == in_file(edge) == expected_entries(keys)


def test_no_request_fails_while_keys_change(edge: Edge) -> None:
    with Traffic(edge, [KEY] * 4) as traffic:
        for number in range(40):
            edge.set_keys({KEY: "team-a", f"sk-{number}": "team-b"})
    assert set(traffic.answers) == {"200"}
    assert traffic.answers["200"] > 10


def test_a_client_moves_to_its_new_key_without_a_401(edge: Edge) -> None:
    with Traffic(edge, [KEY] * 2) as old:
        edge.set_keys({KEY: "team-a", SECOND: "team-a"})
        with Traffic(edge, [SECOND] * 2) as new:
            time.sleep(0.3)
    edge.set_keys({SECOND: "team-a"})
    assert set(old.answers) == set(new.answers) == {"200"}
    assert edge.status("/v1/models", KEY) == 401


def test_keys_outlive_a_reload_and_a_restart(edge: Edge) -> None:
    edge.set_keys({OTHER: "team-b"})
    edge.reload()
    assert (edge.status("/v1/models", OTHER), edge.status("/v1/models", KEY)) == (200, 401)
    edge.stop()
    edge.start_and_wait()
    assert (edge.status("/v1/models", OTHER), edge.status("/v1/models", KEY)) == (200, 401)


def test_keys_that_were_changed_by_hand_are_corrected(edge: Edge) -> None:
    worker = haproxy.workers(edge.socket, edge.master_socket)[0]
    worker.ask(f"add map {edge.maps / 'keys.map'} {api_keys.sha256(OTHER)} intruder")
    assert edge.status("/v1/models", OTHER) == 200
    result = edge.set_keys({KEY: "team-a"})
    assert result["actions"] == ["bring the running HAProxy in line with the file"]
    assert edge.status("/v1/models", OTHER) == 401
    (edge.maps / "keys.map").write_text(f"{api_keys.sha256(OTHER)} intruder\n")
    assert edge.set_keys({KEY: "team-a"})["changed"]
    assert live(edge) == in_file(edge) == expected_entries({KEY: "team-a"})


def test_an_edge_that_does_not_run_gets_its_file(unstarted: Edge) -> None:
    result = unstarted.set_keys({OTHER: "team-b"})
    assert result["changed"]
    assert not result["live"]
    unstarted.start_and_wait()
    assert unstarted.status("/v1/models", OTHER) == 200


def test_a_process_that_a_reload_left_behind_learns_too(edge: Edge) -> None:
    stream = Stream(edge, KEY, 3)
    edge.reload()
    assert len(haproxy.workers(edge.socket, edge.master_socket)) == 2
    edge.set_keys({OTHER: "team-b"})
    for worker in haproxy.workers(edge.socket, edge.master_socket):
        assert worker.map_entries(str(edge.maps / "keys.map")) == expected_entries({OTHER: "team-b"})
    # Later changes do not cut an accepted request.
    assert stream.finished_whole()


def test_of_several_at_once_the_latest_generation_stays(edge: Edge) -> None:
    sets = [{f"sk-{side}-{number}": "team-a" if number else "team-b" for number in range(3)} for side in range(8)]
    refused: list[FleetError] = []

    def write(generation: int) -> None:
        try:
            edge.set_keys(sets[generation], origin=origin_of(100 + generation))
        except FleetError as error:
            refused.append(error)

    threads = [threading.Thread(target=write, args=(generation,)) for generation in (7, 3, 1, 6, 0, 5, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert live(edge) == in_file(edge) == expected_entries(sets[7])
    assert all("has generation" in error.message for error in refused)


def test_ten_thousand_keys(edge: Edge) -> None:
    keys = {f"sk-{number}": f"client-{number}" for number in range(10_000)}
    with Traffic(edge, [KEY] * 2) as traffic:
        edge.set_keys({**keys, KEY: "team-a"})
        added = edge.set_keys({**keys, KEY: "team-a", OTHER: "team-b"})
        again = edge.set_keys({**keys, KEY: "team-a", OTHER: "team-b"})
    assert added["actions"][:-1] == [f"add team-b {api_keys.fingerprint(OTHER)}"]
    assert not again["changed"]
    assert len(live(edge)) == 10_002
    assert edge.status("/v1/models", "sk-9999") == 200
    assert set(traffic.answers) == {"200"}


def test_a_diff_shows_no_hash(edge: Edge) -> None:
    diff: dict[str, t.Any] = edge.set_keys({OTHER: "team-b"})["diff"]
    assert diff == {
        "before": f"team-a {api_keys.fingerprint(KEY)}\n",
        "after": f"team-b {api_keys.fingerprint(OTHER)}\n",
    }
