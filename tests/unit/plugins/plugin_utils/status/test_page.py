from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.prices.hourly import Cost
from ansible_collections.inference.fleet.plugins.plugin_utils.status import history
from ansible_collections.inference.fleet.plugins.plugin_utils.status.hosts import HostReading
from ansible_collections.inference.fleet.plugins.plugin_utils.status.keys import show_keys
from ansible_collections.inference.fleet.plugins.plugin_utils.status.page import AGE_MARK, FleetReading, render_status

from tests.pages import Reader, check_page
from tests.unit.plugins.plugin_utils.report.test_page import HOSTILE, KEY
from tests.unit.plugins.plugin_utils.status.status_fleet import (
    CLAIM,
    NOW,
    client,
    drained,
    gate,
    gpu,
    instance,
    lost,
    status,
)

SPAN = history.span_of(NOW, 21600)
KEYS = show_keys({"clients": [client("team-a")]}, NOW)


def cost(host: str, usd: float | None = 1.5) -> Cost:
    return Cost(host, "g6e.xlarge", 1, usd=usd, source="us-east-1, 2026-07-20", problem="" if usd else "not listed.")


def fleet(count: int = 2, **changes: t.Any) -> FleetReading:
    hosts = [
        HostReading(f"gpu-{number}", "inference", status(), gpu(), {"balancer": "healthy 1/1"}, cost(f"gpu-{number}"))
        for number in range(1, count + 1)
    ]
    return dataclasses.replace(FleetReading(NOW, hosts, keys=KEYS), **changes)


def read(reading: FleetReading) -> Reader:
    return check_page(render_status(reading).text)


def answered(problem: str = "", points: t.Sequence[history.Point] = ()) -> history.History:
    found = {query: list(points) for query in history.list_queries(SPAN)}
    return history.History("http://127.0.0.1:9090", SPAN, found, problem)


def test_a_fleet_that_serves_is_all_well() -> None:
    page = read(fleet())
    assert "Fleet ✓ all well 2 of 2 hosts in service · as of 21 Sep 2026, 14:13:20 UTC" in page.text
    assert "What needs attention" not in page.text
    assert "US dollars per hour 3.000" in page.text
    assert "1 client: none expires within 14 days" in page.text


def test_the_title_is_the_fleet_in_one_line() -> None:
    done = render_status(fleet())
    assert done.title == "2 of 2 hosts in service, 21 Sep 2026, 14:13:20 UTC"
    assert f"<title>Fleet: {done.title}</title>" in done.text


def test_a_host_that_was_not_reached_is_first_with_the_reason() -> None:
    reading = fleet()
    page = read(dataclasses.replace(reading, hosts=[*reading.hosts, HostReading("gpu-3", "inference", lost())]))
    assert "✕ needs attention" in page.text
    assert "What needs attention ✕ gpu-3 unreachable: Data could not be sent: ssh: connect to host" in page.text
    assert "2 of 3 hosts in service" in page.text


def test_hosts_are_in_the_order_of_their_numbers() -> None:
    page = read(fleet(11))
    names = [text for text in page.texts if text.startswith("gpu-")]
    assert names == [f"gpu-{number}" for number in range(1, 12)]


def test_drains_claims_rollouts_and_keys_are_on_it() -> None:
    reading = fleet(
        hosts=[HostReading("gpu-1", "inference", {**drained("rollout"), "rollout": CLAIM})],
        rollouts=["site 20260921T130000Z-site of anna is under way."],
        keys=show_keys({"clients": [client("team-a", expires="2026-09-23T00:00:00Z")]}, NOW),
        beyond=[("gpu-9", "stopped")],
        notes=["prices of 2026"],
    )
    text = read(reading).text
    assert "gpu-1 the host drained rollout memory test 2026-09-21 12:00" in text
    assert "site 20260921T130000Z-site of anna is under way. Hosts that they hold: 1" in text
    assert "team-a sk-…1f0c9a2e expires in 1d9h 2026-09-23 00:00" in text
    assert "gpu-9 stopped" in text
    assert "prices of 2026" in text


