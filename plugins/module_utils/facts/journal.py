# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Following the journal from one short run of a program to the next: access log and kernel log, each line once."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import threading
import typing as t
import zlib

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: Seconds that one reading may take. What is left over then is not counted: a host that is that busy has other worries.
PATIENCE = 20.0

_CURSOR = "-- cursor: "
_ENTRY = re.compile(r"(?P<time>\d+\.\d+) \S+ (?P<name>[^:]+): (?P<message>.*)")
_KERNEL = "kernel"


@dataclasses.dataclass
class JournalPlace:
    """Where a reader of the journal is.

    Attributes:
        boot: the boot in which it was read.
        cursor: systemd's name of the last entry; empty before the first reading.
        entry: a checksum of that entry, by which it is known again.
    """

    boot: str = ""
    cursor: str = ""
    entry: int = 0

    def document(self) -> dict[str, t.Any]:
        """The place, for a file."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, document: t.Mapping[str, t.Any]) -> JournalPlace:
        """What document() returned."""
        return cls(str(document["boot"]), str(document["cursor"]), int(document["entry"]))


@dataclasses.dataclass
class JournalReading:
    """One run of journalctl.

    Attributes:
        entries: how many entries there were.
        last: the last of them.
        place: where it ended; empty where journalctl gave no cursor.
        in_time: whether it ended by itself.
        failure: what it said of a failure.
    """

    entries: int = 0
    last: str = ""
    cursor: str = ""
    in_time: bool = True
    failure: str = ""


class JournalReader:
    """Reads the kernel log of this boot and the log of one unit.

    Args:
        unit: whose log is read.
        boot: of this host, as the kernel names it.
        on_kernel: gets each line of the kernel log, with its time in front.
        on_unit: gets each message of the unit.
        directory: of the journal; empty for the host's own.
        patience: seconds that one reading may take.
    """

    def __init__(
        self,
        unit: str,
        boot: str,
        on_kernel: t.Callable[[str], None],
        on_unit: t.Callable[[str], None],
        directory: str = "",
        patience: float = PATIENCE,
    ) -> None:
        self._boot = boot
        # The journal writes it without dashes.
        self._kernel = ["_TRANSPORT=kernel", f"_BOOT_ID={boot.replace('-', '')}"]
        self._unit = [f"_SYSTEMD_UNIT={unit}"]
        self._on_kernel = on_kernel
        self._on_unit = on_unit
        self._directory = [f"--directory={directory}"] if directory else []
        self._patience = patience

    def go_on(self, place: JournalPlace) -> tuple[JournalPlace, str]:
        """Read what came since a place.

        Returns:
            The new place, and why lines may be missing; empty where none are.

        Raises:
            FleetError: the journal cannot be read.
        """
        if not place.cursor:
            return self._begin(), ""
        # With the entry itself, so that it shows whether the journal still has it.
        at = _FirstEntry(place.entry)
        reading = self._run([f"--cursor={place.cursor}", *self._both()], at.skip)
        if not reading.in_time:
            said = f"more came than could be read in {self._patience:g} s; the rest is not counted"
            return self._end(), said
        if reading.failure:
            # The next look begins again.
            return JournalPlace(), f"journalctl: {reading.failure}"
        if not reading.entries:
            return place, "the journal has no entry any more, not even the last one that was read"
        # Of an earlier boot only the unit's log is read.
        is_there = at.found or place.boot != self._boot
        return self._place(reading), "" if is_there else "the journal no longer has the last entry that was read"

    def _begin(self) -> JournalPlace:
        """The XIDs since the boot count, the requests from now on."""
        self._checked(self._run(self._kernel, lambda _line: False))
        return self._end()

    def _end(self) -> JournalPlace:
        return self._place(self._checked(self._run(["--lines=1", *self._both()], lambda _line: True)))

    def _both(self) -> list[str]:
        return [*self._kernel, "+", *self._unit]

    def _place(self, reading: JournalReading) -> JournalPlace:
        return JournalPlace(self._boot, reading.cursor, _checksum(reading.last)) if reading.cursor else JournalPlace()

    def _checked(self, reading: JournalReading) -> JournalReading:
        if reading.failure:
            raise FleetError(f"The journal cannot be read: {reading.failure}")
        return reading

    def _run(self, words: list[str], skip: t.Callable[[str], bool]) -> JournalReading:
        """Run journalctl, and pass on what it says line by line, however much it is."""
        command = ["journalctl", "--quiet", "--no-pager", "--output=short-unix", "--show-cursor", *self._directory]
        try:
            process = subprocess.Popen(
                [*command, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise FleetError(f"journalctl cannot be run: {error.strerror}.") from error
        reading = JournalReading()
        timer = threading.Timer(self._patience, self._give_up, [process, reading])
        timer.start()
        try:
            with process:
                for line in t.cast("t.IO[str]", process.stdout):
                    self._take(line.rstrip("\n"), reading, skip)
                if process.stderr:
                    reading.failure = process.stderr.read(500).strip()
        finally:
            timer.cancel()
        return reading

    @staticmethod
    def _give_up(process: subprocess.Popen[str], reading: JournalReading) -> None:
        reading.in_time = False
        process.kill()

    def _take(self, line: str, reading: JournalReading, skip: t.Callable[[str], bool]) -> None:
        if line.startswith(_CURSOR):
            reading.cursor = line[len(_CURSOR) :]
            return
        match = _ENTRY.match(line)
        # The further lines of an entry begin with spaces.
        if not match:
            return
        reading.entries += 1
        reading.last = line
        if skip(line):
            return
        if match["name"] == _KERNEL:
            self._on_kernel(line)
        else:
            self._on_unit(match["message"])


class _FirstEntry:
    """Skips the entry that was the last one of the reading before, if it is the first one of this."""

    def __init__(self, checksum: int) -> None:
        self._checksum = checksum
        self._first = True
        self.found = False

    def skip(self, line: str) -> bool:
        """Whether a line was read before."""
        if self._first:
            self._first = False
            self.found = _checksum(line) == self._checksum
            return self.found
        return False


def _checksum(line: str) -> int:
    return zlib.crc32(line.encode("utf-8", "replace"))
