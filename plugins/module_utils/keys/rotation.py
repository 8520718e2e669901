# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The steps of a rotation, each from one content of the key store to the next. Pure.

pending -> (edges are updated, the new keys are tested) -> finished -> (consumers move, edges are updated, the old
keys are proven dead) -> completed; withdrawn instead of finished when something failed; retired for keys whose overlap
ended later. A repeated step changes nothing; the next run continues an interrupted one from the first step.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import keys, times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys import holder
from ansible_collections.inference.fleet.plugins.module_utils.keys.holder import RotationHolder
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import (
    ClientKeys,
    Content,
    Key,
    RetiredKey,
    Rotation,
    pending_key,
    remember,
    retire,
)

#: The shortest overlap, in seconds: time to update the edges and to move the consumers.
MIN_OVERLAP = 60

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclasses.dataclass(frozen=True)
class RotationRequest:
    """The arguments of a step.

    Attributes:
        now: the moment, in UTC.
        me: the calling process.
        names: the clients; empty for those that the step is about.
        rotation_id: which rotation; empty for the one in progress, or a new one.
        max_age: how old a current key may be, in seconds; None where only ``names`` count.
        overlap: how long the old keys stay valid, in seconds.
        force: retire before the overlap is over.
        compromised: the keys may have leaked.
        take_over: the operator declares dead a holder whose state is unknown here.
        unproven: the hosts that did not prove that they refuse the dead keys.
    """

    now: str
    me: RotationHolder
    names: tuple[str, ...] = ()
    rotation_id: str = ""
    max_age: int | None = None
    overlap: int | None = None
    force: bool = False
    compromised: bool = False
    take_over: bool = False
    unproven: tuple[str, ...] = ()


class RotationStep(t.NamedTuple):
    """The result of a step: the new content, and the clients that it concerns."""

    after: Content
    names: list[str]


def check_id(rotation_id: str) -> str:
    """The validated name of a rotation.

    Raises:
        FleetError: it is invalid.
    """
    if not _ID.fullmatch(rotation_id) or rotation_id.startswith("sk-"):
        raise FleetError(
            f"rotation_id is {keys.shown(rotation_id)}. Use 1 to 64 letters, digits, dots, dashes and underscores."
        )
    return rotation_id


def check_overlap(overlap: int, minimum: float = MIN_OVERLAP) -> None:
    """Check that a rotation can be done within the overlap.

    Raises:
        FleetError: it cannot.
    """
    if 0 < overlap < minimum:
        raise FleetError(
            f"An overlap of {times.spoken(overlap)} would end before the rotation could finish: this run alone needs "
            f"{times.spoken(minimum)}, while consumers still use the old keys. Give a longer overlap, such as 24h, or "
            "0 to retire the old keys at once."
        )


def is_due(client: ClientKeys, max_age: int, now: str) -> bool:
    """Whether a client's key is due for rotation. An expired client's key is never due: it is unusable."""
    return age(client.current, now) >= max_age and not expired(client, now)


def age(key: Key, now: str) -> int:
    """Seconds since a key was made."""
    return max(0, times.seconds(now) - times.seconds(key.created))


def expired(client: ClientKeys, now: str) -> bool:
    return bool(client.limits.get("expires")) and client.limits.get("expires") <= now


def pending(content: Content, request: RotationRequest) -> RotationStep:
    """Give each client that is due a pending key.

    Raises:
        FleetError: no client needs rotation, another rotation is in progress, or a client has too many live keys.
    """
    if not request.names and request.max_age is None:
        raise FleetError("Say whose keys are due: give clients, max_age, or both.")
    if request.overlap is not None:
        check_overlap(request.overlap)
    demand(request.names, content)
    if _ended(content, request):
        return RotationStep(content, [])
    rotation = content.rotation
    if rotation and rotation.step == Rotation.STEP_WITHDRAWN and rotation.id == request.rotation_id:
        raise _taken_back(rotation.id)
    if rotation and rotation.step in (Rotation.STEP_PENDING, Rotation.STEP_FINISHED):
        return _continue(content, _claimed(rotation, request), request)
    if rotation:
        rotation = _claimed(rotation, request, same_id=False)
        content = content.with_ended(rotation, request.now) if rotation.step == Rotation.STEP_WITHDRAWN else content
    due = _due(content, request)
    if not due:
        return RotationStep(content, [])
    begun = _begin(content, Rotation.STEP_PENDING, due, request)
    return RotationStep(_with_pending_keys(content, begun, request.now), due)


