"""What systemd does with a unit, where there is no systemd: as programs ``systemctl`` and ``journalctl``.

usage: python3 -m tests.gpu.units install DIRECTORY
       systemctl start|stop|restart|kill|show --property NAME,NAME UNIT
       journalctl --unit UNIT [--since @TIME] [--lines N]

``install`` writes both programs to a directory for PATH. A unit is a file of /etc/systemd/system, as module
engine_release writes it. Each started one has a supervisor, a process that reads the same settings as systemd: the
environment with its files, the runtime and the cache directory, the credential, a directory for temporary files of its
own (by TMPDIR), the commands before the start, the user, ``Restart=always``, ``KillMode=mixed`` with its timeout. The
process group of systemd is here every descendant of the supervisor. What systemd restricts (``Protect…``,
``Restrict…``, ``MemoryMax``) is not restricted. Units of our other services run too; their timers do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t
import uuid
from pathlib import Path

UNITS = Path("/etc/systemd/system")
#: State and journal of each started unit.
STATE = Path("/run/gpu-units")
CGROUP = Path("/sys/fs/cgroup/system.slice")

#: What a unit's processes get from the machine's own environment: NVLink's multicast off, the driver's libraries, and
#: an order of GPUs as in DefaultEnvironment= of systemd, over which the unit's own takes precedence.
MACHINE = ("NCCL_NVLS", "NVSHMEM_", "TORCH_SYMM", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")

#: As systemd sets it for services.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SUBREAPER = 36


class Unit:
    """A unit's file.

    Args:
        name: with its index, as ``vllm@0.service``.
        text: of the file.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        index = name.partition("@")[2].partition(".")[0]
        self._settings: list[tuple[str, str]] = []
        for line in text.splitlines():
            setting, found, value = line.partition("=")
            if found and not line.startswith(("#", ";")):
                self._settings.append((setting.strip(), value.strip().replace("%i", index)))

    def all(self, setting: str) -> list[str]:
        return [value for name, value in self._settings if name == setting]

    def one(self, setting: str, default: str = "") -> str:
        return (self.all(setting) or [default])[-1]

    def environment(self) -> dict[str, str]:
        """The environment of its next process: files take precedence, later ones over earlier ones."""
        result = dict(word.split("=", 1) for line in self.all("Environment") for word in shlex.split(line))
        for path in self.all("EnvironmentFile"):
            try:
                lines = Path(path.lstrip("-")).read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                if not path.startswith("-"):
                    raise
                continue
            for line in lines:
                name, found, value = line.partition("=")
                if found:
                    result[name] = "".join(shlex.split(value))
        return result


