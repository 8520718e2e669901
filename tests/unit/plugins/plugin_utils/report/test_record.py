from __future__ import annotations

import copy
import json
import math
import random
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.report.page import render_page
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import covered, ends, fold
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.journal import parse

from tests.unit.plugins.plugin_utils.rollout.rollout_journals import (
    BEGAN,
    FAILED,
    NEW,
    OLD,
    REASON,
    Journal,
    good_run,
    rolled_back,
    unreachable,
)

JOURNALS = {"good": good_run, "rolled back": rolled_back, "unreachable": unreachable}


def folded(journal: Journal, alive: bool = True) -> dict[str, t.Any]:
    record = fold(parse(journal.text), alive)
    check(record)
    return record


def check(record: dict[str, t.Any]) -> None:
    """Properties of every record."""
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    totals = record["totals"]
    assert totals["done"] + totals["failed"] + totals["open"] == totals["hosts"] == len(record["hosts"])
    for host in record["hosts"].values():
        assert host["seconds"] is None or host["seconds"] >= 0
        for instance in host["instances"].values():
            closed, going = instance["steps"][:-1], instance["steps"][-1:]
            assert all(step["seconds"] is not None and step["seconds"] >= 0 for step in closed)
            if record["outcome"] != "running" or host["outcome"]:
                assert all(step["ended"] is not None for step in going)
    for wave in record["waves"]:
        assert wave["seconds"] is None or wave["out_seconds"] <= wave["seconds"] + 1e-3


def steps(record: dict[str, t.Any], host: str, instance: str = "vllm-0") -> list[tuple[str, int, float]]:
    found = record["hosts"][host]["instances"][instance]["steps"]
    return [(step["step"], step["attempt"], round(step["seconds"], 3)) for step in found]


def test_a_host_that_a_later_run_registers_is_done() -> None:
    journal = Journal().begin([["inference-1"]]).turn(1, 1, ["inference-1"]).step("inference-1", "register", 3, "")
    journal.outcome("inference-1", "unregistered", "No client reaches it.").end("stopped", "It stops here.")
    assert folded(journal)["hosts"]["inference-1"]["outcome"] == "unregistered"
    journal.tick(60).begin([], event="resume", done=["inference-1"], hosts={}).end()
    host = folded(journal)["hosts"]["inference-1"]
    assert (host["outcome"], host["message"]) == (
        "done",
        "The run that took over put it back into its target groups.",
    )
    assert folded(journal)["totals"]["done"] == 1


def test_a_good_run() -> None:
    record = folded(good_run())
    assert (record["outcome"], record["message"], record["verb"]) == ("finished", "", "site")
    assert (record["began"], record["ended"]) == (BEGAN, pytest.approx(BEGAN + 232))
    assert [host["outcome"] for host in record["hosts"].values()] == ["done", "done", "done"]
    assert [wave["hosts"] for wave in record["waves"]] == [["inference-1"], ["inference-2"], ["inference-3"]]
    assert [round(wave["seconds"]) for wave in record["waves"]] == [68, 68, 68]
    assert [(pause["wave"], pause["ended"] - pause["began"]) for pause in record["pauses"]] == [(1, 10.0), (2, 10.0)]
    totals = record["totals"]
    assert (totals["seconds"], totals["interrupted_seconds"]) == (pytest.approx(232), pytest.approx(0))
    assert totals["out_seconds"] == pytest.approx(3 * 52)
    assert (totals["hosts"], totals["done"], totals["failed"], totals["cut"]) == (3, 3, 0, 0)


