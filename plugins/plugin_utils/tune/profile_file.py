# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The file of a measured profile, from the winner of a search. plugin_utils/fleet/measured.py reads it."""

from __future__ import annotations

import os
import re
import tempfile
import typing as t

import yaml
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import write_atomically
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet import measured
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import PROFILES

_HEAD = """\
---
# Written by playbooks/tune.yml. Select it in group vars: engine_profile: {name}
# Each setting precedes the one of the profile in `base`; a variable that is set precedes both.
"""
_UNSAFE = re.compile(r"[^a-z0-9._]+")
#: What an engine's part says, in this order, before its settings.
_PART = ("version", "model", "revision", "gpu", "base", "tune_for", "run", "at", "host", "limits", "load", "figures")


def default_name(gpu: str, goal: str) -> str:
    """The name of a measured profile.

    Args:
        gpu: the kind of GPU, as ``L40S``; ``cpu`` for none.
        goal: what was searched for.
    """
    words = [_UNSAFE.sub("-", word.lower().removeprefix("nvidia ")).strip("-") for word in (gpu or "gpu", goal)]
    return measured.PREFIX + "-".join(words)


def base_of(profile: str, directory: str, engine: str) -> str:
    """The profile of the collection below a profile, which may be a measured one."""
    if profile in PROFILES:
        return profile
    document = measured.read(directory, profile) or {}
    return str(document["engines"][engine]["base"])


def check_place(directory: str, name: str) -> None:
    """Refuse a place in which the file cannot be written, or whose file is not valid.

    Raises:
        FleetError: with the reason, and what to do.
    """
    if not directory:
        raise FleetError("engine_profiles is empty; give the directory of the measured profiles on the controller.")
    measured.read(directory, measured.check_name(name, "tune_profile"))
    # An empty directory would be left by a search that finds nothing.
    place = os.path.expanduser(directory)
    while not os.path.isdir(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".room-") as file:
            file.write(b"0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FleetError(
            f"Nothing was touched: the profile cannot be written to {directory} ({error.strerror or error}). Correct "
            "the directory's rights, or set engine_profiles."
        ) from error


def make_part(about: t.Mapping[str, t.Any], settings: t.Mapping[str, t.Any], why: str) -> dict[str, t.Any]:
    """An engine's part of a file.

    Args:
        about: the fields of _PART.
        settings: what differs from the profile ``base``.
        why: the sentence that names the run and its figures.
    """
    listed = [{"name": name, "value": value, "why": why} for name, value in settings.items()]
    return {**{name: about[name] for name in _PART if name in about}, "settings": listed}


def write(directory: str, name: str, engine: str, part: t.Mapping[str, t.Any]) -> str:
    """Write an engine's part of a measured profile; those of other engines stay.

    Returns:
        The file's path.

    Raises:
        FleetError: there is a file that is not valid, or this one would not be.
    """
    path = measured.path_of(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    before = (measured.read(directory, name) or {}).get("engines") or {}
    document = {"schema": measured.SCHEMA, "profile": name, "engines": {**before, engine: dict(part)}}
    measured.check(path, name, document)
    text = yaml.safe_dump(document, sort_keys=False, width=118, allow_unicode=True)
    write_atomically(path, _HEAD.format(name=name) + text)
    return path