class Supervisor:
    """Runs one unit until it is stopped."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._place = STATE / unit.name
        self._journal = self._place / "journal"
        self._stopping = False
        self._state: dict[str, t.Any] = {"LoadState": "loaded", "MainPID": 0, "NRestarts": 0, "Job": 0, "Result": ""}

    def run(self) -> None:
        """Start it, and start it again whenever it ends, until SIGTERM comes."""
        self._place.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGTERM, self._stop)
        # Orphans of the unit become this process's children, so that all of them can be found.
        ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
        self._join_cgroup()
        for limit in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_NOFILE):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(limit, (resource.RLIM_INFINITY if limit == resource.RLIMIT_MEMLOCK else 65536,) * 2)
        while True:
            status = self._start_once()
            if not self._stopping:
                self._note(ActiveState="activating", SubState="auto-restart", MainPID=0, Result=_result(status))
                self._wait(float(self._unit.one("RestartSec", "0.1")))
            if self._is_stopping():
                break
            self._note(NRestarts=self._state["NRestarts"] + 1)
        self._note(ActiveState="inactive", SubState="dead", MainPID=0)

    def _start_once(self) -> int:
        directories = self._make_directories()
        own = {"INVOCATION_ID": uuid.uuid4().hex, **{name: str(path) for name, path in directories.items()}}
        self._note(ActiveState="activating", SubState="start-pre", InvocationID=own["INVOCATION_ID"])
        try:
            for command in self._unit.all("ExecStartPre"):
                process = self._spawn(command.lstrip("+"), own, as_root=command.startswith("+"))
                if self._await(process):
                    return process.returncode
            if self._stopping:
                return 0
            process = self._spawn(self._unit.one("ExecStart"), own)
            self._note(ActiveState="active", SubState="running", MainPID=process.pid, Result="success")
            status = self._await(process)
            self._say(f"main process ended with {_result(status)} {status}")
            self._note(ExecMainStatus=abs(status), ended_at=time.time())
            return status
        finally:
            left = self._kill_all()
            if left:
                self._say(f"killed {left} processes that were left")
            for name in ("RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "TMPDIR"):
                if name in directories:
                    shutil.rmtree(directories[name], ignore_errors=True)

    def _make_directories(self) -> dict[str, Path]:
        """The directories that the unit asks for, by the variable that says where each is."""
        user = pwd.getpwnam(self._unit.one("User", "root"))
        found = {}
        for setting, above, variable, mode in (
            ("RuntimeDirectory", "/run", "RUNTIME_DIRECTORY", 0o700),
            ("CacheDirectory", "/var/cache", "CACHE_DIRECTORY", 0o750),
            ("LoadCredential", "", "CREDENTIALS_DIRECTORY", 0o700),
        ):
            wanted = self._unit.one(setting)
            if not wanted:
                continue
            path = found[variable] = Path(above, wanted) if above else self._place / "credentials"
            path.mkdir(parents=True, exist_ok=True)
            os.chmod(path, mode)
            os.chown(path, user.pw_uid, user.pw_gid)
        if self._unit.one("PrivateTmp") == "true":
            # Programs that take the directory of the environment find nothing of an earlier start in it.
            found["TMPDIR"] = Path(tempfile.mkdtemp(prefix="unit-", dir="/tmp"))
            os.chown(found["TMPDIR"], user.pw_uid, user.pw_gid)
        for credential in self._unit.all("LoadCredential"):
            name, _colon, source = credential.partition(":")
            target = found["CREDENTIALS_DIRECTORY"] / name
            shutil.copyfile(source, target)
            os.chmod(target, 0o400)
            os.chown(target, user.pw_uid, user.pw_gid)
        return found

    def _spawn(self, command: str, own: dict[str, str], as_root: bool = False) -> subprocess.Popen[bytes]:
        user = None if as_root else pwd.getpwnam(self._unit.one("User", "root"))
        given = {name: value for name, value in os.environ.items() if name.startswith(MACHINE)}
        with self._journal.open("ab") as journal:
            writer = subprocess.Popen([sys.executable, "-c", _STAMP], stdin=subprocess.PIPE, stdout=journal)
        process = subprocess.Popen(
            shlex.split(command),
            # What the machine wants set in every process, then the unit's.
            env={"PATH": PATH, "LANG": "C.UTF-8", **given, **self._unit.environment(), **own},
            stdin=subprocess.DEVNULL,
            stdout=writer.stdin,
            stderr=subprocess.STDOUT,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user and os.geteuid() == 0 else None,
            umask=int(self._unit.one("UMask", "0022"), 8),
            cwd="/",
            start_new_session=True,
        )
        assert writer.stdin is not None
        writer.stdin.close()
        return process

    def _await(self, process: subprocess.Popen[bytes]) -> int:
        """Its status; when the unit is stopped it gets SIGTERM, and SIGKILL after the unit's timeout."""
        until = None
        while process.poll() is None:
            if self._stopping and until is None:
                self._note(ActiveState="deactivating", SubState="stop-sigterm")
                process.send_signal(signal.SIGTERM)
                until = time.monotonic() + float(self._unit.one("TimeoutStopSec", "90"))
            if until is not None and time.monotonic() > until:
                process.kill()
            time.sleep(0.05)
        return process.returncode

    def _kill_all(self) -> int:
        """End what is left of the unit; how many processes that were, without those that write its journal."""
        found: set[int] = set()
        for _look in range(100):
            here = {pid for pid in descendants(os.getpid()) if not _is_writer(pid)}
            found |= here
            if not here:
                break
            for pid in here:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            time.sleep(0.05)
        return len(found)

    @staticmethod
    def _reap() -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _join_cgroup(self) -> None:
        """As systemd names the group, by which module gpu_info knows a process's unit."""
        slice_name = f"system-{self._unit.name.partition('@')[0]}.slice"
        with contextlib.suppress(OSError):
            place = CGROUP / slice_name / self._unit.name
            place.mkdir(parents=True, exist_ok=True)
            (place / "cgroup.procs").write_text(str(os.getpid()))

    def _stop(self, *_signal: object) -> None:
        self._stopping = True

    def _is_stopping(self) -> bool:
        return self._stopping

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping:
            time.sleep(0.05)

    def _say(self, text: str) -> None:
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{time.time():.6f} systemd: {text}\n")

    def _note(self, **changed: t.Any) -> None:
        self._state.update(changed)
        temporary = self._place / ".state"
        temporary.write_text(json.dumps({**self._state, "supervisor": os.getpid()}), encoding="utf-8")
        temporary.replace(self._place / "state.json")


#: Puts the time before each line.
_STAMP = """
import sys, time
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(b"%.6f " % time.time() + line.rstrip(b"\\r\\n") + b"\\n")
    sys.stdout.buffer.flush()
"""


