from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.report import lines
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import fold

from tests.unit.plugins.plugin_utils.rollout.rollout_journals import (
    BEGAN,
    FAILED,
    Event,
    Journal,
    good_run,
    rolled_back,
    unreachable,
)


def lines_of(journal: Journal) -> list[str]:
    """The lines of a journal, read as it was written."""
    reporter = lines.Reporter()
    return [line.text for event in journal.events for line in reporter.take(event, event["at"])]


def kinds(journal: Journal) -> dict[str, str]:
    reporter = lines.Reporter()
    found = [line for event in journal.events for line in reporter.take(event, event["at"])]
    return {line.text[17:]: line.kind for line in found}


def test_a_good_run_line_by_line() -> None:
    assert lines_of(good_run())[:13] == [
        "rollout    0:00  site of 3 hosts in 3 waves, about 3 min 45 s",
        "rollout    0:02  wave 1 of 3: inference-1 (12 of 64 requests in flight, 32 left while it is out)",
        "rollout    0:02  inference-1 vllm-0  drain",
        "rollout    0:12  inference-1 vllm-0  drained, nothing in flight (4.2 s)",
        "rollout    0:12  inference-1 vllm-0  stop",
        "rollout    0:16  inference-1 vllm-0  start",
        "rollout    0:37  inference-1 vllm-0  start  +21 s  loading the weights, 2 of 5 files (40 %)",
        "rollout    0:58  inference-1 vllm-0  gate",
        "rollout    1:04  inference-1 vllm-0  gate passed (time to first token 61 ms, 38.0 tokens/s)",
        "rollout    1:04  inference-1 vllm-0  undrain",
        "rollout    1:05  inference-1 vllm-0  edge gate",
        "rollout    1:08  inference-1 edge  gate passed (time to first token 63 ms, 38.0 tokens/s)",
        "rollout    1:08  inference-1 vllm-0  confirm",
    ]
    assert lines_of(good_run())[13:15] == [
        "rollout    1:10  inference-1 done in 68 s",
        "rollout    1:10  watching wave 1 for 10 s before the next",
    ]


def test_a_roll_back_is_reported_in_full() -> None:
    found = lines_of(rolled_back())
    assert found[16].endswith("vllm-0  drained for 12 s, 1 request still in flight: team-a for 5 min 10 s")
    again = [line.partition("vllm-0  ")[2] for line in found if "(second attempt)" in line]
    assert again == [f"{step} (second attempt)" for step in ("drain", "start", "gate", "undrain", "edge gate")]
    gate = next(line for line in found if "gate failed" in line)
    assert "text: asked POST" in gate
    assert "\n" not in gate
    assert found[-1].startswith("rollout    2:59  inference-2 rolled back after 108 s: The gate failed on vllm-0")
    assert kinds(rolled_back())["inference-2 vllm-0  drain (second attempt)"] == lines.WARNING


def test_a_lost_host_is_named_once_in_its_line() -> None:
    assert lines_of(unreachable())[-1] == (
        "rollout    0:40  inference-1 unreachable after 38 s: does not answer any more in its step start."
    )


def test_exclusions_warnings_decisions_and_self_tests_are_printed() -> None:
    journal = Journal("rollback").begin(
        [["inference-1"]], hosts={"inference-1": {}}, left_out={"inference-4": "an operator has drained it"},
        warnings=["It has no way back."],
    )  # fmt: skip
    journal.tick(3700).add("decision", text="Downtime was accepted.")
    journal.add("self_test", host="inference-1", passed=True, message="").add("self_test", passed=False, message="no")
    assert lines_of(journal) == [
        "rollout    0:00  rollback of 1 host in 1 wave",
        "rollout    0:00  left out: inference-4: an operator has drained it",
        "rollout    0:00  It has no way back.",
        "rollout 1:01:40  Downtime was accepted.",
        "rollout 1:01:40  the gate proved on inference-1 that it can fail",
        "rollout 1:01:40  the gate did not prove that it can fail: no",
    ]


@pytest.mark.parametrize(
    ("verdict", "kind"), [("worse", lines.BAD), ("fine", lines.GOOD), ("inconclusive", lines.WARNING)]
)
def test_a_wave_that_was_compared_is_a_line_with_its_figures(verdict: str, kind: str) -> None:
    journal = Journal().begin([["inference-1"]]).add("evidence", wave=1, verdict=verdict, text="errors 9 % against 0 %")
    assert kinds(journal)["wave 1: errors 9 % against 0 %"] == kind


def test_a_run_that_goes_on_counts_its_own_time() -> None:
    journal = Journal().begin([["inference-1"], ["inference-2"]]).tick(9000)
    journal.begin([["inference-2"]], event="resume", done=["inference-1"]).tick(5).turn(1, 1, ["inference-2"])
    journal.events = journal.events[1:]
    assert lines_of(journal)[0] == "rollout    0:00  goes on with 1 host in 1 wave, about 75 s, 1 host done before"
    assert lines_of(journal)[1].startswith("rollout    0:05  wave 1 of 1")


def test_many_hosts_are_a_line_and_not_a_screen() -> None:
    names = [f"inference-{number}" for number in range(60)]
    line = lines_of(Journal().begin([names]).turn(1, 1, names))[1]
    assert "inference-5 and 54 more (12 of 64 requests in flight, 32 left while they are out)" in line


