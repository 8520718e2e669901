from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.report import timeline, words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.hosts import sort_hosts
from ansible_collections.inference.fleet.plugins.plugin_utils.report.page import count_changes, render_page
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import fold
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.journal import parse

from tests.pages import Reader, check_page
from tests.unit.plugins.plugin_utils.rollout.rollout_journals import (
    BEGAN,
    NEW,
    OLD,
    Journal,
    good_run,
    rolled_back,
    unreachable,
)

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'></style></title>&amp;\u202egnp\x00"
KEY = "sk-abcdefghijklmnopqrstuvwxyz0123456789"


def read(journal: Journal, alive: bool = False) -> Reader:
    return check_page(render_page(fold(parse(journal.text), alive)))


FIGURE = {"name": "share of errors", "wave": "50 % of 100", "untouched": "0 % of 600", "allowed": "2 %"}


def evidence(verdict: str, *verdicts: str) -> dict[str, t.Any]:
    """The event of a wave that was compared."""
    figures = [{**FIGURE, "verdict": one} for one in verdicts]
    one = {"hosts": ["inference-1"], "untouched": ["inference-2"], "verdict": verdict, "figures": figures}
    return {"wave": 1, "verdict": verdict, "text": "the text", "comparisons": [{**one, "text": "too few requests."}]}


def test_a_wave_that_was_compared_has_its_figures() -> None:
    page = read(good_run().add("evidence", **evidence("worse", "worse", "fine")))
    assert "Each wave against the untouched hosts, over its pause" in page.text
    assert page.text.count("share of errors 50 % of 100 0 % of 600 2 %") == 2
    assert "✕ Wave 1 too few requests." in page.text
    assert "over its pause" not in read(good_run()).text


def test_a_wave_that_could_not_be_compared_says_why() -> None:
    assert "· Wave 1 too few requests." in read(good_run().add("evidence", **evidence("inconclusive"))).text


def test_evidence_in_another_form_is_shown_as_far_as_it_goes() -> None:
    for given in ({}, {"comparisons": "x"}, {"comparisons": [{"figures": [{}], "hosts": HOSTILE}], "wave": HOSTILE}):
        read(good_run().add("evidence", **given))


def hosts(number: int, wave: int, instances: int = 1) -> Journal:
    """A rollout of many hosts, a wave of them at a time."""
    names = [f"inference-{index}" for index in range(1, number + 1)]
    waves = [names[first : first + wave] for first in range(0, number, wave)]
    journal = Journal().begin(waves, instances=instances)
    for index, wave_ in enumerate(waves, 1):
        journal.tick(1).turn(index, len(waves), wave_)
        began = journal.now
        for name in wave_:
            journal.now = began
            journal.change(name)
    return journal.end()


def test_a_good_run_says_what_became_of_what() -> None:
    text = read(good_run()).text
    for said in (
        "site finished: 3 of 3 hosts",
        "✓ finished",
        "by anna@laptop · 22 Nov 2026, 15:30:00 UTC to 15:33:52 · took 3 min 52 s",
        "vllm 0.31.0 → vllm 0.32.0, Qwen/Qwen3-VL-8B-Instruct@0c351dd0 (3 instances)",
        "2 min 36 s of it: stop, start and gate of each turn's slowest host",
        "time to first token 60 ms 61 ms +2 %",
        "\u201cParis\u201d, finished by stop",
        "nothing was in flight, waited 4.2 s after a lame duck of 6.0 s",
        "loading the weights, 2 of 5 files (40 %)",
    ):
        assert said in text
    assert "What went wrong" not in text
    assert "What clients may have noticed" not in text


def test_a_failure_comes_first_with_what_to_do() -> None:
    reader = read(rolled_back())
    text = reader.text
    assert text.index("What went wrong") < text.index("Timeline")
    assert "inference-2 rolled back after 108 s The gate failed on vllm-0" in text
    assert 'Came back: the answer "Berlin"; expected Paris.' in text
    assert "It was touched because vllm 0.31.0 → 0.32.0." in text
    assert "Not touched: inference-3." in text
    assert "not urgent, the last good release is back" in text
    assert "Then run the same command again" in text
    assert "inference-2 vllm-0 team-a 5 min 10 s 12 s" in text
    opened = [attributes["id"] for attributes in reader.all("details") if "open" in attributes]
    assert opened == ["h2"]