def finished(content: Content, request: RotationRequest) -> RotationStep:
    """Make the pending keys the current ones. The old ones stay valid for the overlap, or are dead at once.

    Raises:
        FleetError: there is no such rotation, or the overlap is too short.
    """
    overlap = 0 if request.compromised else request.overlap
    if overlap is None or (request.compromised and request.overlap):
        raise FleetError(
            "compromised retires the old keys at once: leave out overlap."
            if request.compromised
            else "Say how long the old keys stay valid: give overlap, such as 24h, or 0 to retire them at once."
        )
    if _ended(content, request):
        return RotationStep(content, [])
    rotation = _in_progress(content, request)
    if rotation.step not in (Rotation.STEP_PENDING, Rotation.STEP_FINISHED):
        raise FleetError(
            f"Rotation {rotation.id} cannot finish: its pending keys were taken back, or it has none. Begin a new one "
            "with state pending."
        )
    clients: dict[str, ClientKeys] = {}
    for name in _there(rotation, content):
        client = content.clients[name]
        if client.pending and client.pending.rotation == rotation.id:
            clients[name] = _finish(name, client, client.pending, overlap, request)
        elif client.current.rotation != rotation.id:
            raise FleetError(
                f"Client {name} has no pending key of rotation {rotation.id}, so nothing was finished. Somebody else "
                "removed it. Run state pending again, and update the edges."
            )
    if clients:
        check_overlap(overlap, max(MIN_OVERLAP, times.seconds(request.now) - times.seconds(rotation.resumed)))
    rotation = dataclasses.replace(rotation, step=Rotation.STEP_FINISHED)
    return RotationStep(
        dataclasses.replace(content.with_clients(clients), rotation=rotation), _there(rotation, content)
    )


def withdrawn(content: Content, request: RotationRequest) -> RotationStep:
    """Remove the pending keys of a rotation; the current ones stay.

    Raises:
        FleetError: another run holds it.
    """
    if content.rotation is None or _was(content, request.rotation_id):
        return RotationStep(content, [])
    rotation = _in_progress(content, request)
    clients: dict[str, ClientKeys] = {}
    for name in _there(rotation, content):
        client = content.clients[name]
        if client.pending and client.pending.rotation == rotation.id:
            clients[name] = _without_pending(name, client, request.now)
    if clients:
        rotation = dataclasses.replace(rotation, step=Rotation.STEP_WITHDRAWN)
    return RotationStep(dataclasses.replace(content.with_clients(clients), rotation=rotation), sorted(clients))


def retired(content: Content, request: RotationRequest) -> RotationStep:
    """Retire previous keys whose overlap is over, or all of them.

    Raises:
        FleetError: another rotation is in progress.
    """
    force = request.force or request.compromised
    if force and not request.names:
        raise FleetError("force and compromised retire keys before their overlap is over: give the clients.")
    demand(request.names, content)
    clients: dict[str, ClientKeys] = {}
    for name in request.names or sorted(content.clients):
        previous = content.clients[name].previous
        if previous and not previous.retired and (force or _is_over(previous, request.now)):
            dead = dataclasses.replace(previous, retired=request.now, compromised=request.compromised)
            clients[name] = dataclasses.replace(content.clients[name], previous=dead)
    names = list(request.names) or sorted(clients)
    if not clients:
        return RotationStep(content, names)
    if content.rotation:
        rotation = _claimed(content.rotation, request, same_id=False)
    else:
        rotation = _new(Rotation.STEP_RETIRED, sorted(clients), request)
    return RotationStep(dataclasses.replace(content.with_clients(clients), rotation=rotation), names)


