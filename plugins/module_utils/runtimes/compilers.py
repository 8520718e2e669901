# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What engines compile and decode with while they serve.

A request may be the first that needs a kernel, and without the compiler it ends the engine for everybody. Pure but for
``missing_programs``.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

#: Where a unit looks beside PATH.
CUDA_PROGRAMS = "/usr/local/cuda/bin"
#: Not a program, but asked for in the same way: the header that C code for Python includes.
HEADER = "Python.h"


@dataclasses.dataclass(frozen=True)
class Need:
    """A program that an engine runs on demand.

    Attributes:
        program: its name.
        packages: those of the distribution that bring it, one of which is enough.
        why: what needs it.
        without: what happens where it is missing.
        fix: what to do where it is missing.
    """

    program: str
    packages: tuple[str, ...]
    why: str
    without: str
    fix: str


_DEFAULT = "leave engine_packages at its default, or run: apt-get install"
_COMPILERS = f"{_DEFAULT} build-essential python3-dev"
_ENDS = "the first request that needs it ends the engine for everybody"
_NEEDS = {
    "gcc": Need(
        "gcc",
        ("build-essential", "gcc"),
        "Triton compiles the launcher of each kernel at its first use",
        _ENDS,
        _COMPILERS,
    ),
    "g++": Need(
        "g++",
        ("build-essential", "g++"),
        "PyTorch compiles what an option of a request needs at its first use",
        _ENDS,
        _COMPILERS,
    ),
    HEADER: Need(HEADER, ("python3-dev",), "what Triton and PyTorch compile includes it", _ENDS, _COMPILERS),
    "nvcc": Need(
        "nvcc",
        ("nvidia-cuda-toolkit", "cuda-toolkit-13-0", "cuda-nvcc-13-0"),
        "SGLang compiles kernels of FlashInfer and its own at their first use",
        _ENDS,
        "install the CUDA toolkit (NVIDIA's package cuda-toolkit-13-0), name that package in engine_packages, or start "
        "the host from an AWS Deep Learning AMI",
    ),
    "ffmpeg": Need(
        "ffmpeg",
        ("ffmpeg",),
        "SGLang decodes videos with its libraries",
        "each video is answered with 500",
        f"{_DEFAULT} ffmpeg",
    ),
}

#: By accelerator, for every engine. On a CPU the roles switch compilation off.
_COMMON: dict[str, tuple[Need, ...]] = {
    "cuda": tuple(_NEEDS[name] for name in ("gcc", "g++", HEADER)),
    "cpu": (),
}
#: By accelerator and engine. vLLM does without nvcc: FlashInfer is off where there is none, and others take its place.
#: ninja is in the locks.
_OWN: dict[tuple[str, str], tuple[Need, ...]] = {("cuda", "sglang"): (_NEEDS["nvcc"], _NEEDS["ffmpeg"])}


def wanted_programs(
    instances: t.Iterable[dict[str, t.Any]], accelerator: str, packages: t.Collection[str] = ()
) -> list[dict[str, t.Any]]:
    """The programs that a host must have for its engines, each with the reason and what to do.

    Args:
        instances: of the host, as ``Instance.as_dict`` gives them.
        accelerator: ``cuda`` or ``cpu``.
        packages: what is installed before they are needed; what these bring is left out.
    """
    engines = sorted({instance["engine"] for instance in instances} & set(ENGINES))
    needs: dict[str, Need] = {}
    for engine in engines:
        for need in (*_COMMON.get(accelerator, ()), *_OWN.get((accelerator, engine), ())):
            if not set(need.packages) & set(packages):
                needs[need.program] = need
    return [
        {"program": need.program, "why": f"{need.why}; without it {need.without}", "fix": need.fix}
        for need in needs.values()
    ]


def missing_programs(wanted: t.Iterable[dict[str, t.Any]], python: str = "") -> list[str]:
    """What is wrong with this host, one sentence for each program that it does not have.

    Args:
        wanted: as ``wanted_programs`` gives them.
        python: a runtime's, whose header is looked for; empty where there is none yet.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), CUDA_PROGRAMS])
    problems = []
    for need in wanted:
        if need["program"] == HEADER:
            there = not python or _has_header(python)
        else:
            there = shutil.which(need["program"], path=path) is not None
        if not there:
            problems.append(f"The host has no {need['program']}: {need['why']}. To have it, {need['fix']}.")
    return problems


def _has_header(python: str) -> bool:
    program = "import os, sysconfig; print(os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "True"
