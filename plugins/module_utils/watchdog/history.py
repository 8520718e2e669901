# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the watchdog remembers of each instance, in a file that survives its own end. Pure but for that file."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, write_atomically

FORMAT = 1

#: The phases of an instance that is out because it hung.
HUNG = "hung"
RESTARTED = "restarted"
GAVE_UP = "gave_up"


@dataclasses.dataclass(frozen=True)
class InstanceHistory:
    """One instance.

    Attributes:
        phase: HUNG, RESTARTED or GAVE_UP; empty where the watchdog keeps it in service.
        reason: for people.
        kind: why the watchdog gave up, one of decision's.
        since: Unix time from which on it has been out.
        hangs: how many were seen.
        restarts: Unix times of the last restarts.
        restarts_total: of all of them.
    """

    phase: str = ""
    reason: str = ""
    kind: str = ""
    since: float = 0.0
    hangs: int = 0
    restarts: tuple[float, ...] = ()
    restarts_total: int = 0

    def out(self, phase: str, reason: str, now: float, kind: str = "") -> InstanceHistory:
        """The same, out of service in this phase."""
        since = self.since if self.phase else now
        return dataclasses.replace(self, phase=phase, reason=reason, kind=kind, since=since)

    def back(self) -> InstanceHistory:
        """The same, in service."""
        return dataclasses.replace(self, phase="", reason="", kind="", since=0.0)

    def hung(self) -> InstanceHistory:
        """The same, with one more hang."""
        return dataclasses.replace(self, hangs=self.hangs + 1)

    def restarted(self, now: float, window: float) -> InstanceHistory:
        """The same, with one more restart; those before the window are only counted."""
        kept = tuple(moment for moment in self.restarts if now - moment < window)
        return dataclasses.replace(self, restarts=(*kept, now), restarts_total=self.restarts_total + 1)


class HistoryFile:
    """What is remembered of all instances.

    Args:
        path: of the file.

    Raises:
        FleetError: a newer version wrote the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.problem = ""
        self._histories = self._read()

    def of(self, instance: int) -> InstanceHistory:
        return self._histories.get(instance, InstanceHistory())

    def keep(self, instance: int, history: InstanceHistory) -> None:
        """Write an instance's history; a full disk does not keep the watchdog from acting, see ``problem``."""
        if history == self.of(instance):
            return
        self._histories[instance] = history
        document = {str(index): dataclasses.asdict(one) for index, one in sorted(self._histories.items())}
        try:
            write_atomically(self._path, json.dumps({"format": FORMAT, "instances": document}, indent=1) + "\n")
            self.problem = ""
        except OSError as error:
            self.problem = f"{self._path} cannot be written: {error.strerror}"

    def _read(self) -> dict[int, InstanceHistory]:
        try:
            document = read_json(self._path)
            if document is None:
                return {}
            found = int(document["format"])
            if found > FORMAT:
                raise NewerFormat(self._path, found)
            return {int(index): _history(one) for index, one in document["instances"].items()}
        except NewerFormat:
            raise
        except (FleetError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            # What it would have remembered is damping only: to go on without is better than to watch nothing.
            self.problem = f"{self._path} cannot be read, and a new one begins: {error}"
            return {}


class NewerFormat(FleetError):
    """A newer version wrote the file."""

    def __init__(self, path: str, found: int) -> None:
        super().__init__(
            f"{path} has format {found}, and this version of inference.fleet reads format {FORMAT}. Install the newer "
            "version again, or remove the file."
        )


def _history(document: t.Mapping[str, t.Any]) -> InstanceHistory:
    names = {field.name for field in dataclasses.fields(InstanceHistory)}
    values = {name: value for name, value in document.items() if name in names}
    values["restarts"] = tuple(float(moment) for moment in document.get("restarts", ()))
    return InstanceHistory(**values)