@pytest.mark.parametrize(
    ("outcome", "advice"),
    [
        ("drained", "out of service. The last good release did not pass"),
        ("stopped", "out of service, and there was no good release"),
        ("unreachable", "check that the host runs and that SSH reaches it"),
        ("failed", "playbooks/status.yml for what the host serves now"),
        ("eaten", "playbooks/status.yml for what the host serves now"),
    ],
)
def test_every_bad_outcome_has_its_advice(outcome: str, advice: str) -> None:
    journal = Journal().begin([["inference-1"]]).turn(1, 1, ["inference-1"]).step("inference-1", "start", 3)
    assert advice in read(journal.outcome("inference-1", outcome, "no idea").end("stopped", "no")).text


def test_a_rollout_that_was_broken_off_says_where() -> None:
    journal = unreachable()
    journal.events.pop()
    text = read(journal).text
    assert "✕ broken off" in text
    assert "inference-1 broken off : vllm-0 in its step start" in text
    assert "Then run the same command again" in text


def test_a_rollout_that_runs_says_so_and_does_not_alarm() -> None:
    journal = good_run()
    journal.events = journal.events[:-6]
    text = read(journal, alive=True).text
    assert "▸ running" in text
    assert "so far" in text
    assert "1 in its turn" in text
    assert "What went wrong" not in text


def test_one_that_did_not_begin_has_no_timeline() -> None:
    text = read(Journal().begin([["inference-1"]]).end("stopped", "70 requests are in the fleet.")).text
    assert "What went wrong 70 requests are in the fleet. Not touched: inference-1." in text
    assert "What to do first Run the same command again" in text
    assert "Timeline" not in text


def test_variables_are_shown_as_they_were_given() -> None:
    given = {"rollout_waves": [1, "50%"], "rollout_accept_downtime": False, "rollout_pause": 0}
    text = read(Journal().begin([["inference-1"]], variables=given).end()).text
    assert "rollout_waves [1, '50%'] rollout_accept_downtime False rollout_pause 0" in text


def test_failed_requests_are_reported_although_the_rollout_finished() -> None:
    journal = good_run()
    counted = [{"inference-1": {"health": 200, "responses": {"2xx": 90 * n, "5xx": 3 * n}}} for n in (1, 2)]
    journal.events[3:3] = [{"at": BEGAN + 3 + n, "event": "load", "hosts": load} for n, load in enumerate(counted)]
    report = {
        "requests": {"sent": 100, "ok": 98, "failed": 2},
        "streams": {"begun": 10, "whole": 9, "failed": 0, "cut": 1, "in_flight": 0},
        "errors": [{"at": BEGAN + 30, "kind": "stream", "what": "cut after 3 tokens", "seconds": 2.5}],
        "error_counts": {"request": {"503": 2}, "stream": {}},
        "longest_gap": {"seconds": 0.42, "at": BEGAN + 31},
        "first_token": {"p50": 0.061, "p95": None},
        "bucket_seconds": 1,
        "seconds": [{"at": BEGAN + n, "ok": 9, "failed": int(n == 30), "tokens": 90} for n in range(200)],
    }
    text = read(journal.add("traffic", report=report)).text
    assert "3 of 110 requests and streams of the traffic driver failed." in text
    assert "The edges answered 3 requests with 5xx." in text
    assert "100 requests, 2 failed; 10 streams, 0 failed and 1 cut; longest time without an answer 420 ms" in text
    assert "Time to first token p50 61 ms, p95 -" in text
    assert "Errors by kind request 503 2, stream none" in text
    assert "15:30:30 stream cut after 3 tokens 2.5 s" in text


def test_nothing_in_a_journal_is_markup_or_a_secret() -> None:
    journal = rolled_back()
    for event in journal.events:
        for name, value in event.items():
            if name not in ("at", "event", "step", "outcome") and isinstance(value, str):
                event[name] = f"{value} {HOSTILE} {KEY}" if name not in ("host", "instance") else value
    text = journal.text.replace("inference-2", HOSTILE.encode("unicode_escape").decode().replace('"', '\\"'))
    text = text.replace("\\x00", "\\u0000")
    record = fold(parse(text), alive=False)
    assert HOSTILE in record["hosts"]
    made = render_page(record)
    reader = Reader(made)
    assert reader.wrong == []
    assert not [name for name, _ in reader.found if name in ("script", "img")]
    assert "<script>alert(1)</script>" in reader.text
    assert KEY not in made
    assert "abcdefghijklmnop" not in made
    assert not set(made) & {"\u202e", "\x00"}


