# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Rules about the driver: installed, loaded, answering, new enough, of one version. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.gpu import xid
from ansible_collections.inference.fleet.plugins.module_utils.gpu.reason import DEGRADED, FAILED, Reason, Wanted, gpus

if t.TYPE_CHECKING:
    from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import Observation

_INSTALL = (
    "Install the NVIDIA driver >= {wanted} and reboot, or start the host from an image that has it "
    "(AWS Deep Learning Base AMI). Nothing is installed by this check."
)
_RELOAD = (
    "Drain the host and reboot it, so that the kernel loads the module that belongs to the libraries on disk. "
    "Keep unattended upgrades away from the driver's packages (nvidia-*, libnvidia-*, cuda-drivers*, linux-*)."
)


def version_tuple(version: str) -> tuple[int, ...]:
    """A version in natural order: 580.65.06 < 580.126."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def answering(seen: Observation, wanted: Wanted) -> t.Iterator[Reason]:
    """Whether the driver is installed and answers."""
    driver = seen.driver
    install = _INSTALL.format(wanted=wanted.min_driver)
    if driver.nvidia_smi is None:
        if not driver.loaded:
            found = "no nvidia-smi and no NVIDIA kernel module"
            if driver.nouveau:
                found += "; the kernel runs nouveau instead"
        else:
            found = f"kernel module {driver.module_version or '(version unknown)'} but no nvidia-smi"
            install = "Install the driver's utilities (nvidia-utils) of that version, or fix the path of nvidia-smi."
        yield Reason(FAILED, "driver", found, f"driver >= {wanted.min_driver}", install)
        return
    if driver.failure is None and seen.gpus:
        for notice in driver.notices:
            yield Reason(
                DEGRADED, "nvidia_smi", repr(notice), "no warnings", "Look the message up in NVIDIA's documentation."
            )
        return
    # An empty answer is an error: without GPUs no other rule would apply.
    yield _FAILURES.get(driver.failure or "no_devices", _other_failure)(seen, wanted)


def _mismatch(seen: Observation, wanted: Wanted) -> Reason:
    library = seen.driver.library_version
    if library is None:
        spoken = re.search(r"NVML library version: (\S+)", seen.driver.message)
        library = spoken.group(1) if spoken else "unknown"
    module = seen.driver.module_version or "unknown"
    found = f"kernel module {module}, libraries {library}"
    return Reason(FAILED, "driver_library", found, "one version", _RELOAD)


def _not_loaded(seen: Observation, wanted: Wanted) -> Reason:
    found = "nvidia-smi is installed, the kernel module is not loaded"
    if seen.driver.nouveau:
        found += "; the kernel runs nouveau instead"
    advice = (
        "Reboot if the driver was just installed; else see that the module is built for the running kernel "
        "(uname -r, dkms status) and why it does not load (dmesg, Secure Boot, nouveau)."
    )
    return Reason(FAILED, "driver", found, "a loaded kernel module", advice)


def _no_library(seen: Observation, wanted: Wanted) -> Reason:
    advice = "Install the driver's libraries of the kernel module's version (libnvidia-compute) and run ldconfig."
    return Reason(FAILED, "driver_library", "no libnvidia-ml.so", "the driver's libraries", advice)


def _no_devices(seen: Observation, wanted: Wanted) -> Reason:
    count = wanted.hardware.count
    advice = (
        f"See whether the host has a GPU at all (lspci -d 10de:) and why the driver left it out (dmesg). {xid.REPLACE}"
    )
    return Reason(FAILED, "gpu_count", gpus(0), gpus(count) if count else "at least 1 GPU", advice)


def _gpu_lost(seen: Observation, wanted: Wanted) -> Reason:
    found = repr(seen.driver.message) if seen.driver.message else "a GPU that does not answer"
    return Reason(FAILED, "gpu_lost", found, "every GPU answers", xid.REPLACE)


def _timeout(seen: Observation, wanted: Wanted) -> Reason:
    advice = f"A GPU or the driver hangs; the kernel log has the cause (dmesg). {xid.REPLACE}"
    return Reason(FAILED, "nvidia_smi", seen.driver.message, "an answer", advice)


def _no_permission(seen: Observation, wanted: Wanted) -> Reason:
    return Reason(FAILED, "nvidia_smi", repr(seen.driver.message), "an answer", "Run as root (become: true).")


def _other_failure(seen: Observation, wanted: Wanted) -> Reason:
    found = repr(seen.driver.message or "no answer")
    return Reason(FAILED, "nvidia_smi", found, "an answer", "Run nvidia-smi on the host and see dmesg.")


_FAILURES: dict[str, t.Callable[[t.Any, Wanted], Reason]] = {
    "mismatch": _mismatch,
    "not_loaded": _not_loaded,
    "no_library": _no_library,
    "no_devices": _no_devices,
    "gpu_lost": _gpu_lost,
    "timeout": _timeout,
    "no_permission": _no_permission,
}


def version(seen: Observation, wanted: Wanted) -> t.Iterator[Reason]:
    """New enough for the CUDA of the engine's wheels."""
    reported = seen.driver.version
    if reported is None:
        yield Reason(
            FAILED, "driver_version", "no version", f">= {wanted.min_driver}", "Run nvidia-smi on the host and see why."
        )
    elif version_tuple(reported) < version_tuple(wanted.min_driver):
        advice = _INSTALL.format(wanted=wanted.min_driver)
        yield Reason(FAILED, "driver_version", reported, f">= {wanted.min_driver}", advice)


def libraries(seen: Observation, wanted: Wanted) -> t.Iterator[Reason]:
    """Kernel module and libraries have one version, and an engine will find libcuda."""
    driver = seen.driver
    versions = {"kernel module": driver.module_version, "libraries": driver.library_version}
    known = {name: version for name, version in versions.items() if version}
    # nvidia-smi may still answer: it keeps what it has loaded, but the next engine would not start.
    if len({version_tuple(version) for version in known.values()}) > 1:
        found = ", ".join(f"{name} {version}" for name, version in known.items())
        yield Reason(FAILED, "driver_library", found, "one version", _RELOAD)
    if driver.cuda_library is None:
        advice = "Install the driver's compute libraries (libnvidia-compute) of the same version and run ldconfig."
        yield Reason(FAILED, "cuda_library", "no libcuda.so.1", "libcuda.so.1 of the driver", advice)


RULES = (version, libraries)
