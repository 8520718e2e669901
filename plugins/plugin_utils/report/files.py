# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout's directory: its journal, and what is made from it."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, write_atomically
from ansible_collections.inference.fleet.plugins.plugin_utils.report.page import render_page
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import fold
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal

RECORD = "record.json"
PAGE = "index.html"

# As the journal: it names people, hosts and clients.
_MODE = 0o600


def write(directory: str, alive: bool) -> dict[str, t.Any]:
    """Write the record and the page from the journal, each of them atomically.

    Args:
        directory: the rollout's.
        alive: whether the walking process still runs; see fold().

    Returns:
        The record.

    Raises:
        OSError: the journal cannot be read, or the files cannot be written.
    """
    record = _from_journal(directory, alive)
    write_atomically(os.path.join(directory, RECORD), json.dumps(record, indent=1, default=str) + "\n", _MODE)
    write_atomically(os.path.join(directory, PAGE), render_page(record), _MODE)
    return record


def read(directory: str, alive: bool = True) -> dict[str, t.Any] | None:
    """The record of a rollout, from its journal; if only the record was kept, that.

    Args:
        directory: the rollout's.
        alive: whether the walking process still runs; see fold().

    Returns:
        The record; None where there is neither.

    Raises:
        FleetError: there is a record without a journal, and it is not JSON.
    """
    try:
        return _from_journal(directory, alive)
    except (FileNotFoundError, NotADirectoryError):
        record = read_json(os.path.join(directory, RECORD))
        return record if isinstance(record, dict) else None


def newest(records: str) -> list[str]:
    """The directories of the rollouts in ``records``, the newest first; their names begin with their time."""
    try:
        names = os.listdir(records)
    except (FileNotFoundError, NotADirectoryError):
        return []
    directories = [os.path.join(records, name) for name in sorted(names, reverse=True)]
    kept = (journal.NAME, RECORD)
    return [path for path in directories if any(os.path.isfile(os.path.join(path, name)) for name in kept)]


def _from_journal(directory: str, alive: bool) -> dict[str, t.Any]:
    with open(os.path.join(directory, journal.NAME), encoding="utf-8", errors="replace", newline="") as file:
        return fold(journal.parse(file.read()), alive)
