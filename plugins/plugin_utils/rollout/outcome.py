# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""How a turn ended on a host: the change of its instances, and its return to its target groups. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import change as changes

UNREGISTERED = "unregistered"

#: Outcomes after which a host serves what has passed its gate.
_SERVES = (changes.DONE, changes.ROLLED_BACK, changes.UNRECORDED)


@dataclasses.dataclass(frozen=True)
class HostTurn:
    """What is known of a host at the end of its turn.

    Attributes:
        host: its name.
        outcome: of the change of its instances; empty where none was changed.
        message: the change's, for people.
        problem: why it is not healthy in its target groups; empty where it is, or is in none.
        missing: the names of its target groups in which it is not registered.
        held_by: who keeps it drained, an operator or AWS; empty for none.
    """

    host: str
    outcome: str
    message: str
    problem: str = ""
    missing: t.Sequence[str] = ()
    held_by: str = ""


def judge(turn: HostTurn) -> tuple[str, str]:
    """The outcome and the message for the record.

    A host that serves and is not in its groups is a failure of its own: no client reaches it. One that does not serve
    stays out of its groups.
    """
    outcome = turn.outcome or changes.DONE
    message = turn.message or f"{turn.host} runs what it should, and answers."
    if outcome not in _SERVES:
        if turn.missing:
            return outcome, f"{message} It stays out of target group {' and '.join(dict.fromkeys(turn.missing))}."
        return outcome, message
    # What is kept drained gets no requests, and is registered when that is over.
    if turn.held_by or (not turn.problem and not turn.missing):
        return outcome, message
    why = turn.problem or (
        f"It is not registered in target group {' and '.join(dict.fromkeys(turn.missing))}: no instance serves there "
        "whose gate passed."
    )
    said = f"{turn.host} passed its gate, but no client of the balancer reaches it." if not turn.message else message
    return (UNREGISTERED if outcome == changes.DONE else outcome), f"{said} {why}"
