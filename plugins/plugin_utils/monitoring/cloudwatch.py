# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""CloudWatch's PromQL alarms from the table of alerts, as PutMetricAlarm takes them. Pure.

They judge what the CloudWatch agent scrapes and sends to its OTLP endpoint, with the labels of the scrape file.
"""

from __future__ import annotations

import json
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.table import ALERTS
from ansible_collections.inference.fleet.plugins.plugin_utils.variables.units import seconds

#: What a person puts in: the topics of Amazon SNS.
TOPICS = {"page": "arn:aws:sns:REGION:ACCOUNT:fleet-page", "ticket": "arn:aws:sns:REGION:ACCOUNT:fleet-ticket"}
#: Seconds between evaluations, and for which an alarm stays after its cause.
_EVERY, _RECOVERY = 60, 300


def alarm(alert: Alert) -> dict[str, t.Any]:
    """An alert as the arguments of PutMetricAlarm. Each series of the query is a contributor of the alarm."""
    return {
        "AlarmName": f"fleet-{alert.name}",
        "AlarmDescription": f"{alert.meaning} To do: {alert.action}",
        "AlarmActions": [TOPICS[alert.severity]],
        "EvaluationInterval": _EVERY,
        "EvaluationCriteria": {
            "PromQLCriteria": {
                "Query": alert.expression,
                "PendingPeriod": int(seconds(alert.holds or 0) or 0),
                "RecoveryPeriod": _RECOVERY,
            }
        },
    }


def alarms() -> list[dict[str, t.Any]]:
    """The alarms of all alerts with a topic."""
    return [alarm(alert) for alert in ALERTS if alert.severity in TOPICS]


def alarms_file() -> str:
    """examples/aws/promql-alarms.json."""
    return json.dumps(alarms(), indent=2, ensure_ascii=False) + "\n"
