# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A host's record of the rollout that it takes part in: its owner, and its progress there. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY

PATH = f"{STATE_DIRECTORY}/rollout.json"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A rollout, as recorded on one of its hosts.

    Attributes:
        id: the rollout's.
        verb: what it does: ``site``, ``rolling_restart``, ``rollback``, ``benchmark``, ``tune``.
        who: the user.
        controller: the machine and directory that hold the record.
        since: when it began, UTC.
        held: whether the rollout still walks; it then excludes others.
        finished: whether it has finished.
        targets: the release that each instance gets.
        done: when each instance was done, UTC.
        seconds: how long the last change of each instance took, in any rollout.
        protected: the Auto Scaling group in which the host was protected from scale-in for a rollout, and still is;
            empty for none.
    """

    id: str
    verb: str
    who: str
    controller: str
    since: str
    held: bool = True
    finished: bool = False
    targets: dict[str, str] = dataclasses.field(default_factory=dict)
    done: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    protected: str = ""

    @property
    def said(self) -> str:
        return f"{self.verb} {self.id} by {self.who} on {self.controller.partition(':')[0]} since {self.since}"


def parse(document: t.Any, path: str = PATH) -> Claim | None:
    """The claim in a host's file, None where there is none.

    Raises:
        FleetError: it is invalid.
    """
    if document is None:
        return None
    names = {field.name for field in dataclasses.fields(Claim)}
    try:
        return Claim(**{name: value for name, value in document.items() if name in names})
    except (AttributeError, TypeError) as error:
        raise FleetError(
            f"{path} does not say which rollout the host is in ({error}). Remove it: the next rollout writes a new one."
        ) from error


def claimed(before: Claim | None, wanted: Claim, take_over: bool) -> tuple[Claim | None, Claim | None]:
    """Give the host to a rollout.

    Args:
        before: the host's claim.
        wanted: the rollout that claims the host.
        take_over: whether a claim of another controller is declared dead.

    Returns:
        The host's new claim and None, or None and the conflicting claim. The controller's own earlier claim never
        conflicts: a controller walks one rollout at a time. That of another controller does, even for the same rollout:
        both may want to resume it.
    """
    if before is None:
        return wanted, None
    if before.held and before.controller != wanted.controller and not take_over:
        return None, before
    if before.id != wanted.id:
        return dataclasses.replace(wanted, seconds=before.seconds, protected=before.protected), None
    kept = dataclasses.replace(wanted, since=before.since, done=before.done, seconds=before.seconds)
    targets = {**wanted.targets, **before.targets}
    return dataclasses.replace(kept, targets=targets, protected=before.protected), None


def with_done(before: Claim, instance: str, at: str, seconds: float) -> Claim:
    """The claim after an instance was done; without seconds, how long its last change took stays as it was."""
    took = {instance: round(seconds, 1)} if seconds else {}
    return dataclasses.replace(before, done={**before.done, instance: at}, seconds={**before.seconds, **took})
