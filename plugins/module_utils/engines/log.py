# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The reason why an engine did not start, from its journal.

Pure. What one engine writes is in its own module; here are the lines of all of them, their libraries and systemd.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Cause, Engine


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The reason, and what to do.

    Attributes:
        kind: a short stable name for programs: ``max_model_len``, ``out_of_memory``, …
        reason: one sentence, with the engine's own figures.
        advice: what a person can do.
    """

    kind: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.reason} {self.advice}"


def _common(engine: Engine) -> tuple[Cause, ...]:
    """Lines that every engine may write."""
    arguments = (
        Cause(
            "bad_argument",
            rf"(?:{engine.journal.programs})[^\n]*: error: (?P<what>.+)",
            "It refuses its arguments: {what}",
            f"Correct the role's variable or {engine.name}_extra_args.",
        ),
    )
    return (
        Cause(
            "out_of_memory",
            r"(?P<error>CUDA out of memory\. Tried to allocate [\d.]+ [KMG]iB)",
            "{error}.",
            f"{engine.journal.gpu_advice}; playbooks/verify_gpu.yml shows who else uses the GPU.",
        ),
        Cause(
            "host_out_of_memory",
            r"(?:oom-kill|Killed process \d+|A process of this unit has been killed by the OOM killer)",
            "The kernel ended it because the host ran out of memory.",
            engine.journal.host_advice,
        ),
        Cause(
            "disk_full",
            r"No space left on device",
            "The disk is full.",
            "Free space: the model root, /opt/inference and /var/cache/inference are the large ones.",
        ),
        Cause(
            "port_in_use",
            r"(?:address already in use|error while attempting to bind on address \(\S+ (?P<port>\d+)\))",
            "Its port is taken by another process.",
            "`ss -ltnp` on the host shows by which.",
        ),
        Cause(
            "bad_argument",
            r"(?:unrecognized arguments: (?P<what>.+))",
            "It does not know the argument {what}.",
            f"Correct {engine.name}_extra_args.",
        ),
        *(arguments if engine.journal.programs else ()),
        *_LIBRARIES,
    )


_LIBRARIES = (
    Cause(
        "driver",
        r"(?P<what>Driver/library version mismatch|CUDA driver version is insufficient for CUDA runtime version|"
        r"The NVIDIA driver on your system is too old[^\n.]*|Found no NVIDIA driver[^\n.]*|"
        r"no CUDA-capable device is detected|No CUDA GPUs are available)",
        "CUDA does not work: {what}.",
        "playbooks/verify_gpu.yml says what is wrong and what to do.",
    ),
    Cause(
        "missing_library",
        r"(?P<what>\S+\.so[\d.]*): cannot open shared object file",
        "The shared library {what} is missing on the host.",
        "Add its package to engine_packages.",
    ),
    Cause(
        "missing_program",
        r"FileNotFoundError: \[Errno 2\] No such file or directory: '(?P<what>[\w.+-]+)'",
        "It runs the program {what}, which is not there.",
        "The engines' role brings what they need; otherwise add its package to engine_packages.",
    ),
    Cause(
        "model_missing",
        r"(?:Repo id must be|is not a local folder and is not a valid model identifier|"
        r"does not appear to have a file named config\.json|Can't load the configuration of)",
        "The model's files are not where the release says.",
        "`systemctl status inference-models.service` shows how their download went.",
    ),
    Cause(
        "unsupported_model",
        r"Model architectures \[(?P<what>[^\]]+)\] (?:failed to be inspected|are not supported)",
        "This engine version cannot run the architecture {what}.",
        "Choose another engine version or model.",
    ),
    Cause(
        "lost_node",
        r"(?P<what>\S+) is gone; the instance ends on all of its nodes",
        "The node {what} of the instance was lost.",
        "Look whether that host is up, and what the journal of the same unit says there.",
    ),
    Cause(
        "engine_error",
        # In backticks it is quoted: vLLM warns at each start where its limit of open files is low. What follows from a
        # process that was lost is no reason.
        r"(?<!`)(?P<what>(?:ValueError|RuntimeError|AssertionError|OSError|ImportError): "
        r"(?!Engine core|Executor failed|\[\S*gloo/transport/)[^\n]+)",
        "{what}",
        "The lines before it in the journal say more.",
    ),
    Cause(
        "lost_process",
        r"(?:Worker proc \S+ died unexpectedly|"
        r"gloo/transport/tcp/pair\.cc:\d+\] (?:Connection closed by peer|Read error \S+: Connection reset by peer))",
        "One of its processes was lost: something ended it, or its GPU failed.",
        "`journalctl -k` on the host and playbooks/verify_gpu.yml say more.",
    ),
    Cause(
        "engine_error",
        r"(?m:^(?:\S+ )*?(?P<what>(?:\w+\.)+\w+(?:Error|Exception): [^\n]+))",
        "{what}",
        "The lines before it in the journal say more.",
    ),
)


def explain(lines: t.Iterable[str], engine: Engine) -> Explanation | None:
    """The reason why an engine exited, or None where its journal has no known one.

    The first rule that matches anywhere wins, specific ones before general ones, because an engine that dies prints the
    cause first and then a chain of "Engine core initialization failed".

    Args:
        lines: the journal of one start of one unit, oldest first.
        engine: what the unit runs.
    """
    text = "\n".join(lines)
    for cause in (*engine.journal.causes, *_common(engine)):
        found = re.search(cause.pattern, text, re.IGNORECASE)
        if found:
            values = {key: (value or "").strip() for key, value in found.groupdict().items()}
            return Explanation(cause.kind, cause.reason.format(**values).strip(), cause.advice.format(**values))
    return None
