"""Every metric that an alert or a panel reads exists in the locked version of what exposes it."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.engines import metrics
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import KINDS
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.dashboards import DASHBOARDS
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.promql import monitored, within
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.table import ALERTS

ROOT = Path(__file__).resolve().parents[5]
RECORDED = ROOT / "tests" / "unit" / "fixtures" / "metrics"
_NAME = re.compile(r"(?<![\w:])(?:vllm:|sglang:|haproxy_|litellm_|node_|fleet_|process_|http_|DCGM_)\w+")
#: Words in front of a brace or a bracket that are no metric of an exporter.
_SELECTED = re.compile(r"([A-Za-z_:][\w:]*)\s*[{\[]")


def recorded() -> set[str]:
    """The names of all samples in the recordings."""
    return {one.name for path in RECORDED.glob("*.prom") for one in metrics.parse(path.read_text(encoding="utf-8"))}


def listed(name: str) -> set[str]:
    lines = (RECORDED / name).read_text(encoding="utf-8").splitlines()
    return {line.split()[0] for line in lines if line and not line.startswith("#")}


def test_the_list_of_our_own_metrics_is_what_our_programs_write() -> None:
    """All names that they could write, from their sources."""
    programs = [
        *ROOT.glob("plugins/module_utils/facts/*.py"),
        ROOT / "plugins/module_utils/watchdog/exposition.py",
        ROOT / "plugins/module_utils/accountant/exposition.py",
        *ROOT.glob("roles/monitoring/files/*.py"),
        *ROOT.glob("roles/monitoring/templates/*.prom.j2"),
        # What LiteLLM's own metrics have of ours.
        ROOT / "roles/litellm/files/fleet_history.py",
        ROOT / "roles/litellm/files/fleet_figures.py",
    ]
    found = {name for path in programs for name in re.findall(r"\bfleet_[a-z_]+", path.read_text(encoding="utf-8"))}
    assert listed("fleet.txt") <= found


def names_in(expression: str) -> set[str]:
    return set(_NAME.findall(re.sub(r'"[^"]*"', '""', expression)))


def expressions() -> t.Iterator[tuple[str, str]]:
    yield from ((alert.name, alert.expression) for alert in ALERTS)
    yield from (
        (f"{dashboard.name}: {panel.title}", query.expression)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
    )
    yield from (
        (f"{dashboard.name}: {label}", metric) for dashboard in DASHBOARDS for label, metric in dashboard.choices
    )


def test_every_name_is_in_a_recording_or_is_written_by_the_fleet() -> None:
    known = recorded() | listed("unseen.txt") | listed("fleet.txt")
    missing = {where: names_in(text) - known for where, text in expressions()}
    assert {where: names for where, names in missing.items() if names} == {}


def test_every_selector_is_a_name_that_was_looked_at() -> None:
    """So that a metric with another beginning cannot pass unseen."""
    for where, text in expressions():
        selected = set(_SELECTED.findall(re.sub(r'"[^"]*"', '""', text)))
        assert selected - names_in(text) <= {"up", "ALERTS"}, where


def test_what_is_not_in_a_recording_is_not_said_to_be() -> None:
    assert not listed("unseen.txt") & recorded(), "it was seen: take it out of unseen.txt"


@pytest.mark.parametrize("name", KINDS)
def test_there_is_a_recording_of_every_locked_version(name: str) -> None:
    locks = yaml.safe_load((ROOT / "roles" / name / "files" / "locks" / "locks.yml").read_text(encoding="utf-8"))
    for version in {lock["version"] for lock in locks.values()}:
        assert (RECORDED / f"{name}-{version}.prom").exists(), f"record the metrics of {name} {version}"


def test_engines_have_the_bounds_of_the_objectives() -> None:
    for one in monitored():
        for histogram, bounds in (
            (one.names.first_token, [1, 10]),
            (one.names.token_gap, [0.1]),
        ):
            found = {
                float(sample.labels["le"])
                for path in RECORDED.glob("*.prom")
                for sample in metrics.parse(path.read_text(encoding="utf-8"))
                if sample.name == f"{histogram.name}_bucket"
            }
            assert set(bounds) <= found, histogram.name


def test_a_bound_is_found_however_it_is_written() -> None:
    match = re.fullmatch(r'le=~"(.*)"', within(10))
    assert match
    assert [text for text in ("10", "10.0", "100", "1", "1010") if re.fullmatch(match[1], text)] == ["10", "10.0"]