def test_a_host_records_what_was_done_to_it() -> None:
    record = folded(good_run())
    host = record["hosts"]["inference-2"]
    assert (host["wave"], host["expected_seconds"], round(host["seconds"])) == (2, 75, 68)
    assert [gate["target"] for gate in host["gates"]] == ["edge"]
    instance = host["instances"]["vllm-0"]
    assert (instance["from"], instance["to"]["version"]) == (OLD, "0.32.0")
    assert instance["drained"]["idle"] is True
    assert instance["gates"][0]["figures"]["ttft_ms"] == 61.0
    assert instance["gates"][0]["good"]["ttft_ms"] == 60.0
    assert instance["progress"][0]["percent"] == 40
    assert steps(record, "inference-2") == [
        ("drain", 1, 10.0),
        ("stop", 1, 4.0),
        ("start", 1, 42.0),
        ("gate", 1, 6.0),
        ("undrain", 1, 1.0),
        ("edge_gate", 1, 3.0),
        ("confirm", 1, 2.0),
    ]


def test_a_host_that_is_rolled_back() -> None:
    record = folded(rolled_back())
    assert (record["outcome"], record["totals"]["failed"], record["totals"]["open"]) == ("stopped", 1, 1)
    host = record["hosts"]["inference-2"]
    assert (host["outcome"], host["message"]) == ("rolled_back", FAILED)
    attempts = [attempt for _step, attempt, _seconds in steps(record, "inference-2")]
    assert attempts == [1, 1, 1, 1, 2, 2, 2, 2, 2]
    instance = host["instances"]["vllm-0"]
    assert [(gate["attempt"], gate["passed"]) for gate in instance["gates"]] == [(1, False), (2, True)]
    assert [(gate["attempt"], gate["passed"]) for gate in host["gates"]] == [(2, True)]
    assert record["totals"]["cut"] == 1
    # The gate's time is part of the host's time out of service, at both attempts.
    assert record["waves"][1]["out_seconds"] == pytest.approx(4 + 42 + 3 + 38 + 5)
    assert record["hosts"]["inference-3"]["tries"] == []


def test_what_was_in_flight_is_kept_when_the_second_drain_has_nothing() -> None:
    journal = rolled_back()
    events = [event for event in journal.events if event["event"] not in ("outcome", "end")]
    events += Journal().drained("inference-2").events
    instance = fold(events)["hosts"]["inference-2"]["instances"]["vllm-0"]
    assert instance["drained"]["idle"] is True
    assert [drain["idle"] for drain in instance["drains"]] == [False, True]
    assert fold(events)["totals"]["cut"] == 1


def test_a_wave_that_was_compared_is_kept_with_its_figures() -> None:
    figures = [{"name": "share of errors", "wave": "9 %", "untouched": "0 %", "allowed": "2 %", "verdict": "worse"}]
    said = {"verdict": "worse", "text": "worse", "comparisons": [{"figures": figures}]}
    record = folded(good_run().add("evidence", wave=1, limit=1.3, **said))
    (seen,) = record["evidence"]
    assert {name: seen[name] for name in said} == said
    assert seen["wave"] == 1
    assert folded(good_run())["evidence"] == []


def test_a_host_that_goes_away() -> None:
    record = folded(unreachable(), alive=False)
    assert record["outcome"] == "broken off"
    assert "process 4242 on laptop" in record["message"]
    assert record["hosts"]["inference-1"]["outcome"] == "unreachable"
    assert steps(record, "inference-1") == [("drain", 1, 5.0), ("stop", 1, 3.0), ("start", 1, 30.0)]


def test_a_second_outcome_takes_the_place_of_the_first() -> None:
    journal = good_run()
    journal.events.pop()
    record = folded(journal.tick(5).outcome("inference-1", "unreachable", "gone"))
    host = record["hosts"]["inference-1"]
    assert (host["outcome"], host["message"], round(host["seconds"])) == ("unreachable", "gone", 68)
    assert record["totals"]["done"] == 2


def test_without_an_end_it_runs_or_was_broken_off() -> None:
    journal = Journal().begin([["inference-1"]]).turn(1, 1, ["inference-1"]).step("inference-1", "drain", 3)
    journal.add("load", hosts={})
    running, broken = folded(journal), folded(journal, alive=False)
    assert (running["outcome"], broken["outcome"]) == ("running", "broken off")
    going, over = (record["hosts"]["inference-1"]["instances"]["vllm-0"]["steps"][0] for record in (running, broken))
    assert (going["ended"], going["broken"]) == (None, False)
    assert (over["seconds"], over["broken"]) == (3.0, True)


