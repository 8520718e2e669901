# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Measured profiles: files on the controller that playbooks/tune.yml wrote, one for each name.

A file may have settings for several engines, as the profiles of the collection do, each measured with one model on one
kind of GPU.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import typing as t

import yaml
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import is_named

PREFIX = "measured-"
#: The hardware of a host without a GPU.
CPU = "cpu"
#: Below an inventory's directory. Ansible reads group_vars only for groups, and takes everything else there for hosts.
DIRECTORY = "group_vars/engine_profiles"
SCHEMA = 1

_SUFFIX = ".yml"
_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9][a-z0-9._-]*")
#: What every engine's part says, beside its settings.
TEXTS = ("version", "model", "gpu", "base", "tune_for", "run", "at", "host")


@dataclasses.dataclass(frozen=True)
class ProfileUse:
    """Where a profile is to be used.

    Attributes:
        directory: of the measured profiles, on the controller; empty for none.
        gpu: the host's GPU, as ``L40S``; ``cpu`` for a host without one; empty where unknown.
        model: the model that the host serves; empty where unknown.
        version: the engine's; empty where unknown.
    """

    directory: str = ""
    gpu: str = ""
    model: str = ""
    version: str = ""


@dataclasses.dataclass(frozen=True)
class MeasuredProfile:
    """An engine's part of a file.

    Attributes:
        base: the profile of the collection that it differs from.
        settings: its differences, by the names of the role's variables without their prefix.
        note: what a user of it has to know; empty for nothing.
    """

    base: str
    settings: dict[str, t.Any]
    note: str


def is_measured(profile: str) -> bool:
    """Whether a profile's name is that of a measured one."""
    return profile.startswith(PREFIX)


def check_name(name: str, variable: str) -> str:
    """A valid name for a measured profile.

    Raises:
        FleetError: it is not valid.
    """
    if not _NAME.fullmatch(name):
        raise FleetError(
            f"{variable} is {name!r}; the name of a measured profile begins with {PREFIX} and goes on with small "
            f"letters, digits, dots, dashes and underscores, such as {PREFIX}l40s-interactive."
        )
    return name


def directory_of(own: t.Mapping[str, t.Any]) -> str:
    """The directory of the measured profiles, from a host's variables; empty where it has none."""
    given = str(own.get("engine_profiles") or "")
    if given:
        return os.path.expanduser(given)
    inventory = str(own.get("inventory_dir") or "")
    return os.path.join(inventory, DIRECTORY) if inventory else ""


def path_of(directory: str, name: str) -> str:
    """The file of a measured profile."""
    return os.path.join(os.path.expanduser(directory), f"{name}{_SUFFIX}")


def names(directory: str) -> list[str]:
    """The measured profiles of a directory."""
    try:
        files = os.listdir(os.path.expanduser(directory)) if directory else []
    except OSError:
        return []
    found = [name[: -len(_SUFFIX)] for name in files if name.endswith(_SUFFIX)]
    return sorted(name for name in found if _NAME.fullmatch(name))


def read(directory: str, name: str) -> dict[str, t.Any] | None:
    """The document of a measured profile; None where there is no such file.

    Raises:
        FleetError: the file cannot be read, or is not valid; it says what is wrong.
    """
    path = path_of(directory, name)
    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"The measured profile {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise _corrupt(path, f"it is no YAML ({' '.join(str(error).split())})") from error
    check(path, name, document)
    return t.cast("dict[str, t.Any]", document)


