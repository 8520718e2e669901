# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The records of benchmarks on the controller: one file a run and instance, the last ones of each kind kept."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, write_atomically
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.cost import usd_per_million

BenchmarkRecord = dict[str, t.Any]

PAGES = "pages"
#: A record is some kB, a page some tens of kB.
ROOM_BYTES = 16 * 1024**2

# It names hosts and people.
_MODE = 0o600
_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")
#: What decides the kind of a record, within its host.
_KIND = ("instance", "version", "profile", "model")


def folder_of(record: t.Mapping[str, t.Any]) -> str:
    """The folder of a record's kind, below the records: its host, and what it compares with over time."""
    words = [file_name(str(record.get(name) or "none")) for name in _KIND]
    return os.path.join(file_name(str(record["host"])), "_".join([*words, *(["live"] if record["live"] else [])]))


def file_name(text: str) -> str:
    """The name of a file or a folder for any text."""
    return _UNSAFE.sub("-", text)


def check_room(records: str) -> None:
    """Refuse a place for records in which none can be written.

    Raises:
        FleetError: with the reason, and what to do.
    """
    advice = "Free the disk, correct the directory's rights, or set benchmark_records."
    try:
        os.makedirs(records, mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=records, prefix=".room-") as file:
            file.write(b"0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(records).free
    except OSError as error:
        raise FleetError(
            f"Nothing was touched: the results cannot be written to {records} ({error.strerror or error}). {advice}"
        ) from error
    if free < ROOM_BYTES:
        raise FleetError(
            f"Nothing was touched: {records} has {free / 1024**2:.1f} MiB free, and results need "
            f"{ROOM_BYTES / 1024**2:.0f} MiB. {advice}"
        )


def previous(records: str, record: t.Mapping[str, t.Any]) -> BenchmarkRecord | None:
    """The last record of the same kind before this one; None where there is none."""
    folder = os.path.join(records, folder_of(record))
    earlier = [name for name in _names(folder) if name < f"{record['id']}.json"]
    return next(filter(None, (_read(os.path.join(folder, name)) for name in reversed(earlier))), None)


def write(records: str, record: BenchmarkRecord, keep: int) -> str:
    """Write a record, and remove those of its kind beyond the last ``keep``.

    Returns:
        Its path.
    """
    folder = os.path.join(records, folder_of(record))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{record['id']}.json")
    write_atomically(path, json.dumps(record, indent=1) + "\n", _MODE)
    keep_last(folder, keep)
    return path


def write_page(records: str, run: str, page: str, keep: int) -> str:
    """Write a run's page, and remove those beyond the last ``keep``.

    Returns:
        Its path.
    """
    folder = os.path.join(records, PAGES)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{run}.html")
    write_atomically(path, page, _MODE)
    keep_last(folder, keep)
    return path


def keep_last(folder: str, keep: int) -> None:
    """Remove the files of a folder beyond the last ``keep``."""
    for name in _names(folder)[:-keep]:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, name))


def newest(records: str, host: str) -> list[BenchmarkRecord]:
    """The last record of each kind of a host that was not measured beside clients' requests."""
    base = os.path.join(records, file_name(host))
    found = []
    for kind in _names(base):
        folder = os.path.join(base, kind)
        record = next(filter(None, (_read(os.path.join(folder, name)) for name in reversed(_names(folder)))), None)
        if record and not record.get("live"):
            found.append(record)
    return sorted(found, key=lambda one: str(one.get("id")))


def benchmarked_rows(rows: t.Iterable[t.Mapping[str, t.Any]], records: str) -> list[dict[str, t.Any]]:
    """The rows of a table, each with ``usd_per_million`` where what it names was measured.

    Args:
        rows: each has host and version; one of what runs has the end of its release, one of what would run has
            instance and profile.
        records: the directory of the records.
    """
    found = []
    known: dict[str, list[BenchmarkRecord]] = {}
    for row in rows:
        host = str(row.get("host") or "")
        if host not in known:
            known[host] = newest(records, host)
        prices = [usd for one in known[host] if _is_of(one, row) and (usd := usd_per_million(one)) is not None]
        found.append({**row, **({"usd_per_million": f"{prices[-1]:.2f}"} if prices else {})})
    return found


def _is_of(record: t.Mapping[str, t.Any], row: t.Mapping[str, t.Any]) -> bool:
    """Whether a record is of what a row names."""
    if not row.get("version") or str(record.get("version")) != str(row["version"]):
        return False
    if row.get("release"):
        return str(record.get("release") or "").endswith(f"-{row['release']}")
    names = ("instance", "profile")
    return all(row.get(name) and str(record.get(name)) == str(row[name]) for name in names)


def _names(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: str) -> BenchmarkRecord | None:
    # A record that cannot be read is none to compare with.
    with contextlib.suppress(FleetError, OSError):
        document = read_json(path)
        if isinstance(document, dict):
            return document
    return None
