# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Prometheus' rule file from the table of alerts. Pure."""

from __future__ import annotations

import json
import typing as t

import yaml
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert, check_alerts
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.table import SUBJECTS

#: Where a message leads to; the alert's name in lower case is the anchor.
RUNBOOK = "https://github.com/inference-fleet/inference.fleet/blob/main/docs/alerts.md"


def rule(alert: Alert, runbook: str = RUNBOOK) -> dict[str, t.Any]:
    """An alert as Prometheus takes it."""
    return {
        "alert": alert.name,
        "expr": alert.expression,
        **({"for": alert.holds} if alert.holds else {}),
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.meaning,
            "action": alert.action,
            "runbook": f"{runbook}#{alert.name.lower()}",
        },
    }


def rule_file(runbook: str = RUNBOOK, without: t.Collection[str] = ()) -> str:
    """The rule file, a group for each subject.

    Args:
        runbook: the address of the page with an entry for each alert.
        without: names of alerts to leave out.

    Raises:
        FleetError: the table has an error, or a name is unknown.
    """
    alerts = [alert for rows in SUBJECTS.values() for alert in rows]
    check_alerts(alerts)
    check_names(without, alerts)
    groups = [
        {"name": subject.lower().replace(" ", "_"), "rules": rules}
        for subject, rows in SUBJECTS.items()
        if (rules := [rule(alert, runbook) for alert in rows if alert.name not in without])
    ]
    return dump({"groups": groups})


def check_names(names: t.Collection[str], alerts: t.Iterable[Alert]) -> None:
    """Raise FleetError for names that no alert has."""
    known = {alert.name for alert in alerts}
    unknown = sorted(set(names) - known)
    if unknown:
        raise FleetError(f"There is no alert {', '.join(unknown)}. docs/alerts.md has all of them.")


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as one."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def dump(document: t.Any) -> str:
    """A document as YAML that people can read."""
    # Ansible's values are of its own types, which the dumper does not know.
    plain = json.loads(json.dumps(document))
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
