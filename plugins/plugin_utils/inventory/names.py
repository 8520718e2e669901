# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The host name of each EC2 instance, and the validation of its tag inference:state. Pure."""

from __future__ import annotations

import collections
import dataclasses
import re
import typing as t

_USABLE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_INSTANCE_ID = re.compile(r"(^|_)i-[0-9a-f]+\Z")
JOINING, LEAVING = "joining", "leaving"
#: The states of instances that run.
_UP = ("running", JOINING, LEAVING)


@dataclasses.dataclass(frozen=True)
class Ec2Instance:
    """An instance of the fleet.

    Attributes:
        id: EC2's id.
        tag: its tag Name; empty for none.
        state: EC2's name of its state; of one that runs, also JOINING or LEAVING.
        own_tag: its tag inference:name; empty for none.
        scaling_group: the Auto Scaling group that launched it; empty for none.
        state_tag: its tag inference:state; empty for none.
    """

    id: str
    tag: str
    state: str
    own_tag: str = ""
    scaling_group: str = ""
    state_tag: str = ""


@dataclasses.dataclass(frozen=True)
class Naming:
    """The hosts' names by instance id, and a sentence on each name that differs from the tag."""

    names: dict[str, str]
    notes: list[str]


def state_problems(instances: t.Sequence[Ec2Instance]) -> list[str]:
    """A sentence on each instance whose tag inference:state has no meaning."""
    return [
        f"The instance {one.id}{f' ({one.own_tag or one.tag})' if one.own_tag or one.tag else ''} has the tag "
        f"inference:state with the value {one.state_tag!r}; valid are {JOINING} and {LEAVING}. Correct the tag, or "
        "remove it if the host is a member of the fleet."
        for one in sorted(instances, key=lambda one: one.id)
        if one.state_tag not in ("", JOINING, LEAVING)
    ]


def name_hosts(instances: t.Sequence[Ec2Instance], groups: t.Collection[str]) -> Naming:
    """Name every instance, so that names are unique and work with --limit.

    The tag inference:name counts before Name. A name of only one instance is its host's. Instances that share one have
    their instance id appended, except

    - the one that has it by inference:name, beside others that have it by Name,
    - a single running one: it keeps the name beside its stopped predecessors.

    An instance of an Auto Scaling group always has its id appended to Name: the group gives all of its instances one
    Name, and a host's name must not change when the group grows.
    """
    sharing: dict[str, list[Ec2Instance]] = collections.defaultdict(list)
    names, notes = {}, []
    for one in sorted(instances, key=lambda one: one.id):
        names[one.id] = one.id
        name, said = _wanted(one, groups)
        notes += said
        if name and name == one.tag != one.own_tag and one.scaling_group:
            names[one.id] = f"{name}_{one.id}"
        elif name:
            sharing[name].append(one)
    for name, all_of_it in sorted(sharing.items()):
        own = [one for one in all_of_it if one.own_tag == name] or all_of_it
        up = [one for one in own if one.state in _UP]
        plain = own if len(own) == 1 else up if len(up) == 1 else []
        for one in all_of_it:
            names[one.id] = name if one in plain else f"{name}_{one.id}"
        if len(all_of_it) > 1:
            notes.append(_shared(name, all_of_it, names))
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


def _wanted(one: Ec2Instance, groups: t.Collection[str]) -> tuple[str, list[str]]:
    """The name that the instance's tags give it, empty for none, and a sentence on each that cannot be used."""
    problems: list[str] = []
    for key, name in (("tag inference:name", one.own_tag), ("Name", one.tag)):
        why = name_problem(name, groups) if name else ""
        if name and not why:
            return name, [f"{problem} its host is named after {name}." for problem in problems]
        if why:
            problems.append(f"The instance {one.id} has the {key} {name!r}, which {why};")
    return "", [f"{problem} its host is {one.id}." for problem in problems]


def _shared(name: str, instances: t.Sequence[Ec2Instance], names: t.Mapping[str, str]) -> str:
    hosts = ", ".join(f"{one.id} ({one.state}) is {names[one.id]}" for one in instances)
    key = "tag inference:name" if all(one.own_tag == name for one in instances) else "Name"
    note = f"{len(instances)} instances have the {key} {name}: {hosts}."
    if name in names.values():
        return note
    return (
        f"{note} No host is named {name} now, so host_vars/{name} apply to none. With a tag inference:name of its own, "
        "a host keeps its name as others come and go."
    )
