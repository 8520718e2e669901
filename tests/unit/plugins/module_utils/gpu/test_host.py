from __future__ import annotations

import os
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gpu import host
from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import ProgramOutput, Sources, observe, run

from .nvidia_hosts import fake_host, sources


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_SETTLE_SECONDS", 0.0)


def test_a_healthy_host_is_seen_whole(tmp_path: Path) -> None:
    seen = observe(sources(fake_host(tmp_path, "four")), 600)
    assert [gpu["bus_id"] for gpu in seen.gpus] == [f"00000000:3{index}:00.0" for index in range(4)]
    driver = seen.driver
    assert (driver.loaded, driver.version, driver.module_version, driver.library_version) == (
        True,
        "595.71.05",
        "595.71.05",
        "595.71.05",
    )
    assert driver.failure is None
    assert driver.unknown_fields == []
    assert driver.cuda_library == str(tmp_path / "four/lib/libcuda.so.1")
    assert (seen.processes, seen.holders, seen.xids) == ([], [], [])


def test_processes_have_user_and_unit(tmp_path: Path) -> None:
    seen = observe(sources(fake_host(tmp_path, "serving")), 600)
    assert [(process["unit"], process["user"], process["alive"]) for process in seen.processes] == [
        ("vllm@0.service", "root", True),
        ("vllm@1.service", "root", True),
        ("sglang@2.service", "root", True),
        ("sglang@3.service", "root", True),
    ]
    assert seen.processes[2]["name"] == "sglang::scheduler, TP0"


def test_a_user_without_a_name_is_a_number(tmp_path: Path) -> None:
    seen = observe(sources(fake_host(tmp_path, "foreign_process")), 600)
    assert [(process["user"], process["unit"]) for process in seen.processes] == [("4000000", "session-3.scope")]


def test_fields_unknown_to_nvidia_smi_are_left_out_and_named(tmp_path: Path) -> None:
    seen = observe(sources(fake_host(tmp_path, "old_driver")), 600)
    assert seen.driver.unknown_fields == [
        "gpu_recovery_action",
        "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded",
    ]
    assert [(gpu["name"], gpu["recovery_action"]) for gpu in seen.gpus] == [("NVIDIA L40S", None)]


def test_a_host_without_a_driver(tmp_path: Path) -> None:
    seen = observe(sources(fake_host(tmp_path, "not_installed")), 600)
    assert (seen.driver.nvidia_smi, seen.driver.loaded, seen.driver.module_version, seen.driver.library_version) == (
        None,
        False,
        None,
        None,
    )


def test_the_version_comes_from_sysfs_where_procfs_has_none(tmp_path: Path) -> None:
    root = fake_host(tmp_path, "healthy")
    (root / "proc/driver/nvidia/version").unlink()
    assert observe(sources(root), 600).driver.module_version == "595.71.05"


def test_a_program_that_hangs_is_given_up(tmp_path: Path) -> None:
    start = time.monotonic()
    seen = observe(sources(fake_host(tmp_path, "hang"), timeout=0.5), 600)
    assert time.monotonic() - start < 10
    assert seen.driver.failure == "timeout"
    assert seen.gpus == []


def test_an_orphan_is_looked_at_again_and_its_suspects_are_named(tmp_path: Path) -> None:
    seen = observe(sources(fake_host(tmp_path, "orphan")), 600)
    # nvidia-persistenced has every GPU open on every host: no suspect.
    assert [(holder["pid"], holder["devices"], holder["unit"]) for holder in seen.holders] == [
        (5200, ["/dev/nvidia0"], "vllm@0.service")
    ]


def test_an_engine_that_just_ends_is_no_orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fake_host(tmp_path, "orphan")
    moments = iter(["orphan", "orphan", "healthy", "healthy"])

    def later(argv: t.Sequence[str], timeout: float) -> ProgramOutput:
        if argv[1].startswith("--query"):
            monkeypatch.setenv("NVIDIA_SMI_SCENARIO", next(moments))
        return run([sys.executable, str(Path(__file__).parents[4] / "fakes/nvidia_smi"), *argv[1:]], timeout)

    monkeypatch.setattr(host, "run", later)
    seen = observe(sources(root), 600)
    assert [gpu["memory_used_mib"] for gpu in seen.gpus] == [0]
    assert seen.holders == []
    assert list(moments) == []


