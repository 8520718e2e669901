# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Profiles: sets of role variables for one purpose each. The engines' modules have the values, with their reasons.

``balanced`` has the roles' defaults; the others have their differences from it. ``python -m tests.profiles_page``
writes docs/profiles.md from all of this. A measured profile has its differences from one of these in a file:
measured.py reads it.
"""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, check_engine
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import is_named
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet import measured
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.measured import ProfileUse

DEFAULT = "balanced"


#: The purpose of each profile.
PROFILES = {
    "balanced": "chat and pictures of mixed length; the roles' default",
    "interactive": "short turns that people wait for: each stream keeps its pace, and what is too "
    "much goes elsewhere at once",
    "throughput": "batches without a waiting user: as many tokens a second as the GPU gives",
    "long_context": "books and hours of video: the model's whole 262144 tokens, few requests at once",
    "low_memory": "GPUs of 24 GB (g5, g6), or room for something else beside",
    "speculative": "few streams, each as fast as can be: a draft model (EAGLE3) proposes tokens, which the model "
    "checks several at a time. Needs model_draft; the gate refuses it where too few proposals are taken",
}


class ProfileSettings(t.NamedTuple):
    """The settings of a profile.

    Attributes:
        values: the role variables, without the engine's prefix.
        note: what a user of the profile has to know; empty for nothing.
    """

    values: dict[str, t.Any]
    note: str


def find_settings(profile: str, engine: str, gpu: str, use: ProfileUse) -> ProfileSettings:
    """The role variables of any profile, including those of ``balanced`` that it does not change.

    Args:
        profile: one of PROFILES, or a measured one.
        engine: one of ENGINES.
        gpu: the host's GPU, as ``L40S`` or ``NVIDIA L40S``; empty where unknown.
        use: where it is to be used.

    Raises:
        FleetError: there is no such profile, or no such engine; or it was measured for something else.
    """
    check_profile(profile, use.directory)
    if not measured.is_measured(profile):
        return ProfileSettings(profile_settings(profile, engine, gpu), "")
    own = measured.choose(profile, check_engine(engine), use)
    return ProfileSettings({**profile_settings(own.base, engine, gpu), **own.settings}, own.note)


def check_profile(profile: str, directory: str = "") -> None:
    """Refuse a profile that there is not, and a measured one whose file is not valid.

    Args:
        profile: its name.
        directory: of the measured ones.

    Raises:
        FleetError: with those that there are.
    """
    if profile in PROFILES or (measured.is_measured(profile) and directory and measured.read(directory, profile)):
        return
    raise FleetError(measured.unknown(profile, directory, tuple(PROFILES)))


def name_profile(own: t.Mapping[str, t.Any]) -> str:
    """The name of the profile that a host's variables select; of a measured one with a digest of its file.

    Raises:
        FleetError: there is no such profile.
    """
    profile = str(own.get("engine_profile") or "")
    if profile:
        check_profile(profile, measured.directory_of(own))
    found = measured.digest(measured.directory_of(own), profile) if measured.is_measured(profile) else ""
    return f"{profile} {found}".strip()


def profile_settings(profile: str, engine: str, gpu: str = "") -> dict[str, t.Any]:
    """The role variables of a profile of the collection, including those of ``balanced`` that it does not change.

    Args:
        profile: one of PROFILES.
        engine: one of ENGINES.
        gpu: the host's GPU, as ``L40S`` or ``NVIDIA L40S``; empty where unknown.

    Raises:
        FleetError: there is no such profile, or no such engine.
    """
    if profile not in PROFILES:
        raise FleetError(f"engine_profile is {profile!r}, which is no profile. Valid are: {', '.join(PROFILES)}.")
    found: dict[str, t.Any] = {}
    for name in dict.fromkeys((DEFAULT, profile)):
        own = ENGINES[check_engine(engine)].profiles.get(name, ())
        # Those for one GPU after those for any, whatever their order.
        for setting in sorted(own, key=lambda setting: setting.gpu != ""):
            if not setting.gpu or (gpu and is_named(setting.gpu, gpu)):
                found[setting.name] = setting.value
    return found