def choose(profile: str, engine: str, use: ProfileUse) -> MeasuredProfile:
    """The settings of a measured profile for an engine.

    Raises:
        FleetError: there is no such profile, its file is not valid, or it was measured for something else.
    """
    document = read(use.directory, profile) if use.directory else None
    if document is None:
        raise FleetError(unknown(profile, use.directory, ()))
    own = document["engines"].get(engine)
    if own is None:
        has = ", ".join(sorted(document["engines"]))
        raise FleetError(
            f"engine_profile {profile} was measured with {has}, and this host runs {engine}. Measure it: "
            f"playbooks/tune.yml -e engine={engine} -e tune_for={_purpose(document)}; or choose another profile."
        )
    problems = []
    if use.gpu and not is_named(own["gpu"], use.gpu):
        problems.append(f"on {_hardware(own['gpu'])}, and this host has {_hardware(use.gpu)}")
    if use.model and own["model"] != use.model:
        problems.append(f"with {own['model']}, and this host serves {use.model}")
    if problems:
        raise FleetError(
            f"engine_profile {profile} was measured {' and '.join(problems)}. Measure it there: playbooks/tune.yml -e "
            f"tune_for={own['tune_for']}; or choose another profile."
        )
    note = ""
    if use.version and own["version"] != use.version:
        note = (
            f"engine_profile {profile} was measured with {engine} {own['version']}, and {use.version} runs here: its "
            f"figures may not hold. playbooks/tune.yml -e tune_for={own['tune_for']} measures them again."
        )
    return MeasuredProfile(own["base"], {one["name"]: one["value"] for one in own["settings"]}, note)


def digest(directory: str, name: str) -> str:
    """A digest of a measured profile's file; empty where there is none."""
    try:
        with open(path_of(directory, name), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:12]
    except OSError:
        return ""


def unknown(profile: str, directory: str, valid: t.Sequence[str]) -> str:
    """The message about a profile that there is not.

    Args:
        profile: its name.
        directory: of the measured ones.
        valid: the profiles of the collection.
    """
    found = names(directory)
    measured = f"measured, in {directory}: {', '.join(found)}" if found else f"none is measured in {directory or '-'}"
    listed = f"{', '.join(valid)}; {measured}" if valid else measured
    return f"engine_profile is {profile!r}, which is no profile. Valid are: {listed}."


def check(path: str, name: str, document: t.Any) -> None:
    """Refuse what is no valid measured profile.

    Raises:
        FleetError: it says what is wrong.
    """
    schema = document.get("schema") if isinstance(document, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise FleetError(
            f"The measured profile {path} has schema {schema}, and this version of inference.fleet reads schema "
            f"{SCHEMA}. Install the newer version on this controller."
        )
    if schema != SCHEMA:
        raise _corrupt(path, f"it has no schema: {SCHEMA}")
    if document.get("profile") != name:
        raise _corrupt(path, f"it says that it is the profile {document.get('profile')!r}")
    engines = document.get("engines")
    if not isinstance(engines, dict) or not engines:
        raise _corrupt(path, "it has no engines")
    for engine, own in engines.items():
        if engine not in ENGINES:
            raise _corrupt(path, f"it has the engine {engine!r}; known are {', '.join(ENGINES)}")
        why = _problem(engine, own)
        if why:
            raise _corrupt(path, f"its part of {engine} {why}")


def _purpose(document: t.Mapping[str, t.Any]) -> str:
    return str(next(iter(document["engines"].values()))["tune_for"])


def _hardware(gpu: str) -> str:
    return "no GPU" if gpu == CPU else gpu


def _corrupt(path: str, why: str) -> FleetError:
    advice = "Restore it, or measure again: playbooks/tune.yml."
    return FleetError(f"The measured profile {path} is not valid: {why}. {advice}")


def _problem(engine: str, own: t.Any) -> str:
    """The error in an engine's part; empty for none."""
    if not isinstance(own, dict):
        return "is no mapping"
    missing = [field for field in TEXTS if not isinstance(own.get(field), str) or not own[field]]
    if missing:
        return f"has no {', no '.join(missing)}"
    if own["base"] not in ENGINES[engine].profiles:
        return f"has the base {own['base']!r}; valid are {', '.join(ENGINES[engine].profiles)}"
    settings = own.get("settings")
    if not isinstance(settings, list) or not settings:
        return "has no settings"
    valid = {setting.name for profile in ENGINES[engine].profiles.values() for setting in profile}
    for one in settings:
        if not isinstance(one, dict) or set(one) != {"name", "value", "why"} or not one["why"]:
            return f"has a setting that is not name, value and why: {one!r}"
        if one["name"] not in valid:
            return f"has the setting {one['name']!r}, which no profile sets; valid are {', '.join(sorted(valid))}"
    return ""
