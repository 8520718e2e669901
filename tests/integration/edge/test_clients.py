"""The edge's handling of a client's limits."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy, state

from tests.integration.edge.conftest import KEY, Edge, error_of, eventually
from tests.integration.edge.engine import Recorder
from tests.integration.edge.traffic import Stream, Traffic

OTHER = "sk-the-key-of-team-b-for-tests-only-000000000"
MODEL = "Qwen/Qwen3-VL-8B-Instruct"
KEYS = {KEY: "team-a", OTHER: "team-b"}
DAYS = 86400


def limit(edge: Edge, **limits: t.Any) -> dict[str, t.Any]:
    return edge.set_keys(KEYS, {"team-a": limits})


def test_requests_a_minute(edge: Edge) -> None:
    limit(edge, requests_per_minute=5)
    assert [edge.status("/v1/x", KEY) for _ in range(5)] == [200] * 5
    answer = edge.ask("/v1/x", KEY)
    assert answer[0] == 429
    assert answer[1]["retry-after"] == "5"
    assert error_of(answer)["code"] == "rate_limit_exceeded"
    assert edge.status("/v1/x", OTHER) == 200
    # The limit changes at once, and refused requests did not count.
    limit(edge, requests_per_minute=6)
    assert [edge.status("/v1/x", KEY) for _ in range(2)] == [200, 429]
    limit(edge)
    assert [edge.status("/v1/x", KEY) for _ in range(20)] == [200] * 20


def test_both_keys_of_a_client_share_its_limit(edge: Edge) -> None:
    edge.set_keys({KEY: "team-a", OTHER: "team-a"}, {"team-a": {"requests_per_minute": 4}})
    statuses = [edge.status("/v1/x", key) for key in (KEY, OTHER, KEY, OTHER, KEY, OTHER)]
    assert statuses == [200, 200, 200, 200, 429, 429]


def test_requests_at_once(edge: Edge, engines: list[Recorder]) -> None:
    limit(edge, max_concurrent=2)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(edge.status("/v1/slow/3", KEY))) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: sum(seen.path.startswith("/v1/slow/") for engine in engines for seen in engine.seen) == 2)
    answer = edge.ask("/v1/x", KEY)
    assert error_of(answer)["code"] == "concurrency_limit_exceeded"
    assert edge.status("/v1/x", OTHER) == 200
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]
    assert edge.status("/v1/x", KEY) == 200


def test_an_expired_client_is_refused_without_another_run(edge: Edge) -> None:
    limit(edge, expires=times.moment(time.time() + 3))
    assert edge.status("/v1/x", KEY) == 200
    eventually(lambda: edge.status("/v1/x", KEY) == 401)
    answer = edge.ask("/v1/x", KEY)
    assert error_of(answer)["code"] == "expired_api_key"
    assert answer[1]["www-authenticate"] == "Bearer"
    assert edge.status("/v1/x", OTHER) == 200


def configure_as_before(edge: Edge) -> None:
    """The role's configuration with its lines from before values had a version."""
    text = edge.config.read_text()
    lookup = f"var(txn.hash),map_str({edge.maps}/keys.map)"
    for now, before in ((" clients=2\n", "\n"), (f"""'{lookup},regsub("^v=2[|]","")'""", lookup)):
        assert text.count(now) == 1, now
        text = text.replace(now, before)
    lines = [line for line in text.splitlines(keepends=True) if "keys_not_readable" not in line]
    assert len(lines) == text.count("\n") - 1
    edge.config.write_text("".join(lines))


def first_version(edge: Edge) -> None:
    """The map as it was before values had a version, of a client with every limit."""
    expires = int(time.time()) + DAYS
    value = f"team-a|600|8|{expires}|,{MODEL},"
    (edge.maps / "keys.map").write_text(f"{api_keys.sha256(KEY)} {value}\n{api_keys.sha256(OTHER)} team-b\n")


def values(edge: Edge) -> tuple[list[str], list[list[str]]]:
    """The content of the file and of each process."""
    path = edge.maps / "keys.map"
    workers = haproxy.workers(edge.socket, edge.master_socket)
    entries = [state.parse_map(path.read_text()), *(worker.map_entries(str(path)) or [] for worker in workers)]
    file, *live = [[value for _digest, value in sorted(one, key=lambda entry: entry[1])] for one in entries]
    return file, live


