# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Reads the GPUs of the host it runs on: it runs programs and reads files, and changes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.gpu import kernel, smi

_LIBRARY_DIRS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/aarch64-linux-gnu", "/usr/local/nvidia/lib64")
_LIBCUDA = "libcuda.so.1"
_CUDA_PROBE = """
import ctypes, sys
version = ctypes.c_int()
if ctypes.CDLL(sys.argv[1]).cuDriverGetVersion(ctypes.byref(version)):
    sys.exit(1)
print(version.value)
"""
# An engine that exits between two queries leaves memory without an owner for a moment: query again before judging.
_SETTLE_ATTEMPTS = 3
_SETTLE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Sources:
    """The sources. The defaults are a real host's; tests set others.

    Args:
        nvidia_smi: name or path of the program.
        proc: where procfs is.
        sys: where sysfs is.
        library_dirs: the directories of the driver's libraries; empty uses the dynamic linker's cache.
        kernel_log: a file to read the kernel log from; empty uses journalctl, then dmesg.
        timeout: seconds that one program may take.
    """

    nvidia_smi: str = "nvidia-smi"
    proc: str = "/proc"
    sys: str = "/sys"
    library_dirs: tuple[str, ...] = ()
    kernel_log: str = ""
    timeout: float = 60.0


@dataclasses.dataclass
class GpuDriver:
    """The driver in its parts: loaded kernel module, libraries on disk, nvidia-smi."""

    nvidia_smi: str | None = None
    loaded: bool = False
    version: str | None = None
    module_version: str | None = None
    library_version: str | None = None
    cuda_library: str | None = None
    cuda_version: str | None = None
    nouveau: bool = False
    failure: str | None = None
    message: str = ""
    notices: list[str] = dataclasses.field(default_factory=list)
    unknown_fields: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Observation:
    """The input of the rules. ``xids`` None: the kernel log could not be read."""

    driver: GpuDriver
    gpus: list[dict[str, t.Any]]
    processes: list[dict[str, t.Any]]
    holders: list[dict[str, t.Any]]
    xids: list[kernel.XidEvent] | None


@dataclasses.dataclass(frozen=True)
class ProgramOutput:
    """A program's output; ``rc`` None: it timed out."""

    rc: int | None
    text: str


def observe(sources: Sources, orphan_mib: int) -> Observation:
    """Read this host.

    Args:
        sources: where to read.
        orphan_mib: memory without a process above which to read again, and to find the processes that have the device
            open.
    """
    driver = _driver_on_disk(sources)
    gpus: list[dict[str, t.Any]] = []
    processes: list[dict[str, t.Any]] = []
    holders: list[dict[str, t.Any]] = []
    if driver.nvidia_smi:
        for attempt in range(_SETTLE_ATTEMPTS):
            gpus = _ask_gpus(sources, driver)
            processes = _ask_processes(sources, driver) if gpus else []
            if not _unowned(gpus, processes, orphan_mib):
                break
            if attempt < _SETTLE_ATTEMPTS - 1:
                time.sleep(_SETTLE_SECONDS)
        else:
            holders = _holders(sources)
    if gpus:
        driver.loaded = True
        driver.version = next((gpu["driver_version"] for gpu in gpus if gpu["driver_version"]), None)
        driver.cuda_library, driver.cuda_version = _cuda(sources, driver.cuda_library)
    return Observation(driver, gpus, processes, holders, read_xids(sources))


def run(argv: t.Sequence[str], timeout: float) -> ProgramOutput:
    """Run a program, and give up when it hangs: with a lost GPU it can sleep where not even SIGKILL ends it."""
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        return ProgramOutput(127, str(error))
    try:
        output, _none = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        return ProgramOutput(None, f"{argv[0]} did not answer in {timeout:g} s")
    return ProgramOutput(process.returncode, output.decode(errors="replace"))


