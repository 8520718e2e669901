# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The host name of each EC2 instance. Pure."""

from __future__ import annotations

import collections
import dataclasses
import re
import typing as t

_USABLE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_INSTANCE_ID = re.compile(r"(^|_)i-[0-9a-f]+\Z")
RUNNING = "running"


@dataclasses.dataclass(frozen=True)
class Ec2Instance:
    """An instance of the fleet.

    Attributes:
        id: EC2's id.
        tag: its tag Name; empty for none.
        state: EC2's name of its state.
    """

    id: str
    tag: str
    state: str


@dataclasses.dataclass(frozen=True)
class Naming:
    """The hosts' names by instance id, and a sentence on each name that differs from the tag."""

    names: dict[str, str]
    notes: list[str]


def name_hosts(instances: t.Sequence[Ec2Instance], groups: t.Collection[str]) -> Naming:
    """Name every instance, so that names are unique and work with --limit.

    A tag of only one instance is its host's name. Instances that share one have their instance id appended, except a
    single running one: it keeps the name beside its stopped predecessors.
    """
    sharing = collections.defaultdict(list)
    names, notes = {}, []
    for one in sorted(instances, key=lambda one: one.id):
        names[one.id] = one.id
        if one.tag and (why := name_problem(one.tag, groups)):
            notes.append(f"The instance {one.id} has the Name {one.tag!r}, which {why}; its host is {one.id}.")
        elif one.tag:
            sharing[one.tag].append(one)
    for tag, own in sorted(sharing.items()):
        running = [one for one in own if one.state == RUNNING]
        for one in own:
            plain = len(own) == 1 or running == [one]
            names[one.id] = tag if plain else f"{tag}_{one.id}"
        if len(own) > 1:
            hosts = ", ".join(f"{one.id} ({one.state}) is {names[one.id]}" for one in own)
            notes.append(f"{len(own)} instances have the Name {tag}: {hosts}.")
    return Naming(names, notes)


def name_problem(name: str, groups: t.Collection[str]) -> str:
    """Why a name is not a valid host name, as the end of a sentence; empty when it is."""
    if not _USABLE.match(name):
        return "has other characters than letters, digits, dots, dashes and underscores"
    if name in groups:
        return "is the name of a group"
    if name == "localhost":
        return "is the name of the controller"
    if _INSTANCE_ID.search(name):
        return "looks like an instance id"
    return ""