def resumed(cut: Journal, names: list[str]) -> Journal:
    """The same rollout, resumed an hour later by another user."""
    done = [
        name for name in names if any(e["event"] == "outcome" and e["host"] == name for e in cut.events if "host" in e)
    ]
    left = [name for name in names if name not in done]
    instance = {"name": "vllm-0", "reason": "its start was broken off", "from": NEW, "to": NEW}
    hosts = {name: {"wave": number, "instances": [instance]} for number, name in enumerate(left, 1)}
    waves = [[name] for name in left]
    cut.tick(3600).begin(waves, event="resume", who="bo@ci", pid=77, done=done, hosts=hosts)
    for number, name in enumerate(left, 1):
        cut.tick(1).turn(number, len(left), [name]).change(name)
    return cut.tick(1).end()


@pytest.mark.parametrize("name", JOURNALS)
def test_it_may_be_killed_after_any_event_and_go_on(name: str) -> None:
    whole = JOURNALS[name]()
    for kept in range(1, len(whole.events)):
        cut = Journal()
        cut.events = whole.events[:kept]
        cut.now = cut.events[-1]["at"]
        for alive in (True, False):
            render_page(folded(cut, alive))
        hosts = list(cut.events[0]["hosts"])
        record = folded(resumed(cut, hosts))
        assert record["outcome"] == "finished"
        assert len(record["runs"]) == 2
        assert record["runs"][0]["ended"] == whole.events[kept - 1]["at"]
        assert record["totals"]["interrupted_seconds"] == pytest.approx(3600)
        assert [host["outcome"] is not None for host in record["hosts"].values()] == [True] * len(hosts)
        render_page(record)


def test_a_host_that_is_tried_again_counts_both_tries() -> None:
    cut = Journal().begin([["inference-1"]]).turn(1, 1, ["inference-1"]).step("inference-1", "drain", 10)
    cut.step("inference-1", "stop", 0)
    record = folded(resumed(cut, ["inference-1"]))
    host = record["hosts"]["inference-1"]
    assert [(one["run"], one["outcome"]) for one in host["tries"]] == [(1, None), (2, "done")]
    assert host["seconds"] == pytest.approx(10 + 68)
    broken = [step["step"] for step in host["instances"]["vllm-0"]["steps"] if step["broken"]]
    assert broken == ["stop"]
    # The state before is the one that the first run saw.
    assert (host["instances"]["vllm-0"]["from"], host["instances"]["vllm-0"]["reason"]) == (OLD, REASON)


def test_a_host_that_the_next_run_finds_done_is_done() -> None:
    cut = Journal().begin([["inference-1"]]).turn(1, 1, ["inference-1"]).change("inference-1")
    cut.events.pop()
    cut.tick(60).begin([], event="resume", done=["inference-1"]).end()
    host = folded(cut)["hosts"]["inference-1"]
    assert (host["outcome"], round(host["seconds"])) == ("done", 66)


def test_half_a_line_at_the_end_is_nothing_and_in_the_middle_a_warning() -> None:
    journal = good_run()
    lines = journal.text.splitlines()
    whole = fold(parse(journal.text))
    assert fold(parse(journal.text + lines[3][:20])) == whole
    # A line that only lacks its line end is complete.
    assert fold(parse(journal.text.rstrip("\n"))) == whole
    record = fold(parse("\n".join([*lines[:3], lines[3][:20], *lines[4:], ""])))
    assert [warning for warning in record["warnings"] if warning.startswith("Line 4 of the journal")]
    assert record["outcome"] == "finished"


