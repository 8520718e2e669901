# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for role monitoring; the logic is in plugin_utils/monitoring."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import (
    key_files,
    receivers,
    rules,
    scrape,
    silences,
    targets,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.status import units


def prometheus_rules(without: t.Sequence[str], runbook: str) -> str:
    """Prometheus' rule file, without the alerts of these names."""
    return _said(lambda: rules.rule_file(runbook, without))


def prometheus_targets(
    facts: t.Mapping[str, t.Mapping[str, t.Any]], groups: t.Mapping[str, t.Sequence[str]], dcgm: bool = False
) -> dict[str, t.Any]:
    """The targets of each of Prometheus' jobs."""
    return _said(lambda: targets.targets(facts, groups, dcgm))


def prometheus_config(options: t.Mapping[str, t.Any], rule_file: str, alertmanager: str) -> str:
    """Prometheus' configuration."""
    return rules.dump(scrape.prometheus(scrape.ScrapeOptions(**options), rule_file, alertmanager))


def prometheus_jobs(options: t.Mapping[str, t.Any]) -> str:
    """The jobs alone, for a Prometheus of somebody else."""
    return rules.dump({"scrape_configs": scrape.scrape_configs(scrape.ScrapeOptions(**options))})


def alertmanager_config(value: t.Any) -> str:
    """Alertmanager's configuration for these receivers."""
    return _said(lambda: rules.dump(receivers.alertmanager(value)))


def receiver_problems(value: t.Any) -> str:
    """What is wrong with the receivers; empty for nothing."""
    try:
        receivers.check_receivers(value)
    except FleetError as error:
        return error.message
    return ""


def alertmanagers(
    hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Mapping[str, t.Any]]
) -> list[dict[str, str | None]]:
    """Through which hosts a rollout silences alerts, and where."""
    return silences.alertmanagers(hosts, hostvars)


def metrics_key_files(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[dict[str, str]]:
    """Where monitoring hosts have the key that metrics are read with."""
    return key_files.key_files(hosts, hostvars)


def silence_seconds(plan: t.Mapping[str, t.Any], hosts: t.Sequence[str], most: float) -> float:
    """How long the silence of a turn may last."""
    return silences.seconds(plan, hosts, most)


def silence_comment(plan: t.Mapping[str, t.Any], turn: t.Mapping[str, t.Any]) -> str:
    """What people read about the silence of a turn."""
    return silences.comment(plan, turn)


def silence_notes(results: t.Iterable[t.Mapping[str, t.Any]], hosts: t.Sequence[str], ends: bool) -> list[str]:
    """A sentence for each Alertmanager that did not silence, or did not end it."""
    return silences.notes(results, hosts, ends)


def status_units(options: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The units of the status page."""
    return units.render_units(units.StatusUnits(**options))


_T = t.TypeVar("_T")


def _said(work: t.Callable[[], _T]) -> _T:
    try:
        return work()
    except FleetError as error:
        raise AnsibleFilterError(error.message) from error


class FilterModule:
    """Ansible's view of the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "alertmanager_config": alertmanager_config,
            "alertmanagers": alertmanagers,
            "metrics_key_files": metrics_key_files,
            "prometheus_config": prometheus_config,
            "prometheus_jobs": prometheus_jobs,
            "prometheus_rules": prometheus_rules,
            "prometheus_targets": prometheus_targets,
            "receiver_problems": receiver_problems,
            "silence_comment": silence_comment,
            "silence_notes": silence_notes,
            "silence_seconds": silence_seconds,
            "status_units": status_units,
        }