def _read(path: str) -> str | None:
    """A file that may be missing, unreadable, or belong to a process that ends while it is read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _driver_on_disk(sources: Sources) -> GpuDriver:
    """The parts of the driver that are known without querying a GPU."""
    proc_version = _read(os.path.join(sources.proc, "driver/nvidia/version"))
    sys_version = _read(os.path.join(sources.sys, "module/nvidia/version"))
    module_version = kernel.module_version(proc_version or "") or (sys_version or "").strip() or None
    library = _library(sources, "libnvidia-ml.so.1")
    return GpuDriver(
        nvidia_smi=shutil.which(sources.nvidia_smi),
        loaded=proc_version is not None or sys_version is not None,
        module_version=module_version,
        library_version=kernel.library_version(os.path.realpath(library)) if library else None,
        cuda_library=_library(sources, _LIBCUDA),
        nouveau=os.path.isdir(os.path.join(sources.sys, "module/nouveau")),
    )


def _library(sources: Sources, soname: str) -> str | None:
    directories = sources.library_dirs
    if not directories:
        ldconfig = shutil.which("ldconfig", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
        found = kernel.library_path(run([ldconfig, "-p"], 10).text, soname) if ldconfig else None
        if found:
            return found
        directories = _LIBRARY_DIRS
    candidates = (os.path.join(directory, soname) for directory in directories)
    return next((path for path in candidates if os.path.exists(path)), None)


def _cuda(sources: Sources, library: str | None) -> tuple[str | None, str | None]:
    """The path of libcuda, and the newest CUDA that it supports, as "13.2"; in a separate process, which may hang."""
    # An engine finds it with dlopen, which searches more places than the linker's cache.
    name = library or (None if sources.library_dirs else _LIBCUDA)
    answer = run([sys.executable, "-c", _CUDA_PROBE, name], sources.timeout) if name else None
    if answer is None or answer.rc != 0 or not answer.text.strip().isdigit():
        return library, None
    number = int(answer.text)
    return name, f"{number // 1000}.{number % 1000 // 10}"


def _ask_gpus(sources: Sources, driver: GpuDriver) -> list[dict[str, t.Any]]:
    """Every GPU; errors, and fields that this nvidia-smi does not know, go into ``driver``."""
    fields = [field for field in smi.GPU_FIELDS if field.query not in driver.unknown_fields]
    while True:
        answer = run([str(driver.nvidia_smi), *smi.gpu_query(fields)], sources.timeout)
        unknown = smi.unknown_field(answer.text)
        remaining = [field for field in fields if field.query != unknown]
        if unknown is None or len(remaining) == len(fields) or not remaining:
            break
        driver.unknown_fields.append(unknown)
        fields = remaining
    gpus, notices = smi.parse_gpus(answer.text, fields)
    driver.notices = notices
    driver.message = " ".join(notices)
    driver.failure = smi.failure_kind(answer.rc, driver.message)
    return gpus


def _ask_processes(sources: Sources, driver: GpuDriver) -> list[dict[str, t.Any]]:
    answer = run([str(driver.nvidia_smi), *smi.app_query()], sources.timeout)
    processes = smi.parse_apps(answer.text)
    for process in processes:
        process.update(_owner(sources, process["pid"]))
    return processes


def _owner(sources: Sources, pid: int) -> dict[str, t.Any]:
    """The owner of a process: alive, user and unit."""
    status = _read(os.path.join(sources.proc, str(pid), "status"))
    uid = re.search(r"^Uid:\s+(\d+)", status or "", re.MULTILINE)
    user = None
    if uid:
        try:
            user = pwd.getpwuid(int(uid.group(1))).pw_name
        except KeyError:
            user = uid.group(1)
    cgroup = _read(os.path.join(sources.proc, str(pid), "cgroup"))
    return {"alive": status is not None, "user": user, "unit": kernel.unit_of(cgroup or "")}


def _unowned(gpus: list[dict[str, t.Any]], processes: list[dict[str, t.Any]], orphan_mib: int) -> bool:
    """Whether memory is held without an owner, or by a process that no longer exists."""
    owned = {process["gpu_uuid"] for process in processes}
    return any(not process["alive"] for process in processes) or any(
        gpu["uuid"] not in owned and (gpu["memory_used_mib"] or 0) > orphan_mib for gpu in gpus
    )


def _holders(sources: Sources) -> list[dict[str, t.Any]]:
    """Processes that have a GPU's device file open: the suspects where memory has no owner."""
    found: dict[int, set[str]] = {}
    for link in glob.glob(os.path.join(glob.escape(sources.proc), "[0-9]*/fd/*")):
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if re.match(r"^/dev/nvidia\d+$", target):
                found.setdefault(int(link.split(os.sep)[-3]), set()).add(target)
    holders = []
    for pid, devices in sorted(found.items()):
        name = (_read(os.path.join(sources.proc, str(pid), "comm")) or "?").strip()
        # It keeps every GPU open as long as the host is up, without memory on it.
        if name != "nvidia-persiste":
            holders.append({"pid": pid, "name": name, "devices": sorted(devices), **_owner(sources, pid)})
    return holders


def read_xids(sources: Sources) -> list[kernel.XidEvent] | None:
    """The XIDs of this boot. The journal has all of it, dmesg only its ring buffer."""
    if sources.kernel_log:
        text = _read(sources.kernel_log)
        return None if text is None else kernel.parse_xids(text.splitlines())
    for argv in (["journalctl", "-k", "-b", "0", "-q", "--no-pager", "-o", "short-iso"], ["dmesg"]):
        answer = run(argv, sources.timeout)
        # A journal without any kernel message does not collect them (containers): no answer.
        if answer.rc == 0 and answer.text.strip():
            return kernel.parse_xids(answer.text.splitlines())
    return None
