# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The instances of Auto Scaling groups, and the playbook that each waits for. Pure."""

from __future__ import annotations

import dataclasses

#: The playbooks.
JOIN, LEAVE = "join", "leave"

PENDING, PENDING_WAIT = "Pending", "Pending:Wait"
TERMINATING, TERMINATING_WAIT = "Terminating", "Terminating:Wait"
IN_SERVICE = "InService"

#: The playbook for an instance that waits at a hook, by its state.
VERBS = {PENDING_WAIT: JOIN, TERMINATING_WAIT: LEAVE}


@dataclasses.dataclass(frozen=True)
class GroupMember:
    """An instance of an Auto Scaling group, as AWS has it.

    Attributes:
        id: its id.
        group: the group's name.
        state: its lifecycle state.
    """

    id: str
    group: str
    state: str

    @property
    def verb(self) -> str:
        """The playbook that it waits for; empty for none."""
        return VERBS.get(self.state, "")


@dataclasses.dataclass(frozen=True)
class LifecycleHook:
    """A hook of an Auto Scaling group.

    Attributes:
        name: its name.
        group: the group's.
        verb: ``join`` for a launch, ``leave`` for a termination.
        timeout: seconds without a heartbeat after which the group goes on by itself.
    """

    name: str
    group: str
    verb: str
    timeout: int
