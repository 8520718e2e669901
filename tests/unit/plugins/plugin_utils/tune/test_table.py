"""What a search says: a line for each trial, the reasons, and what won by how much."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.figures import MORE_IS_BETTER
from ansible_collections.inference.fleet.plugins.plugin_utils.tune import table
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.space import Changes
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.verdict import (
    GOALS,
    JudgedTrial,
    Trial,
    TuningLimit,
    judge,
)

from tests.unit.plugins.plugin_utils.tune.searches import repeats

GOAL = GOALS["throughput"]
LIMIT = TuningLimit("tune_max_itl", "between_tokens_p95", 0.05)


def judged(number: int, changes: Changes, *rates: float, between: float = 0.02, **more: t.Any) -> JudgedTrial:
    figures = [{"tokens_per_second": rate, "between_tokens_p95": between} for rate in rates]
    return judge(Trial(number, changes, measured={**repeats({}), "repeats": figures}, **more), GOAL, [LIMIT])


BASELINE = judged(0, {}, 1000, 1010)
BETTER = judged(1, {"max_num_seqs": 512}, 1500, 1520)
ALIKE = judged(2, {"max_num_seqs": 128}, 995, 1015)
BREAKS = judged(3, {"max_num_seqs": 64}, 2000, 2000, between=0.06)
FAILED = judge(Trial(4, {"max_num_seqs": 32}, "start", "it   ended:\n " + "x" * 100), GOAL, [])


def test_there_is_a_line_for_each_trial_with_its_figures_and_its_verdict() -> None:
    rows, columns = table.rows("vllm", [BASELINE, BETTER, ALIKE, BREAKS, FAILED], GOAL, BETTER)
    assert [column["key"] for column in columns] == [
        "number",
        "settings",
        *(figure.name for figure in table.goal_figures(GOAL)),
        "verdict",
    ]
    assert [row["settings"] for row in rows][:2] == ["as it is", "vllm_max_num_seqs 512"]
    assert [row["tokens_per_second"] for row in rows] == ["1005 ±5", "1510 ±10", "1005 ±10", "2000 ±0", "-"]
    assert [row["verdict"] for row in rows[:4]] == [
        "baseline",
        "+50% better (won)",
        "none",
        "breaks a limit: between tokens p95 0.06 s, above tune_max_itl 0.05",
    ]
    assert rows[4]["verdict"].startswith("did not start: it ended: xxx")
    assert rows[4]["verdict"].endswith("…")
    assert all(set(row) == {column["key"] for column in columns} for row in rows)


def test_reasons_are_said_below_the_table() -> None:
    assert table.problems("vllm", [BASELINE, FAILED], 20) == [
        "Trial 4 (vllm_max_num_seqs 32) did not start: it ended: xxxxxxxxx…"
    ]
    assert table.problems("vllm", [BASELINE, BETTER], 20) == []


def test_what_won_is_said_with_its_figures_before_and_after() -> None:
    assert table.won("vllm", BASELINE, BETTER, GOAL) == (
        "vllm_max_num_seqs 512: tokens/s 1005 ±5 before, 1510 ±10 after, +50% better, 64 at once"
    )
    assert table.figures_of(BASELINE, BETTER, GOAL)["tokens/s"] == {
        "before": 1005,
        "after": 1510,
        "difference": "+50% better",
    }


def test_where_the_baseline_breaks_a_limit_that_is_said() -> None:
    broken = judged(0, {}, 1000, 1010, between=0.06)
    kept = judged(1, {"max_num_seqs": 64}, 900, 910)
    assert table.verdict(broken, broken, GOAL).startswith("breaks a limit")
    assert table.verdict(broken, kept, GOAL) == "keeps the limits (-10% worse)"
    assert table.won("vllm", broken, kept, GOAL).endswith(
        "-10% worse, 64 at once; the baseline breaks a limit: between tokens p95 0.06 s, above tune_max_itl 0.05"
    )


@pytest.mark.parametrize("name", GOALS)
def test_the_table_has_the_figure_of_every_goal(name: str) -> None:
    shown = [figure.name for figure in table.goal_figures(GOALS[name])]
    assert GOALS[name].figure in shown
    assert set(shown) <= set(MORE_IS_BETTER)
