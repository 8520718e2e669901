# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What an alert is: one row of the table, and what makes a row valid. Pure."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: What a severity leads to: page wakes a person, ticket waits for working hours, none is for other routes.
SEVERITIES = ("page", "ticket", "none")

_NAME = re.compile(r"[A-Z][A-Za-z0-9]+\Z")
_FOR = re.compile(r"(?:[1-9][0-9]*[smhd])?\Z")


@dataclasses.dataclass(frozen=True)
class Alert:
    """A row of the table.

    Attributes:
        name: in CamelCase, without spaces.
        summary: the first line of a message; a template of Prometheus, with ``$labels`` and ``$value``.
        expression: PromQL that is complete in itself, so that any system that speaks PromQL can evaluate it.
        severity: one of SEVERITIES.
        meaning: what is wrong when it fires, and why it is worth a message.
        action: what to do.
        holds: how long the expression must hold, such as ``10m``; empty for not at all.
    """

    name: str
    summary: str
    expression: str
    severity: str
    meaning: str
    action: str
    holds: str = ""


def check_alerts(alerts: t.Sequence[Alert]) -> None:
    """Raise FleetError that names every row with an error.

    Raises:
        FleetError: a severity is unknown, a name is invalid or used twice, or a text is missing.
    """
    problems = [problem for alert in alerts for problem in _problems(alert)]
    names = [alert.name for alert in alerts]
    problems += [f"{name} is there twice." for name in sorted({name for name in names if names.count(name) > 1})]
    if problems:
        raise FleetError("The table of alerts: " + " ".join(problems))


def _problems(alert: Alert) -> t.Iterator[str]:
    if not _NAME.match(alert.name):
        yield f"{alert.name!r} is no name; one is in CamelCase."
    if alert.severity not in SEVERITIES:
        yield f"{alert.name} has the severity {alert.severity!r}; valid are {', '.join(SEVERITIES)}."
    if not _FOR.match(alert.holds):
        yield f"{alert.name} holds {alert.holds!r}; valid are a number and s, m, h or d, or nothing."
    yield from (
        f"{alert.name} has no {text}."
        for text in ("summary", "expression", "meaning", "action")
        if not getattr(alert, text).strip()
    )
