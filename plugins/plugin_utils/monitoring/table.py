# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The table of alerts. Prometheus' rules, CloudWatch's alarms and docs/alerts.md are made of it. Pure.

A new alert is a row in ``objectives``, ``instances``, ``gpus``, ``hosts`` or ``gateways``, with a case in which it
fires and one in which it is silent (tests/integration/monitoring/cases). ``python -m tests.alerts_page`` writes
docs/alerts.md.
"""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import (
    gateways,
    gpus,
    hosts,
    instances,
    objectives,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert

#: The alerts by subject, in the order of the pages.
SUBJECTS: dict[str, tuple[Alert, ...]] = {
    "Objectives": objectives.ALERTS,
    "Instances": instances.ALERTS,
    "GPUs": gpus.ALERTS,
    "Hosts and the fleet": hosts.ALERTS,
    "Gateways": gateways.ALERTS,
}

ALERTS: tuple[Alert, ...] = tuple(alert for alerts in SUBJECTS.values() for alert in alerts)
