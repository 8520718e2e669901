"""The list of steps: the effects of a new line everywhere."""

from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.report import lines
from ansible_collections.inference.fleet.plugins.plugin_utils.report.page import render_page
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import ends, fold
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

from tests.unit.plugins.plugin_utils.rollout.rollout_journals import Journal

WARM = steps.Step("warm_up", "cache warm-up", "#0a0b0c", "#f0f1f2", out=True)


@pytest.fixture
def one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more line, after the gate."""
    place = [step.name for step in steps.STEPS].index("gate") + 1
    monkeypatch.setattr(steps, "STEPS", (*steps.STEPS[:place], WARM, *steps.STEPS[place:]))


def journal() -> Journal:
    made = Journal().begin([["inference-1"]]).turn(1, 1, ["inference-1"])
    made.step("inference-1", "stop", 4).step("inference-1", "gate", 6).step("inference-1", "warm_up", 5)
    return made.step("inference-1", "undrain", 1).outcome("inference-1").end()


@pytest.mark.usefixtures("one_more")
def test_the_record_counts_it_among_those_in_which_the_instance_is_out() -> None:
    assert fold(journal().events)["waves"][0]["out_seconds"] == pytest.approx(15)
    assert not ends("vllm-0", "warm_up", "vllm-1", "drain")
    assert ends("vllm-0", "undrain", "vllm-1", "drain")


@pytest.mark.usefixtures("one_more")
def test_the_page_has_its_bar_with_its_colours_and_its_place_in_the_legend() -> None:
    text = render_page(fold(journal().events))
    legend = text[text.index('class="legend"') :]
    assert legend.index(">gate<") < legend.index(">cache warm-up<") < legend.index(">undrain<")
    assert "inference-1 vllm-0: cache warm-up, 5.0 s from" in text
    assert 'class="step s-warm_up"' in text
    assert text.count(".s-warm_up { background-color: light-dark(#0a0b0c, #f0f1f2); }") == 1


@pytest.mark.usefixtures("one_more")
def test_the_terminal_has_its_line() -> None:
    reporter = lines.Reporter()
    written = [line.text for event in journal().events for line in reporter.take(event, event["at"])]
    assert any(text.endswith("inference-1 vllm-0  cache warm-up") for text in written)


@pytest.mark.usefixtures("one_more")
def test_an_event_may_name_it() -> None:
    steps.check("warm_up")


@pytest.mark.parametrize("name", ["warm_up", "", None])
def test_what_is_no_step_is_refused_with_those_that_there_are(name: str | None) -> None:
    with pytest.raises(FleetError, match=r"is no step of a rollout; valid are deregister, drain, .*, register\."):
        steps.check(name)


def test_a_step_of_another_version_is_shown_by_its_name() -> None:
    assert steps.label("warm_up") == "warm up"
    assert not steps.is_out("warm_up")
    record = fold(journal().events)
    assert record["hosts"]["inference-1"]["instances"]["vllm-0"]["steps"][2]["step"] == "warm_up"
    assert 'class="step s-other"' in render_page(record)


def test_a_hosts_steps_at_its_target_groups_are_before_and_after_those_of_its_instances() -> None:
    names = [step.name for step in steps.STEPS]
    changes = [name for name in names if name not in ("trial", "measure")]
    assert changes == ["deregister", *(step.name for step in steps.of_instances()), "register"]
    assert not steps.follows_change("deregister")
    assert steps.follows_change("register")
    assert not steps.is_out("deregister")
    assert not steps.is_of_balancer("warm_up")


def test_they_end_with_whatever_comes_next_on_the_host() -> None:
    made = Journal().begin([["inference-1"]]).turn(1, 1, ["inference-1"])
    made.step("inference-1", "deregister", 12, "").step("inference-1", "drain", 3)
    made.step("inference-1", "confirm", 1).step("inference-1", "register", 8, "")
    record = fold(made.outcome("inference-1").end().events)
    taken = record["hosts"]["inference-1"]["instances"]["vllm-0"]["steps"]
    assert [(step["step"], step["seconds"]) for step in taken] == [
        ("deregister", pytest.approx(12)),
        ("drain", pytest.approx(3)),
        ("confirm", pytest.approx(1)),
        ("register", pytest.approx(8)),
    ]
    reporter = lines.Reporter()
    written = [line.text for event in made.events for line in reporter.take(event, event["at"])]
    assert any(text.endswith("inference-1  deregister") for text in written)
    # None of them is reported as going on once the host is done.
    assert reporter.quiet(made.events[-1]["at"] + 3600) == []


def test_names_and_colours_are_used_once() -> None:
    for values in zip(*((step.name, step.label, step.colour, step.dark) for step in steps.STEPS)):
        assert len(set(values)) == len(steps.STEPS)