def _is_writer(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return _STAMP.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _result(status: int) -> str:
    return "success" if status == 0 else "signal" if status < 0 else "exit-code"


def descendants(root: int) -> set[int]:
    """All living processes below a process."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            words = path.read_text().rpartition(")")[2].split()
            if words[0] != "Z":
                children.setdefault(int(words[1]), []).append(int(path.parent.name))
    found: set[int] = set()
    left = [root]
    while left:
        new = [pid for pid in children.get(left.pop(), []) if pid not in found]
        found.update(new)
        left += new
    return found


def state_of(unit: str) -> dict[str, t.Any]:
    """What ``systemctl show`` prints of a unit."""
    path = STATE / unit / "state.json"
    if path.exists():
        state: dict[str, t.Any] = json.loads(path.read_text(encoding="utf-8"))
        return state
    loaded = "loaded" if (UNITS / unit).exists() else "not-found"
    return {"LoadState": loaded, "ActiveState": "inactive", "SubState": "dead", "NRestarts": 0, "MainPID": 0, "Job": 0}


def start(unit: str) -> None:
    """Start a unit's supervisor, which outlives the caller."""
    if state_of(unit)["ActiveState"] not in ("inactive", "failed"):
        return
    text = (UNITS / unit).read_text(encoding="utf-8")
    if not Unit(unit, text).all("ExecStart"):
        return
    shutil.rmtree(STATE / unit, ignore_errors=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(os.devnull, "r+b") as nothing:
                for stream in (0, 1, 2):
                    os.dup2(nothing.fileno(), stream)
            try:
                Supervisor(Unit(unit, text)).run()
            except BaseException as error:  # The journal is where somebody looks.
                (STATE / unit).mkdir(parents=True, exist_ok=True)
                with (STATE / unit / "journal").open("a", encoding="utf-8") as journal:
                    journal.write(f"{time.time():.6f} supervisor: {error!r}\n")
        os._exit(0)
    os.wait()
    until = time.monotonic() + 10
    while not (STATE / unit / "state.json").exists() and time.monotonic() < until:
        time.sleep(0.05)


def stop(unit: str) -> None:
    """Stop a unit, and wait for it."""
    state = state_of(unit)
    if state["ActiveState"] == "inactive":
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(state["supervisor"], signal.SIGTERM)
    while state_of(unit)["ActiveState"] != "inactive" and Path(f"/proc/{state['supervisor']}").exists():
        time.sleep(0.05)


def kill(unit: str) -> None:
    """SIGKILL to every process of a unit."""
    state = state_of(unit)
    for pid in descendants(state["supervisor"]) if state["ActiveState"] != "inactive" else ():
        if not _is_writer(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def journal_of(unit: str, since: float = 0.0) -> list[tuple[float, str]]:
    """The lines of a unit's journal with their times."""
    path = STATE / unit / "journal"
    if not path.exists():
        return []
    # Bytes, because a progress bar's carriage returns end no line of a journal.
    lines = [line.decode(errors="replace").partition(" ") for line in path.read_bytes().split(b"\n") if line]
    return [(float(at), text) for at, _space, text in lines if float(at) >= since]


def systemctl(words: list[str]) -> int:
    if words[0] in ("daemon-reload", "enable"):
        # A unit is read with each start, and there is no boot.
        return 0
    command, *rest, unit = words
    if command == "restart":
        stop(unit)
    if command in ("start", "restart"):
        start(unit)
    elif command == "stop" or words[:-1] == ["disable", "--quiet", "--now"]:
        stop(unit)
    elif words[:-1] == ["kill", "--signal=SIGKILL"]:
        kill(unit)
    elif command == "show" and rest[:1] == ["--property"]:
        state = state_of(unit)
        print("".join(f"{name}={state.get(name, '')}\n" for name in rest[1].split(",")), end="")
    else:
        print(f"this systemctl does not know {' '.join(words)}", file=sys.stderr)
        return 1
    return 0


def journalctl(words: list[str]) -> int:
    options = dict(zip(words, [*words[1:], ""]))
    since = float(options.get("--since", "@0").lstrip("@"))
    lines = [text for _at, text in journal_of(options.get("--unit", options.get("-u", "")), since)]
    print("\n".join(lines[-int(options.get("--lines", "1000000")) :]))
    return 0


def install(directory: Path) -> None:
    """Write both programs."""
    directory.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).parents[2]
    for name in ("systemctl", "journalctl"):
        program = directory / name
        words = f"PYTHONPATH={shlex.quote(str(here))} exec {shlex.quote(sys.executable)} -m tests.gpu.units {name}"
        program.write_text(f'#!/bin/sh\n{words} "$@"\n', encoding="utf-8")
        program.chmod(0o755)


def main(words: list[str]) -> int:
    program, *rest = words
    if program == "install":
        install(Path(rest[0]))
        return 0
    return {"systemctl": systemctl, "journalctl": journalctl}[program](rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