def test_what_passes_a_gateway_is_counted_once() -> None:
    gateway = HostReading("gw-1", "gateway", status(edge={"health": 200, "responses": {"2xx": 90, "5xx": 10}}))
    reading = fleet()
    text = read(dataclasses.replace(reading, hosts=[*reading.hosts, gateway])).text
    assert "Answers with 5xx 10 of 100 since each edge's process began" in text
    assert "Requests now 10 in the engines, 2 waiting" in text


def test_without_a_prometheus_it_says_that_there_is_no_history() -> None:
    page = read(fleet())
    assert "There is no history: no Prometheus was named" in page.text
    assert page.all("svg") == []


def test_a_prometheus_that_does_not_answer_is_named() -> None:
    page = read(fleet(history=answered("Prometheus at http://127.0.0.1:9090: it does not answer.")))
    assert "Prometheus at http://127.0.0.1:9090: it does not answer. There is no history" in page.text
    assert page.all("svg") == []
    assert "2 of 2 hosts in service" in page.text


def test_charts_say_in_words_what_they_show() -> None:
    points = [(SPAN.start + number * SPAN.step, 0.5) for number in range(121)]
    page = read(fleet(history=answered(points=points)))
    labels = [str(svg["aria-label"]) for svg in page.all("svg")]
    assert len(labels) == len(history.CHARTS)
    assert any("Time to first token: vLLM p50 500 ms, at most 500 ms;" in label for label in labels)
    assert len(page.all("path")) == len(history.list_queries(SPAN))


def test_nothing_on_it_is_markup_and_no_key_is_shown() -> None:
    evil = f"{HOSTILE} Bearer {KEY} {KEY}"
    mark = {"state": evil, "by": evil, "reason": evil, "since": evil}
    read_host = status(
        instances=[instance(name=evil, engine=evil, version=evil, release=evil, model=evil, revision=evil, state=evil)],
        edge={"health": 503, "responses": {evil: 5}, "held": {"why": evil, "since": evil}},
        drain={**mark, "marks": [mark], "instances": {evil: mark}},
        rollout={**CLAIM, "id": evil, "who": evil, "verb": evil, "since": evil},
        gates={evil: gate(False, message=evil, at=evil)},
        problems=[evil],
    )
    reading = FleetReading(
        NOW,
        [
            HostReading(evil, evil, read_host, gpu("failed", evil), {"balancer": evil, "events": evil}, cost(evil)),
            HostReading("gpu-2", "inference", lost(evil), None, {}, cost("gpu-2", None)),
        ],
        [(evil, evil)],
        show_keys(
            {"clients": [client(evil, expires=evil, due=True, created=evil)], "rotation": {"step": evil, "by": evil}},
            NOW,
        ),
        [evil],
        [evil],
        history.History(evil, SPAN, {history.Query("load", evil, ""): [(NOW, 1.0)]}, evil),
    )
    page = read(reading)
    assert page.all("script") == []
    assert KEY not in render_status(reading).text
    assert "alert(1)" in page.text


def test_an_empty_fleet_has_a_page() -> None:
    assert "0 of 0 hosts in service" in read(FleetReading(NOW, [])).text


def test_what_is_no_hosts_needs_attention_first() -> None:
    text = read(fleet(trouble=["the probe fails"])).text
    assert "✕ needs attention 2 of 2 hosts in service" in text
    assert "What needs attention ✕ the probe fails" in text
    assert "Hosts in service 2 of 2" in text


def test_only_a_served_page_loads_itself_again() -> None:
    made, served = render_status(fleet()).text, render_status(fleet(renewed=30)).text
    assert ('http-equiv="refresh"' in made, AGE_MARK in made) == (False, False)
    assert '<meta http-equiv="refresh" content="30">' in served
    assert served.count(AGE_MARK) == 1
    # Charts are there, or Prometheus does not answer: there is no third state.
    assert "no Prometheus was named" not in served


def test_no_value_can_stand_for_the_age() -> None:
    assert AGE_MARK not in render_status(fleet(trouble=[AGE_MARK], notes=[AGE_MARK], maker=AGE_MARK)).text
