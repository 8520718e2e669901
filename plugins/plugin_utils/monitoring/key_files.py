# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Where monitoring hosts have the key that metrics are read with, for plays on other hosts. Pure."""

from __future__ import annotations

import typing as t

_NAME = "monitoring.key"
#: Role monitoring's defaults, which plays on other hosts do not have.
DIRECTORY = "/etc/inference/monitoring"
GROUP = "prometheus"


def key_files(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[dict[str, str]]:
    """The file of each host: ``host``, ``path``, and the ``group`` that may read it."""
    return [
        {
            "host": str(host),
            "path": f"{hostvars[host].get('monitoring_directory', DIRECTORY)}/{_NAME}",
            "group": str(hostvars[host].get("monitoring_group", GROUP)),
        }
        for host in hosts
    ]
