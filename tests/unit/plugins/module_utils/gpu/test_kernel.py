from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gpu.kernel import (
    XidEvent,
    bus_key,
    library_path,
    library_version,
    module_version,
    parse_xids,
    unit_of,
)

LDCONFIG = """\
123 libs found in cache `/etc/ld.so.cache'
\tlibnvidia-ml.so.1 (libc6) => /lib/i386-linux-gnu/libnvidia-ml.so.1
\tlibnvidia-ml.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvidia-ml.so.1
\tlibnvidia-ml.so (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvidia-ml.so
"""


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (builder@)  \n"
            "GCC version:  gcc version 15.3.0 (GCC) \n",
            "580.159.04",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  595.80  Release Build\n", "595.80"),
        ("", None),
    ],
)
def test_the_version_of_the_loaded_module(text: str, version: str | None) -> None:
    assert module_version(text) == version


def test_the_version_of_a_library_is_in_its_file_name() -> None:
    assert library_version("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.159.04") == "580.159.04"
    assert library_version("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1") is None


def test_the_64_bit_library_is_taken() -> None:
    assert library_path(LDCONFIG, "libnvidia-ml.so.1") == "/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
    assert library_path(LDCONFIG, "libcuda.so.1") is None


def test_an_address_is_the_same_in_every_form() -> None:
    assert bus_key("00000000:1E:00.0") == bus_key("0000:1e:00") == bus_key("1e:00") == (0, 0x1E, 0)
    assert bus_key("0018:01:00") != bus_key("0000:01:00")
    assert bus_key("nonsense") is None


def test_xids_are_found_in_the_journal_and_in_dmesg_and_counted() -> None:
    log = [
        "2026-11-21T17:42:10+0000 host kernel: NVRM: Xid (PCI:0000:30:00): 31, pid=1, name=a, Ch 00000008",
        "2026-11-21T17:42:11+0000 host kernel: NVRM: GPU 0000:30:00.0: GPU has fallen off the bus.",
        "2026-11-21T17:43:10+0000 host kernel: NVRM: Xid (PCI:0000:30:00): 31, pid=2, name=b, Ch 00000009",
        "[ 8123.334455] NVRM: Xid (PCI:0000:31:00): 79, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:31:00): 48",
        "kernel: audit: a user wrote Xid 79 in a file name",
    ]
    assert parse_xids(log) == [
        XidEvent(
            31, "0000:30:00", "pid=2, name=b, Ch 00000009", 2, "2026-11-21T17:42:10+0000", "2026-11-21T17:43:10+0000"
        ),
        XidEvent(
            79, "0000:31:00", "GPU has fallen off the bus.", 1, "8123.334455 s after boot", "8123.334455 s after boot"
        ),
        XidEvent(48, "0000:31:00", "", 1, "", ""),
    ]


def test_a_healthy_log_has_no_xids() -> None:
    log = [
        "[    0.478364] NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build",
        "[    3.768647] NVRM: Persistence mode is deprecated and will be removed in a future release.",
    ]
    assert parse_xids(log) == []


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/system-vllm.slice/vllm@0.service\n", "vllm@0.service"),
        ("0::/system.slice/vllm@0.service/worker\n", "vllm@0.service"),
        ("12:cpu:/x\n1:name=systemd:/system.slice/docker-0a1b.scope\n", "docker-0a1b.scope"),
        ("1:name=systemd:/user.slice/user-1000.slice/session-3.scope\n0::/\n", "session-3.scope"),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_the_unit_of_a_process(cgroup: str, unit: str | None) -> None:
    assert unit_of(cgroup) == unit
