"""The edge's record of when a key was used."""

from __future__ import annotations

import http.client
import json
import os
import time
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import keys
from ansible_collections.inference.fleet.plugins.module_utils.core import times as clock

from tests.integration.edge.conftest import KEY, Edge, eventually
from tests.integration.edge.traffic import Stream, Traffic

OTHER = "sk-the-key-of-team-b-for-tests-only-000000000"
THIRD = "sk-the-key-of-team-c-for-tests-only-000000000"
MODEL = "Qwen/Qwen3-VL-8B-Instruct"


def use(edge: Edge, key: str, times: int = 1) -> None:
    assert [edge.status("/v1/x", key) for _ in range(times)] == [200] * times


def requests(edge: Edge) -> dict[str, int]:
    """The use count of each key, by fingerprint."""
    return {one["fingerprint"]: one["requests"] for one in edge.usage()["usage"]}


def last_used(edge: Edge, key: str) -> int:
    """Unix time."""
    (found,) = [one for one in edge.usage()["usage"] if one["fingerprint"] == keys.fingerprint(key)]
    return clock.seconds(found["last_used"])


def since(edge: Edge) -> int:
    return clock.seconds(edge.usage()["since"])


@pytest.fixture
def shared(edge: Edge) -> Edge:
    """With two clients."""
    edge.set_keys({KEY: "team-a", OTHER: "team-b"})
    return edge


def test_used_keys_are_counted_and_others_are_not(shared: Edge) -> None:
    assert shared.usage()["usage"] == []
    before = int(time.time())
    use(shared, KEY, 3)
    found = shared.usage()
    assert requests(shared) == {keys.fingerprint(KEY): 3}
    assert before - 1 <= last_used(shared, KEY) <= time.time()
    assert found["accepts"] == sorted([keys.fingerprint(KEY), keys.fingerprint(OTHER)])
    assert not found["changed"]
    assert not found["warnings"]
    use(shared, OTHER)
    assert requests(shared) == {keys.fingerprint(KEY): 3, keys.fingerprint(OTHER): 1}
    assert not {KEY, OTHER} & set(json.dumps(shared.usage()).split('"'))


def test_the_time_is_that_of_the_last_request(shared: Edge) -> None:
    use(shared, KEY)
    first = last_used(shared, KEY)
    time.sleep(2.1)
    assert abs(last_used(shared, KEY) - first) <= 1
    before = time.time()
    use(shared, KEY)
    assert before - 1 <= last_used(shared, KEY) <= time.time()


def test_what_is_refused_for_its_key_is_not_counted(shared: Edge) -> None:
    limits: dict[str, dict[str, t.Any]] = {
        "team-b": {"expires": clock.moment(time.time() - 60)},
        "team-c": {"models": ["another/model"]},
    }
    shared.set_keys({KEY: "team-a", OTHER: "team-b", THIRD: "team-c"}, limits)
    shared.configure(edge_served_name=MODEL)
    shared.reload()
    eventually(shared.healthy)
    refused = [("/v1/x", "sk-nobody"), ("/v1/x", None), ("/v1/x", OTHER), ("/metrics", KEY)]
    assert [shared.status(path, key) for path, key in refused] == [401, 401, 401, 404]
    assert shared.usage()["usage"] == []
    # The edge took this key.
    assert shared.status("/v1/x", THIRD) == 403
    assert requests(shared) == {keys.fingerprint(THIRD): 1}


def test_usage_outlives_reloads(shared: Edge) -> None:
    began = since(shared)
    use(shared, KEY, 2)
    use(shared, OTHER)
    of_other = last_used(shared, OTHER)
    for expected in (3, 4, 5):
        shared.reload()
        eventually(shared.healthy)
        use(shared, KEY)
        assert requests(shared) == {keys.fingerprint(KEY): expected, keys.fingerprint(OTHER): 1}
    assert abs(last_used(shared, OTHER) - of_other) <= 1
    assert abs(since(shared) - began) <= 1


def test_usage_outlives_a_stop(shared: Edge) -> None:
    began = since(shared)
    use(shared, KEY, 2)
    shared.stop()
    stopped = shared.usage()
    assert [one["requests"] for one in stopped["usage"]] == [2]
    assert stopped["accepts"] == sorted([keys.fingerprint(KEY), keys.fingerprint(OTHER)])
    # Longer than a reload takes, as far as the program can see.
    document = json.loads(shared.usage_file.read_text())
    shared.usage_file.write_text(json.dumps({**document, "saved": document["saved"] - 1000}))
    shared.start_and_wait()
    use(shared, OTHER)
    assert requests(shared) == {keys.fingerprint(KEY): 2, keys.fingerprint(OTHER): 1}
    assert abs(since(shared) - began) <= 1


def test_after_a_crash_earlier_usage_is_reported_as_unknown(shared: Edge) -> None:
    use(shared, KEY)
    shared.reload()
    eventually(shared.healthy)
    use(shared, OTHER)
    assert shared.process
    shared.process.kill()
    shared.process.wait()
    eventually(lambda: shared.usage()["since"] is None)
    crashed = int(time.time())
    stop = shared.keep_usage("stop")
    assert "was not saved" in stop.stderr
    assert shared.usage()["usage"] == []
    shared.process = None
    shared.start_and_wait()
    assert since(shared) >= crashed - 1
    assert shared.usage()["usage"] == []
    use(shared, KEY)
    assert requests(shared) == {keys.fingerprint(KEY): 1}