@pytest.mark.parametrize("text", ["", "\n", "{", '{"event": 3}\n', "[]\n", "null\n1\n", "\0\0"])
def test_what_is_no_journal_is_an_empty_record(text: str) -> None:
    record = fold(parse(text), alive=False)
    check(record)
    assert (record["began"], record["hosts"]) == (None, {})
    render_page(record)


def test_events_of_the_future_and_unplanned_hosts() -> None:
    journal = Journal().begin([["inference-1"]]).add("eclipse", sun=False).add("step", step="drain")
    journal.step("stranger", "start", 5, instance="sglang-3").outcome("stranger", "failed", "no idea").end()
    record = folded(journal)
    stranger = record["hosts"]["stranger"]
    assert (stranger["wave"], stranger["outcome"], stranger["seconds"]) == (None, "failed", 5.0)
    assert list(record["hosts"]) == ["inference-1", "stranger"]


def test_one_by_one_an_instance_is_through_when_the_next_has_its_turn() -> None:
    journal = Journal().begin([["inference-1"]], instances=2).turn(1, 1, ["inference-1"])
    for name in ("vllm-0", "vllm-1"):
        for step in ("drain", "start", "undrain", "edge_gate"):
            journal.step("inference-1", step, 2, instance=name)
    record = folded(journal.outcome("inference-1").end())
    assert steps(record, "inference-1")[-1] == ("edge_gate", 1, 2.0)
    assert record["waves"][0]["out_seconds"] == pytest.approx(4)


def test_side_by_side_instances_do_not_end_each_others_steps() -> None:
    journal = Journal().begin([["inference-1"]], instances=2).turn(1, 1, ["inference-1"])
    for step in ("drain", "stop", "start", "gate"):
        for name in ("vllm-0", "vllm-1"):
            journal.step("inference-1", step, 1, instance=name)
    record = folded(journal.outcome("inference-1").end())
    assert steps(record, "inference-1") == [("drain", 1, 2.0), ("stop", 1, 2.0), ("start", 1, 2.0), ("gate", 1, 2.0)]
    # Both are out at the same time, which counts once.
    assert record["waves"][0]["out_seconds"] == pytest.approx(6)


def test_an_engine_that_takes_the_place_of_another_ends_its_step() -> None:
    journal = Journal().begin([["inference-1"]]).turn(1, 1, ["inference-1"])
    journal.step("inference-1", "drain", 3, attempt=2).step("inference-1", "start", 5, instance="sglang-0", attempt=2)
    record = folded(journal.outcome("inference-1", "rolled_back").end())
    assert steps(record, "inference-1") == [("drain", 2, 3.0)]
    assert steps(record, "inference-1", "sglang-0") == [("start", 2, 5.0)]


@pytest.mark.parametrize(
    ("step", "other", "other_step", "over"),
    [
        ("edge_gate", "vllm-1", "drain", True),
        ("start", "vllm-1", "drain", False),
        ("start", "vllm-1", "start", False),
        ("start", "sglang-0", "drain", True),
        ("start", "vllm-0", "gate", False),
    ],
)
def test_which_step_ends_which(step: str, other: str, other_step: str, over: bool) -> None:
    assert ends("vllm-0", step, other, other_step) is over


def test_a_step_of_the_whole_host_is_one_of_all_its_instances() -> None:
    journal = Journal().begin([["inference-1"]], instances=2).turn(1, 1, ["inference-1"])
    journal.add("step", host="inference-1", instance=None, step="drain", attempt=1).tick(3)
    requests = [{"client": "team-a", "instance": "vllm-1", "seconds": 9}]
    journal.add("drained", host="inference-1", instance=None, idle=False, waited=3, requests=requests)
    record = folded(journal.outcome("inference-1").end())
    assert steps(record, "inference-1", "vllm-0") == steps(record, "inference-1", "vllm-1") == [("drain", 1, 3.0)]
    assert record["totals"]["cut"] == 1


def load(answers: int, errors: int) -> dict[str, t.Any]:
    responses = {"2xx": answers, "4xx": 1, "5xx": errors}
    return {"inference-1": {"health": 200, "running": 2, "waiting": 1, "limit": 32, "responses": responses}}