def completed(content: Content, request: RotationRequest) -> RotationStep:
    """End the rotation: the edges have taken it and refuse the dead keys, of which only the hash is kept.

    Raises:
        FleetError: its keys are still pending, or another run holds it.
    """
    if _was(content, request.rotation_id):
        return RotationStep(content, [])
    rotation = _in_progress(content, request) if content.rotation else None
    if rotation and rotation.step == Rotation.STEP_PENDING:
        raise FleetError(
            f"Rotation {rotation.id} is not finished: its keys are still pending. Use state finished, or state "
            "withdrawn to take them back."
        )
    clients: dict[str, ClientKeys] = {}
    for name, client in sorted(content.clients.items()):
        if client.previous and client.previous.retired:
            dead = retire(name, client.previous, proven=not request.unproven)
            clients[name] = remember(dataclasses.replace(client, previous=None), [dead], request.now)
    content = content.with_clients(clients)
    names = _there(rotation, content) if rotation else sorted(clients)
    return RotationStep(content.with_ended(rotation, request.now) if rotation else content, names)


def claim(rotation: Rotation, request: RotationRequest) -> Rotation:
    """The rotation, held by the calling process: its holder, or any other once that is gone.

    Raises:
        FleetError: another run holds it.
    """
    return _claimed(rotation, request, same_id=False)


def demand(names: t.Iterable[str], content: Content) -> None:
    """Check that the clients exist.

    Raises:
        FleetError: one is not.
    """
    missing = [name for name in names if name not in content.clients]
    if missing:
        known = ", ".join(sorted(content.clients)) or "none"
        raise FleetError(
            f"The key store has no client {', '.join(missing)}. It has: {known}. Correct the name, or add the client "
            "to fleet_clients and run playbooks/keys.yml."
        )


def _continue(content: Content, rotation: Rotation, request: RotationRequest) -> RotationStep:
    others = [name for name in request.names if name not in rotation.clients]
    if others:
        raise FleetError(
            f"{_said(rotation)} It is not of {', '.join(others)}. Run it to its end first (-e client="
            f"{','.join(rotation.clients)}), or take it back with state withdrawn."
        )
    names = _there(rotation, content)
    if rotation.step == Rotation.STEP_FINISHED:
        return RotationStep(dataclasses.replace(content, rotation=rotation), names)
    return RotationStep(_with_pending_keys(content, rotation, request.now), names)


def _due(content: Content, request: RotationRequest) -> list[str]:
    names = request.names or sorted(content.clients)
    if request.max_age is not None:
        names = [name for name in names if is_due(content.clients[name], request.max_age, request.now)]
    for name in names:
        previous = content.clients[name].previous
        if previous and not previous.retired:
            over = f"ended at {previous.retire_at}" if _is_over(previous, request.now) else f"is {previous.retire_at}"
            raise FleetError(
                f"Client {name} still has its former key {previous.fingerprint}, and the end of its overlap {over}. "
                "A client can have two live keys, so retire that one first: -e finish=true (state retired; with force "
                "before its overlap is over)."
            )
    return list(names)


def _begin(content: Content, step: str, names: list[str], request: RotationRequest) -> Rotation:
    """A rotation of these clients: a new one, or the current one if it has only retired previous keys so far."""
    if content.rotation:
        rotation = _claimed(content.rotation, request, same_id=False)
        return dataclasses.replace(rotation, id=request.rotation_id or rotation.id, step=step, clients=tuple(names))
    return _new(step, names, request)


def _new(step: str, names: list[str], request: RotationRequest) -> Rotation:
    made = f"{request.now.translate(str.maketrans('', '', '-:'))}-{secrets.token_hex(4)}"
    return Rotation(request.rotation_id or made, step, request.me, request.now, request.now, tuple(names))


def _with_pending_keys(content: Content, rotation: Rotation, now: str) -> Content:
    clients: dict[str, ClientKeys] = {}
    for name in _there(rotation, content):
        client = content.clients[name]
        if rotation.id in (client.current.rotation, client.pending.rotation if client.pending else None):
            continue
        # A pending key without a rotation in progress is left over.
        client = _without_pending(name, client, now) if client.pending else client
        clients[name] = dataclasses.replace(client, pending=pending_key(name, rotation.id, now))
    return dataclasses.replace(content.with_clients(clients), rotation=rotation)


