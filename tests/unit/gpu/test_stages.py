"""A start is split as the engine's journal tells it."""

from __future__ import annotations

import datetime
import re
import typing as t
from pathlib import Path

import pytest

from tests.gpu.stages import Stages, heaviest, import_seconds, journal_lines, split

JOURNALS = Path(__file__).parents[1] / "fixtures/engines"
CLOCK = re.compile(r"(?:\d\d-\d\d|\d{4}-\d\d-\d\d) (\d\d):(\d\d):(\d\d)")


def recorded(name: str) -> list[tuple[float, str]]:
    """A journal with the times that the engine wrote; a line without one has that of the line before."""
    lines = []
    at = 0.0
    for text in (JOURNALS / name).read_text(encoding="utf-8").split("\n"):
        found = CLOCK.search(text)
        if found:
            hours, minutes, seconds = map(float, found.groups())
            at = datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds).total_seconds()
        lines.append((at, text))
    return [(at or lines_at(lines), text) for at, text in lines]


def lines_at(lines: t.Sequence[tuple[float, str]]) -> float:
    return next(at for at, _text in lines if at)


def clock(text: str) -> float:
    hours, minutes, seconds = map(float, text.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def test_a_start_of_vllm_is_split_by_its_lines() -> None:
    began, ended = clock("12:42:26"), clock("12:45:41")
    stages = split(recorded("vllm-0.26-two-gpus.log"), "vllm", began, ended)
    assert stages.parts == {
        "imports, arguments": 17,
        "model's configuration": 21,
        "core: process, imports": 25,
        "core: device": 29,
        "core: weights": 2,
        "core: compile": 55,
        "core: memory": 3,
        "core: CUDA graphs": 9,
        "core: kernels": 19,
        "core: scheduler": 5,
        "server": 10,
        "answers /health": 0,
    }
    assert sum(stages.parts.values()) == stages.seconds == 195
    assert stages.beside == {"pictures": pytest.approx(7.853 + 0.667)}


def stamped(name: str) -> list[tuple[float, str]]:
    """A journal whose lines begin with the seconds since the unit was started."""
    pieces = [line.partition(" ") for line in (JOURNALS / name).read_text(encoding="utf-8").splitlines()]
    return [(float(at), text) for at, _space, text in pieces]


def test_a_second_start_on_one_gpu_is_split_by_its_lines() -> None:
    assert split(stamped("vllm-0.26-second-start.log"), "vllm", 0, 65.72).as_dict() == {
        "seconds": 65.7,
        "parts": {
            "imports, arguments": 12.7,
            "model's configuration": 0.0,
            "core: process, imports": 13.9,
            "core: device": 2.1,
            "core: weights": 1.4,
            "core: compile": 6.7,
            "core: memory": 1.9,
            "core: CUDA graphs": 4.9,
            "core: kernels": 12.6,
            "core: scheduler": 1.7,
            "server": 7.8,
            "answers /health": 0.0,
        },
        "beside": {"pictures": 6.6},
    }


def test_a_start_without_a_second_import_is_split_by_its_lines() -> None:
    parts = split(stamped("vllm-0.26-fork.log"), "vllm", 0, 43.1).as_dict()["parts"]
    assert (parts["core: process, imports"], parts["core: kernels"], parts["core: compile"]) == (3.2, 0.9, 8.1)


def test_a_start_of_sglang_is_split_by_its_lines() -> None:
    stages = split(recorded("sglang-0.5.17-two-gpus.log"), "sglang", clock("16:07:20"), clock("16:08:24"))
    assert stages.parts == {
        "imports, arguments": 21,
        "tokenizer, pictures": 4,
        "scheduler: process, imports": 22,
        "scheduler: device": 2,
        "scheduler: weights": 0,
        "scheduler: memory": 1,
        "scheduler: CUDA graphs": 9,
        "server": 1,
        "own question": 3,
        "answers /health": 1,
    }


def test_lines_of_another_start_do_not_count() -> None:
    journal = recorded("vllm-0.26-two-gpus.log")
    later = [(at + 1000, text) for at, text in journal]
    one = split(journal, "vllm", clock("12:42:26"), clock("12:45:41"))
    assert split([*journal, *later], "vllm", clock("12:42:26"), clock("12:45:41")) == one


def test_a_stage_that_an_engine_does_not_tell_is_part_of_the_next_one() -> None:
    journal = [(at, text) for at, text in recorded("vllm-0.26-two-gpus.log") if "Model loading took" not in text]
    parts = split(journal, "vllm", clock("12:42:26"), clock("12:45:41")).parts
    assert "core: weights" not in parts
    assert parts["core: compile"] == 57


def test_the_seconds_are_rounded_for_a_result() -> None:
    lines = [(1.04, "non-default args: {}"), (2.26, "Application startup complete.")]
    assert split(lines, "vllm", 0, 2.31).as_dict() == {
        "seconds": 2.3,
        "parts": {"imports, arguments": 1.0, "server": 1.2, "answers /health": 0.1},
        "beside": {},
    }


def test_the_time_of_imports_is_that_of_packages() -> None:
    lines = [
        (1.0, "import time: self [us] | cumulative | imported package"),
        (1.1, "import time:   1500000 |    1500000 |     torch._C"),
        (1.2, "import time:    500000 |    2000000 |   torch"),
        (1.3, "import time:    900000 |     900000 | vllm.engine"),
        (1.4, "INFO Starting vLLM server on http://127.0.0.1:8100"),
    ]
    assert import_seconds(lines) == {"torch": 2.0, "vllm": 0.9}
    assert import_seconds(lines, 1) == {"torch": 2.0}


def test_a_sample_stands_for_the_time_since_the_one_before() -> None:
    samples = [
        "10.00 __main__:<module>",
        "10.02 __main__:<module>;vllm:<module>;torch:<module>",
        "12.02 __main__:<module>;vllm:<module>;torch:<module>;torch._C:load",
        "12.04 __main__:<module>;vllm.serve:run",
    ]
    tables = heaviest(samples)
    assert tables["function"] == {"torch._C:load": 2.0, "torch:<module>": 0.02, "vllm.serve:run": 0.02}
    assert tables["package"] == {"torch": 2.02, "vllm": 0.02}
    assert tables["import"] == {"__main__": 2.04, "vllm": 2.02, "torch": 2.02}
    assert list(heaviest(samples, 1)["function"]) == ["torch._C:load"]


def test_the_lines_of_a_journal_have_times() -> None:
    text = (
        '{"__REALTIME_TIMESTAMP": "1764493200250000", "MESSAGE": "serves"}\n'
        '{"__REALTIME_TIMESTAMP": "1764493201000000", "MESSAGE": [27, 91, 226, 150, 136]}\n'
        '{"__REALTIME_TIMESTAMP": "1764493202000000", "MESSAGE": null}\n'
    )
    assert journal_lines(text) == [(1764493200.25, "serves"), (1764493201.0, "\x1b[\u2588"), (1764493202.0, "")]


def test_a_start_is_written_as_a_sum() -> None:
    stages = Stages(3.0, {"imports, arguments": 1.96, "core: weights": 0.04, "server": 1.0}, {"pictures": 0.5})
    assert str(stages) == "imports, arguments 2.0 + server 1.0; beside that pictures 0.5"