@pytest.mark.parametrize(("number", "wave", "instances"), [(1, 1, 1), (60, 8, 1), (20, 4, 8), (7, 7, 2)])
def test_a_row_for_each_host_of_a_fleet_of_any_size(number: int, wave: int, instances: int) -> None:
    reader = read(hosts(number, wave, instances))
    rows = [attributes for attributes in reader.all("a") if attributes.get("title")]
    assert [row["title"] for row in rows] == [f"inference-{index}" for index in range(1, number + 1)]
    bars = [attributes for attributes in reader.all("i") if "s-start" in (attributes["class"] or "")]
    assert len(bars) == number
    for _name, attributes in reader.found:
        for left, width in re.findall(r"left:([\d.-]+)%;width:([\d.-]+)%", attributes.get("style") or ""):
            assert 0 <= float(left) <= float(left) + float(width) <= 100.2


def test_second_attempts_and_failed_gates_are_marked() -> None:
    reader = read(rolled_back())
    assert len([bar for bar in reader.all("i") if "again" in (bar["class"] or "").split()]) == 5
    crosses = [bar["title"] for bar in reader.all("i") if bar["class"] == "cross"]
    assert crosses == ["gate failed at 15:32:12"]


def test_hosts_are_sorted_as_people_count() -> None:
    names = ["inference-10", "inference-9", "inference-1", "edge", "inference-1b", "9"]
    assert sorted(names, key=words.split_numbers) == [
        "9",
        "edge",
        "inference-1",
        "inference-1b",
        "inference-9",
        "inference-10",
    ]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["inference-1", "inference-2"], ["inference-1", "inference-2"]),
        (["a.eu.example.org", "b.eu.example.org"], ["a", "b"]),
        (["a.eu.example.org", "b.us.example.org"], ["a.eu.example.org", "b.us.example.org"]),
        (["a.", "gpu-g6e-12xlarge-eu-central-1a-0007"], ["a.", "gpu-g6e-12…ral-1a-0007"]),
        (["10.0.0.7", "11.0.0.7"], ["10.0.0.7", "11.0.0.7"]),
        ([], []),
    ],
)
def test_names_are_shortened_where_they_do_not_differ(names: list[str], shown: list[str]) -> None:
    assert list(timeline.shorten(names).values()) == shown


# The axis


def test_an_axis_of_one_run_is_to_scale() -> None:
    axis = timeline.Axis([(100.0, 200.0)])
    assert [axis.x(at) for at in (50, 100, 150, 200, 999)] == [0, 0, 50, 100, 100]
    assert [(place, since) for place, _at, since in axis.ticks()] == [(15.0 * n, 15 * n) for n in range(7)]


def test_a_night_between_two_runs_is_cut_short() -> None:
    axis = timeline.Axis([(0.0, 100.0), (40_000.0, 40_100.0)])
    assert (axis.x(100), axis.x(40_000), axis.x(40_100)) == (47.5, 52.5, 100)
    assert axis.breaks == [(100.0, 40_000.0)]
    assert axis.bar(100.0, 40_000.0, "gap", "a night") == (47.5, 5.0, "gap", "a night", "")
    assert [place for place, _at, since in axis.ticks() if since == 0] == [0, 52.5]
    seen = axis.columns([(40_050, "c"), (50, "a"), (20_000, "b"), (40_100, "d")])
    assert seen == [(23.75, 23.75, ["a"]), (76.25, 23.75, ["c"]), (100.0, 0.2, ["d"])]


def test_a_short_break_stays_to_scale() -> None:
    axis = timeline.Axis([(0.0, 100.0), (110.0, 200.0)])
    assert axis.x(100) == 50
    assert axis.breaks == [(100.0, 110.0)]


@pytest.mark.parametrize("spans", [[], [(5.0, 5.0)], [(9.0, 3.0)]])
def test_an_axis_without_time_is_an_axis(spans: list[tuple[float, float]]) -> None:
    axis = timeline.Axis(spans)
    assert 0 <= axis.x(5) <= 100
    assert axis.ticks()


