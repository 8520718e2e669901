"""The rules in Prometheus' own test program: every alert fires in one case and is silent in another."""

from __future__ import annotations

import re
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import rules
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.dashboards import DASHBOARDS
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.table import ALERTS

from tests.debian import program

CASES = Path(__file__).parent / "cases"


def read_cases() -> dict[str, dict[str, t.Any]]:
    """The cases of each alert: ``at`` is when to look, ``series`` what there is, ``labels`` and ``says`` are expected.
    The interval is a minute if no other is given."""
    found: dict[str, dict[str, t.Any]] = {}
    for path in sorted(CASES.glob("*.yml")):
        cases = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert not found.keys() & cases.keys(), path
        found.update(cases)
    return found


def write(directory: Path, name: str, document: t.Any) -> Path:
    path = directory / name
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def as_test(alert: dict[str, t.Any], case: dict[str, t.Any], fires: bool) -> dict[str, t.Any]:
    """A case as promtool takes it."""
    interval = case.get("interval", "1m")
    expected = {
        "exp_labels": {**alert["labels"], **case.get("labels", {})},
        "exp_annotations": {**alert["annotations"], "summary": case.get("says", "")},
    }
    test = {
        "name": f"{alert['alert']}: {case.get('why', 'fires' if fires else 'is silent')}",
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
        "alert_rule_test": [
            {"eval_time": case["at"], "alertname": alert["alert"], "exp_alerts": [expected] if fires else []}
        ],
    }
    return {"rule_files": [f"{alert['alert']}.yml"], "evaluation_interval": interval, "tests": [test]}


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *map(str, words)], capture_output=True, text=True, check=False, timeout=300
    )


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    cases = read_cases()
    assert [alert.name for alert in ALERTS if not cases.get(alert.name, {}).get("fires")] == []
    lacking = [alert.name for alert in ALERTS if not cases.get(alert.name, {}).get("silent")]
    # It shows that rules are evaluated at all.
    assert lacking == [name for name, case in cases.items() if case.get("always")] == ["DeadMan"]
    assert cases.keys() == {alert.name for alert in ALERTS}


def test_no_value_is_read_as_a_hexadecimal_number() -> None:
    """promtool takes 0x20 for 32: a series with one value, in which an alert is silent for the wrong reason."""
    values = [
        str(value)
        for cases in read_cases().values()
        for kind in ("fires", "silent")
        for case in cases.get(kind, [])
        for value in case["series"].values()
    ]
    assert values
    assert [value for value in values if re.search(r"(?<![\d+-])0x", value)] == []


def test_promtool_agrees_with_every_case(tmp_path: Path) -> None:
    files = []
    for alert in map(rules.rule, ALERTS):
        write(tmp_path, f"{alert['alert']}.yml", {"groups": [{"name": "one", "rules": [alert]}]})
        cases = read_cases().get(alert["alert"], {})
        files += [
            write(tmp_path, f"{alert['alert']}-{kind}-{number}.yml", as_test(alert, case, kind == "fires"))
            for kind in ("fires", "silent")
            for number, case in enumerate(cases.get(kind, []))
        ]
    done = run("test", "rules", *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("SUCCESS") == len(files)


def test_promtool_takes_the_rule_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(rules.rule_file(), encoding="utf-8")
    done = run("check", "rules", "--lint=all", "--lint-fatal", path)
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_promtool_takes_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    """As recording rules; Grafana puts a pattern where the name of a choice is."""
    recorded = [
        {"record": f"panel:{number}", "expr": query.expression.replace("$host", ".*").replace("$server", ".*")}
        for number, query in enumerate(
            query for dashboard in DASHBOARDS for panel in dashboard.panels for query in panel.queries
        )
    ]
    done = run("check", "rules", write(tmp_path, "panels.yml", {"groups": [{"name": "panels", "rules": recorded}]}))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(recorded)} rules found" in done.stdout


@pytest.mark.parametrize(
    ("title", "value"),
    [
        # Two of three hosts are up, at 1.8 and 3.6 dollars.
        ("Cost per hour", 5.4),
        # 1,000 tokens a second.
        ("Cost of a million output tokens", 1.5),
        # And 2,000 of prompts.
        ("Cost of a million tokens", 0.5),
    ],
)
def test_costs_are_those_of_the_hosts_that_are_up(tmp_path: Path, title: str, value: float) -> None:
    (expression,) = (
        query.expression
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
        if panel.title == title
    )
    series = {
        'fleet_price_dollars_per_hour{host="watch-1",of="a"}': "1.8x120",
        'fleet_price_dollars_per_hour{host="watch-2",of="a"}': "1.8x120",
        'fleet_price_dollars_per_hour{host="watch-1",of="b"}': "3.6x120",
        'fleet_price_dollars_per_hour{host="watch-1",of="c"}': "9x120",
        'up{job="edge",host="a"}': "1x120",
        'up{job="edge",host="b"}': "1x120",
        'up{job="edge",host="c"}': "0+0x120",
        'vllm:generation_tokens_total{host="a"}': "0+30000x120",
        'sglang:generation_tokens_total{host="b",is_streaming="true"}': "0+30000x120",
        'vllm:prompt_tokens_total{host="a"}': "0+60000x120",
        'sglang:prompt_tokens_total{host="b",is_streaming="true"}': "0+60000x120",
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"round({expression}, 0.001)",
                "eval_time": "100m",
                "exp_samples": [{"labels": "{}", "value": value}],
            }
        ],
    }
    done = run("test", "rules", write(tmp_path, "costs.yml", {"evaluation_interval": "1m", "tests": [test]}))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["EngineHangs", "KeyExpires"])
def test_a_case_that_is_wrong_is_found(tmp_path: Path, name: str) -> None:
    """An alert that should be silent where it fires, so that the other tests can fail."""
    (alert,) = (rules.rule(one) for one in ALERTS if one.name == name)
    write(tmp_path, f"{name}.yml", {"groups": [{"name": "one", "rules": [alert]}]})
    case = read_cases()[name]["fires"][0]
    done = run("test", "rules", write(tmp_path, "wrong.yml", as_test(alert, case, fires=False)))
    assert done.returncode == 1