def test_errors_are_counted_across_a_restart_of_the_edge() -> None:
    journal = Journal().begin([["inference-1"]])
    for answers, errors in ((100, 5), (150, 7), (20, 3), (30, 3)):
        journal.add("load", hosts=load(answers, errors)).tick(10)
    journal.add("load", hosts={"inference-1": {"health": None, "responses": None}}).tick(10)
    journal.add("load", hosts=load(45, 4))
    record = folded(journal)
    assert [(error["errors"], error["answers"]) for error in record["errors"]] == [(2, 52), (3, 24), (1, 16)]
    assert (record["totals"]["errors"], record["totals"]["answers"]) == (6, 102)
    # Since the last look at which the edge answered, not since the one at which it did not.
    assert record["errors"][-1]["began"] == BEGAN + 30


def test_the_load_is_that_of_all_hosts_and_the_limit_of_those_that_serve() -> None:
    hosts = {
        "inference-1": {"health": 200, "running": 2, "waiting": 1, "limit": 32},
        "inference-2": {"health": 503, "running": 1, "waiting": 0, "limit": 32},
        "inference-3": {"health": None, "running": None, "limit": "many"},
    }
    record = folded(Journal().begin([["inference-1"]]).add("load", hosts=hosts))
    assert record["loads"] == [{"at": BEGAN, "hosts": 3, "serving": 1, "running": 3, "waiting": 1, "limit": 32}]


def test_reports_of_the_traffic_driver_are_kept_by_run() -> None:
    journal = Journal().begin([["inference-1"]]).add("traffic", report={"requests": {"sent": 1}})
    journal.tick(5).begin([["inference-1"]], event="resume").add("traffic", report={"requests": {"sent": 2}})
    record = folded(journal)
    assert record["traffic"] == {"requests": {"sent": 2}}
    assert record["traffic_before"] == [{"requests": {"sent": 1}}]


def test_a_clock_that_is_set_back_makes_nothing_negative() -> None:
    journal = Journal().begin([["inference-1"]]).tick(-50).turn(1, 1, ["inference-1"])
    journal.step("inference-1", "drain", -5).step("inference-1", "start", -1)
    record = folded(journal.outcome("inference-1").end())
    assert (record["totals"]["seconds"], record["last"]) == (0, BEGAN)
    render_page(record)


@pytest.mark.parametrize(
    ("spans", "seconds"), [([], 0), ([(0, 2), (1, 3)], 3), ([(5, 6), (0, 1), (0, 1)], 2), ([(0, 9), (2, 3)], 9)]
)
def test_spans_that_overlap_count_once(spans: list[tuple[float, float]], seconds: float) -> None:
    assert covered(spans) == seconds


def test_no_value_of_the_wrong_kind_breaks_a_record_or_its_page() -> None:
    rubbish: list[t.Any] = [
        None,
        0,
        -1,
        1e18,
        "x",
        "",
        [],
        {},
        True,
        math.nan,
        [None, 3, {}],
        {"a": None},
        ["a", ["b"]],
    ]
    chance = random.Random(7)  # noqa: S311 - not a secret, but the same each time
    for _round in range(150):
        journal = chance.choice(list(JOURNALS.values()))()
        journal.add("load", hosts=load(5, 1)).add("traffic", report={"seconds": [{"at": BEGAN, "ok": 3, "failed": 1}]})
        for _times in range(6):
            of = chance.choice(journal.events)
            for _depth in range(chance.randint(0, 3)):
                inner = [value for value in of.values() if isinstance(value, dict) and value]
                of = chance.choice(inner) if inner else of
            of[chance.choice(list(of))] = copy.deepcopy(chance.choice(rubbish))
        events = json.loads(json.dumps(journal.events))
        render_page(fold([event for event in events if isinstance(event.get("event"), str)], chance.random() < 0.5))
