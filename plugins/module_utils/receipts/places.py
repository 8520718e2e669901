# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The roles' files on a host."""

from __future__ import annotations

import glob
import os
import typing as t

from ..accountant.unit import UNIT as ACCOUNTANT
from ..core.files import read_json
from ..edge.hold import UNIT as PRESENCE
from ..facts.exporter import SETTINGS as EXPORTER_SETTINGS
from ..facts.exporter import UNIT as EXPORTER
from ..facts.unit import SERVICE as FACTS
from ..facts.unit import TIMER as FACTS_TIMER
from ..instances.releases import CACHE_DIRECTORY
from ..model.units import RESTORE
from ..notices.unit import UNIT as NOTICES
from ..runtimes.runtime import MARKER
from ..watchdog.unit import UNIT as WATCHDOG
from .look import Places

UNIT_DIRECTORY = "/etc/systemd/system"
CONFIGURATION = ["/etc/haproxy", "/etc/inference"]
JOURNAL_LIMIT = "/etc/systemd/journald.conf.d/inference.conf"


def places_of(root: str, packages: list[str], maps: str, state: str) -> Places:
    """Everything that roles put on a host whose engines are below ``root``.

    Args:
        root: ``/opt/inference`` on a real host.
        packages: the distribution's packages that were installed.
        maps: the directory of HAProxy's maps.
        state: the directory of the modules' records about the host.
    """
    instances = sorted(name for name in _names(os.path.join(root, "instances")) if name.isdigit())
    manifests = {name: _manifest(root, name) for name in instances}
    units = [f"{manifest['engine']}@{index}.service" for index, manifest in manifests.items() if manifest]
    models = {
        str(manifest[name])
        for manifest in manifests.values()
        for name in ("model_path", "draft_path")
        if manifest.get(name)
    }
    watching = (f"{unit}*" for unit in (NOTICES, WATCHDOG, ACCOUNTANT, FACTS, FACTS_TIMER))
    ours = ("*@*.service*", "haproxy.service*", RESTORE, PRESENCE, *watching)
    systemd = [os.path.join(UNIT_DIRECTORY, *parent, name) for parent in ((), ("*.wants",)) for name in ours]
    # Not on every host. Of the facts only the timer: the service runs for a moment, again and again.
    optional = (RESTORE, NOTICES, WATCHDOG, ACCOUNTANT, FACTS_TIMER)
    further = [name for name in optional if os.path.exists(os.path.join(UNIT_DIRECTORY, name))]
    # One that somebody else runs does not count.
    if os.path.exists(os.path.join(UNIT_DIRECTORY, EXPORTER_SETTINGS)):
        further.append(EXPORTER)
    return Places(
        contents=[
            *CONFIGURATION,
            *(os.path.join(root, name) for name in ("instances", "libexec", "releases", "staged")),
            os.path.join(root, "runtimes", "*", MARKER),
            *(os.path.join(state, name) for name in ("drain.json", "rollout.json")),
            *systemd,
            os.path.join(UNIT_DIRECTORY, EXPORTER_SETTINGS),
            JOURNAL_LIMIT,
        ],
        sizes=sorted(models),
        modes=[
            root,
            os.path.join(root, "runtimes"),
            os.path.join(root, "runtimes", "*"),
            os.path.join(root, "runtimes", "*", "bin", "python"),
            CACHE_DIRECTORY,
            os.path.join(CACHE_DIRECTORY, "*"),
        ],
        units=["haproxy.service", PRESENCE, *units, *further],
        maps=sorted(glob.glob(os.path.join(maps, "*.map"))),
        packages=sorted(packages),
    )


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _manifest(root: str, instance: str) -> dict[str, t.Any]:
    """The files of an instance; empty where it has none."""
    return read_json(os.path.join(root, "instances", instance, "current", "manifest.json")) or {}