def test_the_kernel_log_is_the_journal_else_dmesg_else_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVRM: Xid (PCI:0000:30:00): 79, GPU has fallen off the bus."
    answers = {
        "journalctl": ProgramOutput(0, f"2026-11-21T17:42:10+0000 host kernel: {line}\n"),
        "dmesg": ProgramOutput(0, ""),
    }

    def fake(argv: t.Sequence[str], timeout: float) -> ProgramOutput:
        return answers[argv[0]]

    monkeypatch.setattr(host, "run", fake)
    assert [(event.xid, event.first) for event in host.read_xids(Sources()) or []] == [(79, "2026-11-21T17:42:10+0000")]
    # A journal without the kernel's messages, as in a container, says nothing.
    answers["journalctl"], answers["dmesg"] = ProgramOutput(0, ""), ProgramOutput(0, f"[ 12.500000] {line}\n")
    assert [event.first for event in host.read_xids(Sources()) or []] == ["12.500000 s after boot"]
    answers["dmesg"] = ProgramOutput(1, "dmesg: read kernel buffer failed: Operation not permitted")
    assert host.read_xids(Sources()) is None


def test_a_kernel_log_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert host.read_xids(Sources(kernel_log=str(tmp_path / "none"))) is None


def test_libraries_are_found_through_the_linker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libnvidia-ml.so.595.71.05"
    library.write_bytes(b"")
    (tmp_path / "libnvidia-ml.so.1").symlink_to(library)
    listing = f"\tlibnvidia-ml.so.1 (libc6,x86-64) => {tmp_path}/libnvidia-ml.so.1\n"
    monkeypatch.setattr(host, "run", lambda argv, timeout: ProgramOutput(0, listing))
    monkeypatch.setattr(host, "_LIBRARY_DIRS", ())
    driver = host._driver_on_disk(Sources(nvidia_smi="no-such-program", proc="/none", sys="/none"))
    assert (driver.library_version, driver.cuda_library, driver.nvidia_smi) == ("595.71.05", None, None)


@pytest.mark.parametrize(("answer", "version"), [("13020\n", "13.2"), ("12080\n", "12.8"), ("", None)])
def test_the_cuda_version_is_libcudas_number(answer: str, version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "run", lambda argv, timeout: ProgramOutput(0, answer))
    assert host._cuda(Sources(), "/lib/libcuda.so.1") == ("/lib/libcuda.so.1", version)


def test_a_libcuda_outside_the_linkers_cache_is_found_as_an_engine_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def loader(argv: t.Sequence[str], timeout: float) -> ProgramOutput:
        asked.append(argv[-1])
        return ProgramOutput(0, "13000\n")

    monkeypatch.setattr(host, "run", loader)
    assert host._cuda(Sources(), None) == ("libcuda.so.1", "13.0")
    assert asked == ["libcuda.so.1"]


def test_a_libcuda_that_cannot_be_loaded_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    path = str(tmp_path / "libcuda.so.1")
    assert host._cuda(Sources(), path) == (path, None)
    assert host._cuda(Sources(library_dirs=("/none",)), None) == (None, None)


def test_a_program_that_cannot_be_started_is_an_answer(tmp_path: Path) -> None:
    assert run([str(tmp_path / "none")], 5).rc == 127
    assert run(["sh", "-c", "echo $LC_ALL; echo oops >&2; exit 3"], 5) == ProgramOutput(3, "C\noops\n")


def test_reading_tolerates_what_disappears(tmp_path: Path) -> None:
    assert host._read(str(tmp_path / "none")) is None
    assert host._read(str(tmp_path)) is None
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert host._read(os.fspath(tmp_path / "binary")) == "\ufffd\ufffd"