def progress(*seen: tuple[float, str, str, float | None]) -> list[str]:
    journal = Journal().begin([["inference-1"]]).step("inference-1", "start")
    for seconds, phase, text, percent in seen:
        journal.now = BEGAN + seconds
        journal.progress("inference-1", phase, text, percent, seconds)
    return [line.partition("start  ")[2] for line in lines_of(journal)[2:]]


def test_progress_is_reported_when_it_is_news() -> None:
    assert progress(
        (5, "loading", "loading the weights, 1 of 9 files", 11),
        (10, "loading", "loading the weights, 2 of 9 files", 22),
        (15, "loading", "loading the weights, 3 of 9 files", 33),
        (20, "compiling", "compiling", None),
        (25, "compiling", "compiling", None),
        (90, "compiling", "compiling", None),
        (95, "serving", "", None),
    ) == [
        "+5 s  loading the weights, 1 of 9 files (11 %)",
        "+15 s  loading the weights, 3 of 9 files (33 %)",
        "+20 s  compiling",
        "+95 s  serving",
    ]


def quiet(reporter: lines.Reporter, seconds: float) -> list[str]:
    return [line.text.partition("vllm-0  ")[2] for line in reporter.quiet(BEGAN + seconds)]


def test_a_start_that_is_quiet_says_so_ever_more_rarely() -> None:
    reporter = lines.Reporter()
    for event in Journal().begin([["inference-1"]]).step("inference-1", "start").events:
        reporter.take(event, BEGAN)
    spoken = [(second, line) for second in range(300) for line in quiet(reporter, second)]
    assert [second for second, _line in spoken] == [15, 45, 105, 165, 225, 285]
    assert spoken[0][1] == "start  +15 s  quiet for 15 s; the whole host took 75 s last time"


def test_news_ends_the_quiet_and_the_same_again_is_no_news() -> None:
    reporter = lines.Reporter()
    journal = Journal().begin([["inference-1"]]).step("inference-1", "start", 10)
    journal.progress("inference-1", "loading", "loading", 5, 10).tick(10).progress(
        "inference-1", "loading", "loading", 5, 20
    )
    for event in journal.events:
        reporter.take(event, event["at"])
    assert quiet(reporter, 24) == []
    assert quiet(reporter, 25) == ["start  +25 s  quiet for 15 s; the whole host took 75 s last time"]


def test_any_step_that_takes_long_goes_on() -> None:
    reporter = lines.Reporter()
    journal = Journal().begin([["inference-1"]], instances=2).step("inference-1", "edge_gate", instance="vllm-1")
    for event in journal.step("inference-1", "drain").events:
        reporter.take(event, BEGAN)
    # Only the instance whose turn it is.
    assert quiet(reporter, 20) == ["drain  +20 s  goes on"]
    reporter.take(journal.outcome("inference-1").events[-1], BEGAN)
    assert reporter.quiet(BEGAN + 500) == []


@pytest.mark.parametrize(
    "event", [{}, {"event": "step"}, {"event": "gate", "figures": 3}, {"event": "turn", "hosts": None, "at": "now"}]
)
def test_events_that_say_little_break_nothing(event: Event) -> None:
    assert all(isinstance(line.text, str) for line in lines.Reporter().take(event, BEGAN))


def test_no_line_shows_a_key_or_moves_the_cursor() -> None:
    key = "sk-abcdefghijklmnopqrstuvwxyz0123456789"
    journal = Journal().begin([["inference-1"]]).add("decision", text=f"the key {key}\n\x1b[2J\rwas seen")
    assert lines_of(journal)[1] == "rollout    0:00  the key sk-… [2J was seen"


@pytest.mark.parametrize(
    ("journal", "alive", "said", "kind"),
    [
        (good_run(), True, "rollout finished in 3 min 52 s: 3 of 3 hosts done", lines.GOOD),
        (
            rolled_back(),
            True,
            "rollout stopped after 3 min 00 s: 1 of 3 hosts done, 1 not begun, 1 rolled back",
            lines.BAD,
        ),
        (
            unreachable(),
            False,
            "rollout broken off after 40 s: 0 of 2 hosts done, 1 not begun, 1 unreachable",
            lines.BAD,
        ),
    ],
)
def test_the_last_lines(journal: Journal, alive: bool, said: str, kind: str) -> None:
    found = lines.summary(fold(journal.events, alive), "/records/1/index.html")
    assert found[0] == lines.ReportLine(said, kind)
    assert found[-1].text == "rollout page: /records/1/index.html"
    assert any("same command" in line.text for line in found) is not alive


def test_requests_that_failed_are_in_the_last_line() -> None:
    report: dict[str, t.Any] = {"requests": {"sent": 100, "failed": 1}, "streams": {"begun": 20, "cut": 1}}
    found = lines.summary(fold(good_run().add("traffic", report=report).events), "x")[0]
    assert found.text.endswith("3 of 3 hosts done, 2 of 120 watched requests failed")
    assert found.kind == lines.WARNING


def test_the_message_of_a_gate_is_shortened() -> None:
    journal = Journal().add("gate", host="inference-1", target="vllm-0", passed=False, message=FAILED * 20)
    assert len(lines_of(journal)[0]) < 500