def test_an_earlier_versions_map_is_read_by_this_configuration(unstarted: Edge) -> None:
    first_version(unstarted)
    unstarted.start_and_wait(edge_served_name=MODEL)
    assert [unstarted.status("/v1/x", key) for key in KEYS] == [200, 200]
    worker = haproxy.workers(unstarted.socket, unstarted.master_socket)[0]
    path = unstarted.maps / "keys.map"
    worker.ask(f"set map {path} {api_keys.sha256(KEY)} team-a|600|8|1|")
    assert error_of(unstarted.ask("/v1/x", KEY))["code"] == "expired_api_key"
    worker.ask(f"set map {path} {api_keys.sha256(KEY)} team-a|0|0|0|,another/model,")
    assert error_of(unstarted.ask("/v1/x", KEY))["code"] == "model_not_allowed"


def test_an_upgrade_from_an_earlier_configuration_refuses_no_key(unstarted: Edge) -> None:
    limits = {"team-a": {"requests_per_minute": 100_000, "max_concurrent": 8, "models": [MODEL]}}
    first_version(unstarted)
    unstarted.configure(edge_served_name=MODEL)
    started = unstarted.configure
    unstarted.configure = lambda **_variables: configure_as_before(unstarted)  # type: ignore[method-assign]
    unstarted.start_and_wait()
    unstarted.configure = started  # type: ignore[method-assign]
    with Traffic(unstarted, [KEY, OTHER] * 2) as traffic:
        stream = Stream(unstarted, KEY, 5)
        # It gets the version that it can read.
        assert unstarted.set_keys(KEYS, limits)["outdated"]
        file, live = values(unstarted)
        assert [file] == live == [[f"team-a|100000|8|0|,{MODEL},", "team-b"]]
        assert not unstarted.set_keys(KEYS, limits)["changed"]
        # The role configures and reloads it, and runs the module again.
        unstarted.configure()
        unstarted.reload()
        assert unstarted.set_keys(KEYS, limits)["actions"] == ["write the map again"]
        now = [f"v=2|team-a|100000|8|0|,{MODEL},", "v=2|team-b"]
        assert values(unstarted) == (now, [now, file])
        assert not unstarted.set_keys(KEYS, limits)["changed"]
        time.sleep(0.5)
        assert stream.finished_whole()
    assert set(traffic.answers) == {"200"}
    assert traffic.answers["200"] > 10


def test_a_key_in_a_later_version_is_refused_with_a_reason(edge: Edge) -> None:
    worker = haproxy.workers(edge.socket, edge.master_socket)[0]
    worker.ask(f"set map {edge.maps / 'keys.map'} {api_keys.sha256(KEY)} v=3|new|team-a")
    answer = edge.ask("/v1/x", KEY)
    assert (answer[0], error_of(answer)["code"]) == (503, "keys_not_readable")


@pytest.mark.parametrize(
    ("models", "status"),
    [([], 200), ([MODEL], 200), (["another/model", MODEL], 200), (["another/model"], 403), ([f"{MODEL}-more"], 403)],
)
def test_a_client_of_another_model(unstarted: Edge, models: list[str], status: int) -> None:
    unstarted.start_and_wait(edge_served_name=MODEL)
    limit(unstarted, models=models, max_concurrent=100)
    answer = unstarted.ask("/v1/x", KEY)
    assert answer[0] == status
    if status == 403:
        assert error_of(answer)["code"] == "model_not_allowed"
        assert MODEL in error_of(answer)["message"]


def test_limits_are_reported_in_words_and_are_idempotent(edge: Edge) -> None:
    limits = {"requests_per_minute": 600, "max_concurrent": 8, "expires": "2127-01-31", "models": [MODEL]}
    first = limit(edge, **limits)
    assert first["changed"]
    (action,) = [each for each in first["actions"] if each.startswith("limit team-a ")]
    assert action.endswith(f"(600 requests/min; 8 at once; until 2127-01-31T00:00:00Z; only {MODEL})")
    assert first["clients"] == ["team-a", "team-b"]
    again = limit(edge, **limits)
    assert not again["changed"]
    assert edge.status("/v1/x", KEY) == 200
    eventually(lambda: any("client=team-a key=" in line for line in edge.access_log()))
