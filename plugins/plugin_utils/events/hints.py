# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What a message of EventBridge or Auto Scaling says. Pure.

A message is a hint: it says at which instance to look, and the look decides. So one that comes twice, late or in
another order does no harm.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

LAUNCH, TERMINATE, SPOT, REBALANCE, TEST = "launch", "terminate", "spot", "rebalance", "test"

_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")
_TRANSITIONS = {
    "autoscaling:EC2_INSTANCE_LAUNCHING": LAUNCH,
    "autoscaling:EC2_INSTANCE_TERMINATING": TERMINATE,
}
_KINDS = {
    "EC2 Instance-launch Lifecycle Action": LAUNCH,
    "EC2 Instance-terminate Lifecycle Action": TERMINATE,
    "EC2 Spot Instance Interruption Warning": SPOT,
    "EC2 Instance Rebalance Recommendation": REBALANCE,
}
_TEST = "autoscaling:TEST_NOTIFICATION"
_SHOWN = 120


class NotAHint(FleetError):
    """A message that nothing can be done about."""


@dataclasses.dataclass(frozen=True)
class Hint:
    """What a message says.

    Attributes:
        kind: ``launch``, ``terminate``, ``spot``, ``rebalance`` or ``test``.
        instance: the instance's id; empty for ``test``.
        group: the name of its Auto Scaling group; empty where the message does not say it.
    """

    kind: str
    instance: str = ""
    group: str = ""


def read_hint(body: str) -> Hint:
    """The hint in a message: an event of EventBridge, or a notification of a hook.

    Raises:
        NotAHint: it is neither.
    """
    try:
        document = json.loads(body)
    except ValueError:
        raise NotAHint(f"The message is not JSON: {_shown(body)}") from None
    if not isinstance(document, dict):
        raise NotAHint(f"The message is no JSON object: {_shown(body)}")
    detail = document.get("detail", document)
    if not isinstance(detail, dict):
        raise NotAHint(f"The message's detail is no JSON object: {_shown(body)}")
    if _TEST in (detail.get("Event"), document.get("Event")):
        return Hint(TEST)
    kind = _kind(document, detail)
    if not kind:
        raise NotAHint(f"The message is of no kind that is known ({', '.join(_KINDS)}): {_shown(body)}")
    instance = detail.get("EC2InstanceId") or detail.get("instance-id")
    if not isinstance(instance, str) or not _INSTANCE.fullmatch(instance):
        raise NotAHint(f"The message names no instance: {_shown(body)}")
    return Hint(kind, instance, str(detail.get("AutoScalingGroupName") or ""))


def _kind(document: t.Mapping[str, t.Any], detail: t.Mapping[str, t.Any]) -> str:
    kind = _KINDS.get(str(document.get("detail-type", "")))
    return kind or _TRANSITIONS.get(str(detail.get("LifecycleTransition", "")), "")


def _shown(body: str) -> str:
    """The beginning of a body, in one line."""
    words = " ".join(body.split())
    return repr(words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…")
