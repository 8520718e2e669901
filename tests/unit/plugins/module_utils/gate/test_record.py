from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gate.record import good_figures, key_in, record_of

KEY = "sk-0123456789abcdef"
FIGURES = {"ttft_ms": 20.0, "tokens_per_second": 60.0}


@pytest.mark.parametrize(
    "text",
    [
        f"ENGINE_API_KEY={KEY}\n",
        f"# made here\nexport ENGINE_API_KEY='{KEY}'\n",
        f'OTHER_API_KEY=sk-another-key-0000\nENGINE_API_KEY="{KEY}"\n',
        f"MODE=fast\nGATE_API_KEY={KEY}\n",
        f"{KEY}\n",
        f"\n  {KEY}  ",
    ],
)
def test_a_key_is_found_bare_or_assigned(text: str) -> None:
    assert key_in(text, "/k") == KEY


def test_a_bare_key_may_end_in_an_equals_sign() -> None:
    assert key_in("c2VjcmV0IHNlY3JldA==\n", "/k") == "c2VjcmV0IHNlY3JldA=="


@pytest.mark.parametrize(
    "text", ["", "\n# nothing\n", "ENGINE_API_KEY=\n", "MODE=fast\n", "two words here\n", "short", "schlüssel-0123"]
)
def test_a_file_without_a_usable_key_is_named_and_not_shown(text: str) -> None:
    with pytest.raises(FleetError, match="The file /etc/k holds") as caught:
        key_in(text, "/etc/k")
    value = text.strip().rpartition("=")[2]
    assert not value or value not in caught.value.message


def result(passed: bool, figures: t.Any = FIGURES, judged: bool = True) -> dict[str, t.Any]:
    return {
        "name": "edge",
        "url": "http://127.0.0.1:8000",
        "model": "m",
        "passed": passed,
        "reason": None if passed else "empty",
        "message": "…",
        "checks": [],
        "not_asked": [],
        "figures": figures,
        "judged": judged,
        "good": None,
        "attempts": 7,
        "seconds": 1.0,
    }


def test_what_passed_becomes_the_last_good() -> None:
    record = record_of(result(True), None, "2026-11-22T12:00:00+00:00")
    assert record["good"] == {"at": "2026-11-22T12:00:00+00:00", "model": "m", "figures": FIGURES}
    assert good_figures(record, "m") == FIGURES


def test_what_failed_leaves_the_last_good_as_it_was() -> None:
    before = record_of(result(True), None, "then")
    after = record_of(result(False, {"ttft_ms": 9000.0}), before, "now")
    assert (after["passed"], after["at"], after["good"]["at"]) == (False, "now", "then")


def test_what_passed_without_figures_leaves_the_last_good_as_it_was() -> None:
    before = record_of(result(True), None, "then")
    assert record_of(result(True, None, judged=False), before, "now")["good"] == before["good"]


def test_what_was_only_recorded_leaves_the_last_good_as_it_was() -> None:
    before = record_of(result(True), None, "then")
    busy = {"ttft_ms": 517.0, "tokens_per_second": 20.0, "load": 3.0, "processors": 2, "requests": 6}
    after = record_of(result(True, busy, judged=False), before, "now")
    assert (after["figures"], after["judged"], after["good"]) == (busy, False, before["good"])


@pytest.mark.parametrize(("work", "at"), [(100.0, "then"), (60.0, "now"), (30.0, "now")])
def test_figures_of_a_busy_machine_are_not_the_last_good(work: float, at: str) -> None:
    before = record_of(result(True, {**FIGURES, "work_ms": 50.0}), None, "then")
    assert record_of(result(True, {**FIGURES, "work_ms": work}), before, "now")["good"]["at"] == at


@pytest.mark.parametrize("before", [None, [], "x", {}, {"good": None}])
def test_a_first_gate_that_failed_has_no_last_good(before: t.Any) -> None:
    assert record_of(result(False), before, "now")["good"] is None


@pytest.mark.parametrize(
    ("document", "figures"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"good": None, "checks": []}, None),
        ({"figures": FIGURES, "checks": [], "good": None}, None),
        (FIGURES, FIGURES),
        ({"figures": FIGURES, "model": "m"}, FIGURES),
        ({"figures": FIGURES, "model": "a larger one"}, None),
        ({"ttft_ms": "20"}, None),
        ({"good": {"model": "m", "figures": FIGURES}}, FIGURES),
    ],
)
def test_figures_count_when_they_are_good_and_of_this_model(document: t.Any, figures: t.Any) -> None:
    assert good_figures(document, "m") == figures
