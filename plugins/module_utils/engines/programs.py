# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Programs with which engines compile and decode while they serve.

Any request may be the first that needs a kernel, and without the compiler it ends the engine for all clients. Pure
except for ``missing_programs``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.base import ENDS, INSTALL, Program
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

#: Where a unit looks beside PATH.
CUDA_PROGRAMS = "/usr/local/cuda/bin"
#: Not a program, but checked the same way: the header that C code for Python includes.
HEADER = "Python.h"


_COMPILERS = f"{INSTALL} build-essential python3-dev"

#: By accelerator, for every engine. On a CPU the roles disable compilation.
_COMMON: dict[str, tuple[Program, ...]] = {
    "cuda": (
        Program(
            "gcc",
            ("build-essential", "gcc"),
            "Triton compiles the launcher of each kernel at its first use",
            ENDS,
            _COMPILERS,
        ),
        Program(
            "g++",
            ("build-essential", "g++"),
            "PyTorch compiles what an option of a request needs at its first use",
            ENDS,
            _COMPILERS,
        ),
        Program(HEADER, ("python3-dev",), "what Triton and PyTorch compile includes it", ENDS, _COMPILERS),
    ),
}


def wanted_programs(
    instances: t.Iterable[dict[str, t.Any]], accelerator: str, packages: t.Collection[str] = ()
) -> list[dict[str, t.Any]]:
    """The programs that a host needs for its engines, each with the reason and what to do.

    Args:
        instances: of the host, as ``Instance.as_dict`` gives them.
        accelerator: ``cuda`` or ``cpu``.
        packages: installed before they are needed; their programs are left out.
    """
    engines = sorted({instance["engine"] for instance in instances} & set(ENGINES))
    needs: dict[str, Program] = {}
    for engine in engines:
        for need in (*_COMMON.get(accelerator, ()), *ENGINES[engine].programs.get(accelerator, ())):
            if not set(need.packages) & set(packages):
                needs[need.name] = need
    return [
        {"program": need.name, "why": f"{need.why}; without it {need.without}", "fix": need.fix}
        for need in needs.values()
    ]


#: The argument of a module that checks programs; documented once, in the fragment programs.
PROGRAMS_ARGUMENT: dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "program": {"type": "str", "required": True},
        "why": {"type": "str", "required": True},
        "fix": {"type": "str", "required": True},
    },
}


def missing_programs(wanted: t.Iterable[dict[str, t.Any]], python: str = "") -> list[str]:
    """One sentence for each program that is missing on this host.

    Args:
        wanted: as ``wanted_programs`` gives them.
        python: a runtime's, whose header is checked; empty where there is none yet.
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
