# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Prometheus' configuration. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

#: The exporter's figures for one host come from that host, whatever its text files say: Prometheus' own labels win, and
#: an instance's number becomes the name that the edge has for it.
_NODE_RELABEL = [
    {"source_labels": ["exported_instance"], "regex": "([0-9]+)", "target_label": "server", "replacement": "engine-$1"},
    {"regex": "exported_(instance|host|kind|tier|ring)", "action": "labeldrop"},
]
#: Scrapes of instances have proxies of their own, which are always up and count nothing that matters.
_EDGE_RELABEL = [{"source_labels": ["proxy"], "regex": "metrics_.*|MASTER", "action": "drop"}]
#: What HAProxy's exporter is asked for: a tenth of all that it has.
_SCOPES = ["global", "frontend", "backend", "server"]


@dataclasses.dataclass(frozen=True)
class ScrapeOptions:
    """How Prometheus scrapes.

    Attributes:
        targets: the directory with a file for each job.
        key_file: the file with the key of the client ``monitoring``, which is read at every scrape.
        ca_file: verifies the edges' certificates; empty for not at all.
        interval: such as ``15s``.
        jobs: the names of the jobs.
        exporter: the address of the monitoring host's own node exporter; empty for none.
        host: the monitoring host's name.
    """

    targets: str
    key_file: str
    ca_file: str
    interval: str
    jobs: t.Sequence[str]
    exporter: str
    host: str


def scrape_configs(options: ScrapeOptions) -> list[dict[str, t.Any]]:
    """The jobs, as in ``scrape_configs``."""
    tls = {"ca_file": options.ca_file} if options.ca_file else {"insecure_skip_verify": True}
    more: dict[str, dict[str, t.Any]] = {
        "edge": {"params": {"scope": _SCOPES}, "metric_relabel_configs": _EDGE_RELABEL},
        "node": {"metric_relabel_configs": _NODE_RELABEL},
    }
    jobs = [
        {
            "job_name": job,
            "scrape_interval": options.interval,
            "authorization": {"credentials_file": options.key_file},
            "tls_config": tls,
            "file_sd_configs": [{"files": [f"{options.targets}/{job}.json"]}],
            **more.get(job, {}),
        }
        for job in options.jobs
    ]
    if options.exporter:
        own = {"job": "node", "host": options.host, "kind": "monitoring"}
        jobs.append(
            {
                "job_name": "own",
                "scrape_interval": options.interval,
                "static_configs": [{"targets": [options.exporter], "labels": own}],
                **more["node"],
            }
        )
    return jobs


def prometheus(options: ScrapeOptions, rules: str, alertmanager: str) -> dict[str, t.Any]:
    """The whole configuration.

    Args:
        options: how to scrape.
        rules: the rule file.
        alertmanager: its address.
    """
    return {
        "global": {"scrape_interval": options.interval, "evaluation_interval": options.interval},
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "rule_files": [rules],
        "scrape_configs": scrape_configs(options),
    }