@pytest.mark.parametrize("seconds", [1, 40, 300, 7200, 90_000, 5_000_000])
def test_an_axis_has_a_few_round_ticks(seconds: float) -> None:
    places = [place for place, _at, _since in timeline.Axis([(0.0, seconds)]).ticks()]
    assert 1 < len(places) <= 9
    assert all(after - before >= 7 for before, after in zip(places, places[1:]))


def test_many_looks_share_columns_and_none_outlives_what_it_says() -> None:
    axis = timeline.Axis([(0.0, 1000.0)])
    many = axis.columns([(float(at), at) for at in range(1000)], hold=1)
    assert len(many) == 200
    assert [value for _left, _width, values in many for value in values] == list(range(1000))
    assert axis.columns([(100.0, "x")], hold=50) == [(10.0, 5.0, ["x"])]
    assert axis.columns([]) == []


def test_one_failure_among_thousands_is_seen() -> None:
    report = {"seconds": [{"at": BEGAN + n, "ok": 5000, "failed": int(n == 30)} for n in range(232)]}
    record = fold(good_run().add("traffic", report=report).events)
    drawn = timeline.draw_timeline(record, sort_hosts(record)).traffic
    assert drawn is not None
    assert [column.lower for column in drawn.columns if column.lower] == [9.0]
    assert [bar.title for bar in drawn.failures] == ["1 failure"]


def test_an_instance_shares_the_lane_of_one_that_is_through() -> None:
    journal = Journal().begin([["inference-1"]], instances=3).turn(1, 1, ["inference-1"])
    for name in ("vllm-0", "vllm-1"):
        journal.step("inference-1", "drain", 2, instance=name).step("inference-1", "confirm", 2, instance=name)
    journal.tick(-2).step("inference-1", "start", 5, instance="vllm-2")
    record = fold(journal.outcome("inference-1").events)
    assert timeline.share_lanes(record["hosts"]["inference-1"]["instances"], record["last"]) == [
        ["vllm-0", "vllm-1"],
        ["vllm-2"],
    ]


def test_the_limit_falls_while_hosts_are_out_also_without_a_look() -> None:
    record = fold(good_run().events)
    limits = [(round(at - BEGAN, 1), limit) for at, limit in timeline.list_limits(record, record["last"])]
    assert limits[:4] == [(2.0, 32.0), (70.0, 64.0), (82.5, 32.0), (150.5, 64.0)]


# Words and markup


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (OLD, NEW, "vllm 0.31.0 → vllm 0.32.0, Qwen/Qwen3-VL-8B-Instruct@0c351dd0 (1 instance)"),
        (None, NEW, "new: vllm 0.32.0, new: Qwen/Qwen3-VL-8B-Instruct@0c351dd0 (1 instance)"),
        (
            OLD,
            {**OLD, "release": "vllm-2"},
            "vllm 0.31.0, Qwen/Qwen3-VL-8B-Instruct@0c351dd0, vllm-0123456789ab → vllm-2 (1 instance)",
        ),
        (OLD, OLD, "vllm 0.31.0, Qwen/Qwen3-VL-8B-Instruct@0c351dd0, vllm-0123456789ab as before (1 instance)"),
    ],
)
def test_what_changes(before: t.Any, after: t.Any, said: str) -> None:
    instance = {"name": "vllm-0", "reason": "", "from": before, "to": after}
    journal = Journal().begin([["inference-1"]], hosts={"inference-1": {"wave": 1, "instances": [instance]}})
    assert count_changes(fold(journal.events)) == [said]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.0612, "61 ms"),
        (4.21, "4.2 s"),
        (58.4, "58 s"),
        (372, "6 min 12 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), [(-3, "0:00"), (64.9, "1:04"), (3725, "1:02:05")])
def test_stopwatch(seconds: float, said: str) -> None:
    assert words.elapsed(seconds) == said


@pytest.mark.parametrize("at", [None, 1e18, -1e18, float("nan"), float("inf")])
def test_an_invalid_moment_is_a_dash(at: float | None) -> None:
    assert words.moment(at) == "-"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"the key {KEY} was sent", "the key sk-… was sent"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer …"),
        ("the key sk-…ab12cd34 and a sk-ilift", "the key sk-…ab12cd34 and a sk-ilift"),
        ("a\x1b[31mred\u2028line", "a [31mred line"),
    ],
)
def test_what_is_shown_is_safe(text: str, shown: str) -> None:
    assert words.safe(text) == shown
