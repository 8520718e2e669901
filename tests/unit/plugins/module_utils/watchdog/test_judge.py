"""The judge over traces of looks, two seconds apart unless a trace says otherwise."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.watchdog.judge import (
    CORE,
    HANG,
    OK,
    SERVER,
    SUSPECT,
    UNKNOWN,
    EngineLook,
    HangJudge,
    HangLimits,
    HangVerdict,
)

WARM = 100
LIMITS = HangLimits()


class Trace:
    """Feeds a judge, and keeps what it says."""

    def __init__(self, finished: int = WARM, limits: HangLimits = LIMITS) -> None:
        self.judge = HangJudge(limits, 0.0)
        self.at = 0.0
        self.finished = finished
        self.asked = False
        self.asks: list[float] = []
        self.verdicts: list[HangVerdict] = []

    def see(self, seconds: float, step: float = 2.0, takes: float = 0.0, **look: t.Any) -> HangVerdict:
        """Looks for this long, each of which takes so long itself. A question that the judge wants gets no answer."""
        end = self.at + seconds
        verdict = HangVerdict(OK)
        while self.at < end:
            self.at += step
            values = {"heard": True, "progress": "stands", "finished": self.finished, "asked": self.asked, **look}
            if callable(values["progress"]):
                values["progress"] = values["progress"](self.at)
            verdict = self.judge.see(EngineLook(self.at, self.at - takes, **values))
            if verdict.ask:
                self.asked = True
                self.asks.append(self.at)
            self.verdicts.append(verdict)
        return verdict

    @property
    def states(self) -> set[str]:
        return {verdict.state for verdict in self.verdicts}


def test_a_core_that_stops_with_work_is_asked_after_20_seconds_and_hangs_15_later() -> None:
    trace = Trace()
    trace.see(30, working=True, progress=lambda at: at)
    began = trace.at
    stands = {"working": True, "progress": began}
    assert trace.see(18, **stands).state == OK
    assert trace.see(2, **stands).state == SUSPECT
    assert trace.asks == [began + 20]
    assert trace.see(14, **stands).state == SUSPECT
    verdict = trace.see(2, **stands)
    assert (verdict.state, verdict.what) == (HANG, CORE)
    assert trace.at - began <= 36
    assert len(trace.asks) == 1


def test_an_answer_to_the_question_is_progress() -> None:
    trace = Trace()
    trace.see(22, working=True)
    assert trace.asks
    trace.asked = False
    assert trace.see(2, working=True, answered=True).state == OK
    assert trace.see(16, working=True).state == OK


def test_no_work_is_no_hang() -> None:
    trace = Trace(limits=HangLimits(idle=0))
    trace.see(3600)
    assert trace.states == {OK}
    assert trace.asks == []


def test_an_idle_engine_is_asked_once_a_minute_and_hangs_when_it_does_not_answer() -> None:
    trace = Trace()
    trace.see(60)
    assert trace.asks == [60.0]
    assert trace.see(40).state == HANG


def test_an_idle_engine_that_answers_is_asked_again_a_minute_later() -> None:
    trace = Trace()
    for _ in range(3):
        trace.see(60)
        trace.asked = False
        trace.see(2, answered=True)
    assert len(trace.asks) == 3
    assert trace.states == {OK}


def test_a_long_prefill_moves_the_cache_alone() -> None:
    trace = Trace()
    trace.see(120, working=True, progress=lambda at: ("tokens 5", f"cache {at // 4}"))
    assert trace.states == {OK}
    assert trace.asks == []


def test_clients_that_leave_do_not_hide_a_hang() -> None:
    trace = Trace()
    trace.see(22, working=True)
    assert trace.see(20, working=False).state == HANG


def test_the_first_requests_after_a_start_have_two_minutes() -> None:
    trace = Trace(finished=0)
    trace.see(118, working=True)
    assert trace.states == {OK}
    assert trace.see(20, working=True).state == HANG


def test_an_engine_is_no_longer_cold_after_ten_requests_or_ten_minutes() -> None:
    warm = Trace(finished=10)
    assert warm.see(38, working=True).state == HANG
    old = Trace(finished=0, limits=HangLimits(idle=0))
    old.see(600)
    assert old.see(38, working=True).state == HANG


def test_metrics_that_cannot_be_read_are_neither_progress_nor_a_hang() -> None:
    trace = Trace()
    trace.see(10, working=True)
    trace.see(600, working=True, progress=None)
    assert {verdict.state for verdict in trace.verdicts[5:]} == {UNKNOWN}
    # They are readable again, and say the same as before.
    assert trace.see(2, working=True).state == SUSPECT


def test_a_server_that_answers_nothing_for_30_seconds_hangs() -> None:
    trace = Trace()
    trace.see(10)
    assert trace.see(28, heard=False, progress=None).state == UNKNOWN
    verdict = trace.see(2, heard=False, progress=None)
    assert (verdict.state, verdict.what) == (HANG, SERVER)


def test_looks_that_wait_for_an_answer_are_no_pause_of_the_watchdog() -> None:
    trace = Trace()
    trace.see(10)
    assert trace.see(45, step=15, takes=15, heard=False, progress=None).state == HANG


def test_one_answer_in_time_is_enough() -> None:
    trace = Trace()
    for number in range(10):
        trace.see(26, heard=False, progress=None)
        trace.see(2, progress=number)
    assert HANG not in trace.states


def test_a_pause_of_the_watchdog_itself_counts_as_no_time() -> None:
    trace = Trace()
    trace.see(10, working=True)
    assert trace.see(300, step=300, working=True).state == OK
    assert trace.see(10, working=True).state == SUSPECT


def test_a_restart_of_the_counters_is_progress() -> None:
    trace = Trace()
    trace.see(16, working=True, progress="tokens 500")
    trace.see(16, working=True, progress="tokens 0")
    assert trace.states == {OK}
