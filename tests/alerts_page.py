"""Writes docs/alerts.md and examples/aws/promql-alarms.json from the alerts: ``python -m tests.alerts_page``."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import cloudwatch, table  # noqa: E402
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert  # noqa: E402

PAGE = ROOT / "docs" / "alerts.md"
ALARMS = ROOT / "examples" / "aws" / "promql-alarms.json"

_HEAD = """# Alerts

<!-- Written by tests/alerts_page.py. Change plugins/plugin_utils/monitoring and run: python -m tests.alerts_page -->

Every alert, what it means and what to do. A *page* wakes a person, a *ticket* waits for working hours, *none* is for
routes of your own. Role [monitoring](../roles/monitoring/README.md) installs them;
[observability.md](observability.md) describes where the figures come from. Commands run as in
[operations.md](operations.md), with `-i inventories/aws`.
"""


def written() -> str:
    """The page."""
    lines = [_HEAD, "| alert | severity | after | |", "| --- | --- | --- | --- |"]
    lines += [
        f"| [{alert.name}](#{alert.name.lower()}) | {alert.severity} | {alert.holds or 'at once'} | {subject} |"
        for subject, alerts in table.SUBJECTS.items()
        for alert in alerts
    ]
    for subject, alerts in table.SUBJECTS.items():
        lines += ["", f"## {subject}"]
        lines += [line for alert in alerts for line in _entry(alert)]
    return "\n".join([*lines, ""])


def _entry(alert: Alert) -> list[str]:
    when = f"{alert.severity}, after {alert.holds}" if alert.holds else f"{alert.severity}, at once"
    return [
        "",
        f"### {alert.name}",
        "",
        f"*{when}.* {alert.meaning}",
        "",
        f"**To do.** {alert.action}",
        "",
        "```promql",
        alert.expression,
        "```",
    ]


def main() -> t.NoReturn:
    PAGE.write_text(written(), encoding="utf-8")
    ALARMS.write_text(cloudwatch.alarms_file(), encoding="utf-8")
    sys.exit()


if __name__ == "__main__":
    main()
