# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The reason why an engine did not start, lifted from what it wrote to the journal.

Pure. The texts are those of vLLM 0.32/0.33 and SGLang 0.5.23; each rule has a line of theirs in the unit tests.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why, and what to do.

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


_Rule = tuple[str, "re.Pattern[str]", str, str]

# The first rule that matches anywhere wins: the particular before the general, because an engine that dies prints the
# cause first and then a chain of "Engine core initialization failed".
_RULES: tuple[_Rule, ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE), reason, advice)
    for kind, pattern, reason, advice in (
        (
            "max_model_len",
            r"max seq len \((?P<wanted>\d+)\), \((?P<needed>[\d.]+) GiB KV cache is needed, which is larger than the "
            r"available KV cache memory \((?P<available>[\d.]+) GiB\)"
            r".*?estimated maximum model length is (?P<fits>\d+)",
            "max_model_len {wanted} needs {needed} GiB of KV cache, and {available} GiB are left.",
            "The longest that fits is {fits}: set vllm_max_model_len to {fits} or less, raise "
            "vllm_gpu_memory_utilization, or set vllm_kv_cache_dtype: fp8.",
        ),
        (
            "max_model_len",
            r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len \([^)]*?"
            r"(?P<fits>\d+)",
            "max_model_len {wanted} is more than the model was made for ({fits}).",
            "Set vllm_max_model_len to {fits} or less.",
        ),
        (
            "gpu_memory_taken",
            r"Free memory on device (?P<device>\S+) \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than "
            r"desired GPU memory utilization \((?P<util>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
            "Only {free} of {total} GiB are free on {device}, and gpu_memory_utilization {util} asks for {wanted} GiB.",
            "Something else holds the GPU: playbooks/verify_gpu.yml names it. Otherwise lower "
            "vllm_gpu_memory_utilization.",
        ),
        (
            "kv_cache_memory",
            r"No available memory for the cache blocks",
            "The weights leave no memory for the KV cache.",
            "Raise vllm_gpu_memory_utilization, lower vllm_max_model_len, or use a smaller or quantised model.",
        ),
        (
            "kv_cache_memory",
            r"Not enough memory\. Please try to increase --mem-fraction-static",
            "The weights leave no memory for the KV cache.",
            "Raise sglang_mem_fraction_static, or use a smaller or quantised model.",
        ),
        (
            "out_of_memory",
            r"(?P<error>CUDA out of memory\. Tried to allocate [\d.]+ [KMG]iB)",
            "{error}.",
            "Lower gpu_memory_utilization (vLLM) or mem_fraction_static (SGLang), max_model_len or max_num_seqs; "
            "playbooks/verify_gpu.yml shows who else uses the GPU.",
        ),
        (
            "host_out_of_memory",
            r"(?:oom-kill|Killed process \d+|A process of this unit has been killed by the OOM killer)",
            "The kernel ended it because the host ran out of memory.",
            "Use an instance type with more memory, or lower vllm_mm_processor_cache_gb.",
        ),
        (
            "disk_full",
            r"No space left on device",
            "The disk is full.",
            "Free space: the model root, /opt/inference and /var/cache/inference are the large ones.",
        ),
        (
            "port_in_use",
            r"(?:address already in use|error while attempting to bind on address \(\S+ (?P<port>\d+)\))",
            "Its port is taken by another process.",
            "`ss -ltnp` on the host shows by which.",
        ),
        (
            "bad_argument",
            r"(?:unrecognized arguments: (?P<what>.+))",
            "It does not know the argument {what}.",
            "Correct vllm_extra_args or sglang_extra_args.",
        ),
        (
            "bad_argument",
            r"(?:vllm|launch_server\.py|sglang)[^\n]*: error: (?P<what>.+)",
            "It refuses its arguments: {what}",
            "Correct the role's variable or the engine's extra_args.",
        ),
        (
            "driver",
            r"(?P<what>Driver/library version mismatch|CUDA driver version is insufficient for CUDA runtime version|"
            r"The NVIDIA driver on your system is too old[^\n.]*|Found no NVIDIA driver[^\n.]*|"
            r"no CUDA-capable device is detected|No CUDA GPUs are available)",
            "CUDA does not work: {what}.",
            "playbooks/verify_gpu.yml says what is wrong and what to do.",
        ),
        (
            "missing_library",
            r"(?P<what>\S+\.so[\d.]*): cannot open shared object file",
            "The shared library {what} is missing on the host.",
            "Add its package to engine_packages.",
        ),
        (
            "model_missing",
            r"(?:Repo id must be|is not a local folder and is not a valid model identifier|"
            r"does not appear to have a file named config\.json|Can't load the configuration of)",
            "The model's files are not where the release says.",
            "`systemctl status inference-models.service` shows how their download went.",
        ),
        (
            "unsupported_model",
            r"Model architectures \[(?P<what>[^\]]+)\] (?:failed to be inspected|are not supported)",
            "This engine version cannot run the architecture {what}.",
            "Choose another engine version or model.",
        ),
        (
            "engine_error",
            r"(?P<what>(?:ValueError|RuntimeError|AssertionError|OSError|ImportError): (?!Engine core)[^\n]+)",
            "{what}",
            "The lines before it in the journal say more.",
        ),
        (
            "engine_error",
            r"(?m:^(?:\S+ )*?(?P<what>(?:\w+\.)+\w+(?:Error|Exception): [^\n]+))",
            "{what}",
            "The lines before it in the journal say more.",
        ),
    )
)


def explain(lines: t.Iterable[str]) -> Explanation | None:
    """The reason why an engine ended, or None where its journal holds nothing known.

    Args:
        lines: the journal of one start of one unit, oldest first.
    """
    text = "\n".join(lines)
    for kind, pattern, reason, advice in _RULES:
        found = pattern.search(text)
        if found:
            values = {key: (value or "").strip() for key, value in found.groupdict().items()}
            return Explanation(kind, reason.format(**values).strip(), advice.format(**values))
    return None
