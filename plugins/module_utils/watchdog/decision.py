# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What to do about a hang: restart the engine, leave it, or give up. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

OBSERVE = "observe"
ACT = "act"
OFF = "off"
MODES = (ACT, OBSERVE, OFF)

#: Why the watchdog gave an instance up: it restarts it no more, and a person has to look.
RESTARTS = "restarts"
GATE = "gate"
GPU = "gpu"
HOST = "host"

#: Decisions.
RESTART = "restart"
WAIT = "wait"
GIVE_UP = "give_up"


@dataclasses.dataclass(frozen=True)
class Damping:
    """How often an instance is restarted.

    Attributes:
        pause: seconds between two restarts, at least.
        most: restarts within ``window`` seconds, at most.
    """

    pause: float = 600.0
    most: int = 3
    window: float = 6 * 3600.0


class Decision(t.NamedTuple):
    """What to do.

    Attributes:
        action: RESTART, WAIT or GIVE_UP.
        why: the reason of WAIT or GIVE_UP, for people.
        kind: RESTARTS or GPU where the watchdog gives up.
    """

    action: str
    why: str = ""
    kind: str = ""


def decide(restarts: t.Sequence[float], now: float, gpu_problem: str, damping: Damping) -> Decision:
    """What to do about an instance that hangs.

    Args:
        restarts: Unix times of earlier restarts of this instance.
        now: Unix time.
        gpu_problem: what makes a restart pointless, such as an XID; empty for none.
        damping: how often it may be restarted.
    """
    if gpu_problem:
        return Decision(GIVE_UP, f"{gpu_problem}: a restart does not help", GPU)
    # A clock that was set back has restarts in the future; they count as just now.
    recent = [min(moment, now) for moment in restarts if now - moment < damping.window]
    if len(recent) >= damping.most:
        hours = damping.window / 3600
        return Decision(GIVE_UP, f"it hung again after {len(recent)} restarts in {hours:g} hours", RESTARTS)
    left = damping.pause - (now - max(recent)) if recent else 0.0
    if left > 0:
        return Decision(WAIT, f"the last restart was {now - max(recent):.0f} s ago; the next one is in {left:.0f} s")
    return Decision(RESTART)


def exempt(drain: str, claim: str, unit: str) -> str:
    """Why an instance is not judged; empty where it is.

    Args:
        drain: who drained it or its host; empty for none.
        claim: the rollout that is at it; empty for none.
        unit: systemd's state of its unit.
    """
    if drain:
        return f"drained by {drain}"
    if claim:
        return f"held by {claim}"
    return "" if unit == "active" else f"its unit is {unit or 'absent'}"
