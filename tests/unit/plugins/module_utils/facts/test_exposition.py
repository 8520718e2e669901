from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import parse
from ansible_collections.inference.fleet.plugins.module_utils.facts.exposition import METRICS, Series, render


def test_metrics_are_written_in_one_block_with_type_and_help() -> None:
    text = render(
        [
            Series("fleet_gate_passed", {"name": "edge"}, True),
            Series("fleet_last_look_timestamp_seconds", {}, 1795993219.25),
            Series("fleet_gate_passed", {"name": "vllm-0"}, False),
        ]
    )
    assert text == (
        "# HELP fleet_gate_passed Whether the last gate of this name passed.\n"
        "# TYPE fleet_gate_passed gauge\n"
        'fleet_gate_passed{name="edge"} 1\n'
        'fleet_gate_passed{name="vllm-0"} 0\n'
        "# HELP fleet_last_look_timestamp_seconds When these metrics were written.\n"
        "# TYPE fleet_last_look_timestamp_seconds gauge\n"
        "fleet_last_look_timestamp_seconds 1795993219.25\n"
    )


def test_a_label_may_hold_anything() -> None:
    value = 'a "b" \\ c\nd é'
    [sample] = parse(render([Series("fleet_info", {"host": value, "ring": ""}, 1)]))
    assert sample.labels == {"host": value}
    assert render([Series("fleet_info", {"host": "\udcff"}, 1)]).endswith('{host="?"} 1\n')


def test_labels_that_are_there_twice_have_one_value() -> None:
    text = render([Series("fleet_gate_passed", {"name": "edge"}, value) for value in (0, 1)])
    assert [sample.value for sample in parse(text)] == [1]


def test_a_summary_has_its_sum_and_count() -> None:
    text = render([Series(f"fleet_request_seconds_{part}", {"client": "a"}, 2) for part in ("sum", "count")])
    assert text.count("# TYPE fleet_request_seconds summary\n") == 1
    assert [sample.name for sample in parse(text)] == ["fleet_request_seconds_sum", "fleet_request_seconds_count"]


def test_a_name_without_a_help_is_a_mistake_of_ours() -> None:
    with pytest.raises((KeyError, StopIteration)):
        render([Series("fleet_unknown", {}, 1)])


def test_prometheus_finds_no_fault_with_any_metric() -> None:
    if not shutil.which("promtool"):
        pytest.skip("needs promtool")
    series = []
    for name, (kind, _help) in METRICS.items():
        names = [f"{name}_sum", f"{name}_count"] if kind == "summary" else [name]
        series += [Series(one, {"client": "a"}, 1) for one in names]
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=render(series), capture_output=True, text=True, check=False
    )
    # A matter of taste: its name is the one that people look for.
    assert [line for line in done.stderr.splitlines() if not line.startswith("fleet_gpu_count ")] == []
    assert done.returncode in (0, 3)