def _without_pending(name: str, client: ClientKeys, now: str) -> ClientKeys:
    # The edges have seen it, so it must be dead, too.
    dead = [retire(name, client.pending, now)] if client.pending else []
    return remember(dataclasses.replace(client, pending=None), dead, now)


def _finish(name: str, client: ClientKeys, new: Key, overlap: int, request: RotationRequest) -> ClientKeys:
    old = dataclasses.replace(
        client.current,
        retire_at=times.moment(times.seconds(request.now) + overlap),
        retired="" if overlap else request.now,
        compromised=request.compromised,
    )
    # It was never proven dead, and now there is no place for its text.
    former: list[RetiredKey] = [retire(name, client.previous, request.now)] if client.previous else []
    new = dataclasses.replace(new, activated=request.now)
    return remember(dataclasses.replace(client, current=new, pending=None, previous=old), former, request.now)


def _is_over(previous: Key, now: str) -> bool:
    return previous.retire_at <= now


def _there(rotation: Rotation, content: Content) -> list[str]:
    """The rotation's clients that were not removed meanwhile."""
    return [name for name in rotation.clients if name in content.clients]


def _was(content: Content, rotation_id: str) -> str:
    """The last step of a rotation that is over; empty where there is none with this name."""
    return next((one.step for one in content.ended if one.id == rotation_id), "")


def _ended(content: Content, request: RotationRequest) -> bool:
    """Whether the requested rotation is over already.

    Raises:
        FleetError: it was withdrawn, so its name cannot be used again.
    """
    step = _was(content, request.rotation_id)
    if step == Rotation.STEP_WITHDRAWN:
        raise _taken_back(request.rotation_id)
    return bool(step)


def _taken_back(rotation_id: str) -> FleetError:
    return FleetError(
        f"Rotation {rotation_id} was taken back. Give another rotation_id, or none, to begin a new one with state "
        "pending."
    )


def _in_progress(content: Content, request: RotationRequest) -> Rotation:
    if content.rotation is None:
        named = f"no rotation {request.rotation_id}" if request.rotation_id else "no rotation"
        raise FleetError(f"There is {named} in progress. Begin one with state pending.")
    return _claimed(content.rotation, request)


def _claimed(rotation: Rotation, request: RotationRequest, same_id: bool = True) -> Rotation:
    """The rotation, held by the calling process.

    Raises:
        FleetError: another process holds it, or it is not the requested one.
    """
    status = rotation.holder.status(request.me)
    named = rotation.id == request.rotation_id
    if status == holder.ALIVE:
        raise FleetError(
            f"{_said(rotation)} That process is at work. Wait until it ends, or end process {rotation.holder.pid} and "
            "run again to continue what it began."
        )
    # Where there is no /proc every task is a separate process: there the rotation's name identifies its owner.
    mine = status == holder.UNKNOWN and not rotation.holder.boot and not request.me.boot and named
    if status == holder.UNKNOWN and not mine and not request.take_over:
        raise FleetError(
            f"{_said(rotation)} Whether it still runs cannot be seen from {request.me.controller}. Wait until it ends. "
            "If you are sure that it is dead, continue it: -e key_take_over=true (take_over)."
        )
    if same_id and request.rotation_id and not named:
        raise FleetError(
            f"{_said(rotation)} It is not rotation {request.rotation_id}. Leave out rotation_id to continue it, or "
            "take it back with state withdrawn first."
        )
    if status == holder.MINE:
        return rotation
    return dataclasses.replace(rotation, holder=request.me, resumed=request.now)


def _said(rotation: Rotation) -> str:
    return (
        f"Rotation {rotation.id} of {', '.join(rotation.clients)} is in progress (step {rotation.step}), begun by "
        f"{rotation.holder.said} at {rotation.started}."
    )
