# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The table of the settings that hurt, and what a look at all target groups finds. Pure.

A new setting is one row in ``checks``, ``attributes``, ``balancers`` or ``targets``, with the function that judges it.
``python -m tests.balancer_settings`` writes the table of docs/aws.md from the rows.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer import attributes, balancers, checks, targets
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import BalancerNeeds, GroupReading
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.verdicts import (
    ERROR,
    OK,
    WARNING,
    BalancerSetting,
    SettingVerdict,
)

SETTINGS: tuple[BalancerSetting, ...] = (
    *checks.SETTINGS,
    *attributes.SETTINGS,
    *balancers.SETTINGS,
    *targets.SETTINGS,
)


@dataclasses.dataclass(frozen=True)
class SettingFinding:
    """A row of the table that playbooks/balancer.yml shows.

    Attributes:
        group: the target group's name.
        setting: the name of the setting.
        found: the verdict.
    """

    group: str
    setting: str
    found: SettingVerdict

    @property
    def said(self) -> str:
        """The finding as a sentence, with its repair."""
        repair = f" Repair: {self.found.repair}" if self.found.repair else ""
        what = f"{self.setting}: {self.found.value}, wanted {self.found.wanted}"
        return f"Target group {self.group}, {what}: {self.found.why.rstrip('.')}.{repair}"

    def as_row(self) -> dict[str, str]:
        """The finding as a row of a table."""
        return {
            "group": self.group,
            "setting": self.setting,
            "is": self.found.value,
            "wanted": self.found.wanted,
            "why": self.found.why,
            "verdict": self.found.verdict,
        }


def look(group: GroupReading, needs: BalancerNeeds) -> list[SettingFinding]:
    """What every setting of a target group and its balancers is, in the order of the table."""
    settings = [one for one in SETTINGS if one.name == "target type"] if checks.is_refused(group) else SETTINGS
    return [
        SettingFinding(group.name, setting.name, verdict)
        for setting in settings
        for verdict in setting.judge(group, needs)
    ]


def of_verdict(findings: t.Iterable[SettingFinding], verdict: str) -> list[str]:
    """The findings of a verdict as sentences, each once."""
    return list(dict.fromkeys(one.said for one in findings if one.found.verdict == verdict))


def errors(findings: t.Iterable[SettingFinding]) -> list[str]:
    """What must be repaired before a rollout."""
    return of_verdict(findings, ERROR)


def warnings(findings: t.Iterable[SettingFinding]) -> list[str]:
    """What should be repaired."""
    return of_verdict(findings, WARNING)


def repairs(findings: t.Iterable[SettingFinding]) -> list[str]:
    """The commands that repair what is wrong, errors first, each once."""
    wrong = [one.found for one in findings if one.found.verdict != OK and one.found.repair]
    return list(dict.fromkeys(one.repair for one in sorted(wrong, key=lambda one: one.verdict != ERROR)))