def test_a_process_that_goes_on_after_it_was_saved_is_not_counted_twice(shared: Edge) -> None:
    use(shared, KEY, 2)
    # As before a reload that fails.
    for _ in range(2):
        assert shared.keep_usage("reload").returncode == 0
        assert requests(shared) == {keys.fingerprint(KEY): 2}
    use(shared, KEY)
    assert requests(shared) == {keys.fingerprint(KEY): 3}


def test_a_stream_that_outlasts_a_reload_counts_once(shared: Edge) -> None:
    stream = Stream(shared, KEY, 4)
    shared.reload()
    eventually(shared.healthy)
    assert requests(shared) == {keys.fingerprint(KEY): 1}
    use(shared, KEY)
    assert requests(shared) == {keys.fingerprint(KEY): 2}
    shared.reload()
    eventually(shared.healthy)
    assert requests(shared) == {keys.fingerprint(KEY): 2}
    assert stream.finished_whole()


def test_a_former_process_is_seen_while_it_works(shared: Edge) -> None:
    """The request on a connection that was open before the reload reaches the old process."""
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=30)
    connection.request("GET", "/v1/x", headers={"Authorization": f"Bearer {KEY}"})
    assert connection.getresponse().read()
    shared.reload()
    eventually(shared.healthy)
    time.sleep(2)
    before = last_used(shared, KEY)
    connection.request("GET", "/v1/slow/3", headers={"Authorization": f"Bearer {KEY}"})
    eventually(lambda: last_used(shared, KEY) > before)
    assert abs(last_used(shared, KEY) - time.time()) < 3
    # A reload at this moment keeps it.
    shared.reload()
    assert connection.getresponse().status == 200
    assert last_used(shared, KEY) > before
    assert requests(shared) == {keys.fingerprint(KEY): 1}


def test_nothing_is_lost_under_load(shared: Edge) -> None:
    with Traffic(shared, [KEY] * 2) as traffic:
        for _ in range(3):
            time.sleep(0.5)
            shared.reload()
    assert set(traffic.answers) == {"200"}
    counted = requests(shared)[keys.fingerprint(KEY)]
    # Requests between a save and the signal, and the last one on each connection that was open then.
    assert traffic.answers["200"] * 0.5 <= counted <= traffic.answers["200"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"since": 1, "keys": []}', '{"since": null}'])
def test_a_damaged_file_is_reported_and_counting_starts_again(shared: Edge, content: str) -> None:
    use(shared, KEY)
    shared.usage_file.write_text(content)
    found = shared.usage()
    assert [one["requests"] for one in found["usage"]] == [1]
    (warning,) = found["warnings"]
    assert str(shared.usage_file) in warning
    assert "counted from zero" in warning
    assert shared.keep_usage("reload").returncode == 0
    assert not shared.usage()["warnings"]
    assert requests(shared) == {keys.fingerprint(KEY): 1}


def test_a_file_that_cannot_be_written_is_reported(shared: Edge) -> None:
    use(shared, KEY)
    shared.usage_file.unlink()
    shared.usage_file.mkdir()
    done = shared.keep_usage("reload")
    assert done.returncode == 1
    assert str(shared.usage_file) in done.stderr
    assert sorted(path.name for path in shared.directory.iterdir() if "key_usage" in path.name) == ["key_usage.json"]
    # It counts on.
    shared.reload()
    eventually(shared.healthy)
    assert shared.usage()["since"]
    shared.usage_file.rmdir()


def test_an_edge_that_does_not_count_yet_reports_no_usage(unstarted: Edge) -> None:
    unstarted.start_and_wait()
    config = unstarted.config.read_text()
    unstarted.config.write_text(
        "".join(f"{line}\n" for line in config.splitlines() if "key_usage" not in line and "store http_req" not in line)
    )
    unstarted.reload()
    eventually(unstarted.healthy)
    use(unstarted, KEY)
    assert (unstarted.usage()["since"], unstarted.usage()["usage"]) == (None, [])
    # From the next reload on it does.
    unstarted.config.write_text(config)
    moment = int(time.time())
    unstarted.reload()
    eventually(unstarted.healthy)
    use(unstarted, KEY)
    assert requests(unstarted) == {keys.fingerprint(KEY): 1}
    assert since(unstarted) >= moment


def test_a_dead_key_is_listed_as_accepted_until_the_edge_is_updated(shared: Edge) -> None:
    assert keys.fingerprint(OTHER) in shared.usage()["accepts"]
    shared.set_keys({KEY: "team-a"})
    assert shared.usage()["accepts"] == [keys.fingerprint(KEY)]
    assert shared.status("/v1/x", OTHER) == 401


def test_it_is_the_administrators_file(shared: Edge) -> None:
    shared.keep_usage("reload")
    assert shared.usage_file.stat().st_mode & 0o777 == 0o600
    assert shared.usage_file.stat().st_uid == os.geteuid()
