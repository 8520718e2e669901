"""A host in namespaces of its own: directories, name, network, and some of the machine's GPUs."""

from __future__ import annotations

import os
import shlex
import subprocess
import typing as t
from pathlib import Path

from tests.gpu.hosts import OWN


class SpaceError(Exception):
    """A namespace cannot be made here; its message has the reason."""


def prefix_of(pid: str) -> list[str]:
    """The words before a command that shall run in a process's namespaces."""
    return ["nsenter", "--target", pid, "--mount", "--uts", "--net", "--ipc", "--"]


class Space:
    """Namespaces, for as long as the context lasts.

    Args:
        name: of the host.
        hide_gpus: the minor numbers of the GPUs that it does not have.
        own: whether it has directories and a network of its own, as another host has.
    """

    def __init__(self, name: str, hide_gpus: t.Collection[int] = (), own: bool = False) -> None:
        self._name = name
        self._hidden = hide_gpus
        self._own = own
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = ""

    @property
    def prefix(self) -> list[str]:
        return prefix_of(self.pid)

    def __enter__(self) -> Space:
        words = ["unshare", "--mount", "--uts", *(["--net", "--ipc"] if self._own else [])]
        # A session of its own, so that an interrupted step can still stop the units in it.
        self._process = subprocess.Popen(
            [*words, "sh", "-c", "echo there; exec sleep 3600"], stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"there\n":
            raise SpaceError(f"{' '.join(words)} failed")
        self.pid = str(self._process.pid)
        lines = ["set -e", "mount --make-rprivate /", f"hostname {shlex.quote(self._name)}"]
        if self._own:
            lines += [f"mkdir -p {path}; mount -t tmpfs -o mode=755 own {path}" for path in OWN]
            lines += ["ip link set lo up"]
        lines += self._devices() if self._hidden else []
        # Else engines find each other in it, and take two hosts for one.
        lines += ["mount -t tmpfs -o mode=1777 shm /dev/shm"] if self._own else []
        self.command("sh", "-c", "\n".join(lines))
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def command(self, *words: str) -> str:
        """Run a command in it.

        Raises:
            SpaceError: it failed.
        """
        done = subprocess.run([*self.prefix, *words], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise SpaceError((done.stdout + done.stderr).strip()[-500:])
        return done.stdout

    def _devices(self) -> list[str]:
        """A /dev without the hidden GPUs, in which the driver's tools cannot make them again."""
        hidden = {f"nvidia{minor}" for minor in self._hidden}
        lines = ["mkdir -p /run/gpu-dev", "mount -t tmpfs -o mode=755 dev /run/gpu-dev"]
        for entry in sorted(os.scandir("/dev"), key=lambda each: each.name):
            target = f"/run/gpu-dev/{entry.name}"
            if entry.name in hidden:
                continue
            if entry.is_symlink():
                lines.append(f"ln -s {shlex.quote(os.readlink(entry.path))} {target}")
            elif entry.is_dir():
                lines.append(f"mkdir {target}; mount --rbind {entry.path} {target}")
            elif Path(entry.path).is_char_device():
                lines.append(f"touch {target}; mount --bind {entry.path} {target}")
        return [*lines, "mount -o remount,ro /run/gpu-dev", "mount --move /run/gpu-dev /dev"]


def connect(spaces: t.Sequence[Space], addresses: t.Sequence[str]) -> None:
    """Give two hosts a network.

    Raises:
        SpaceError: the kernel has no such links.
    """
    names = [f"link{rank}" for rank in range(2)]
    words = ["ip", "link", "add", names[0], "netns", spaces[0].pid, "type", "veth"]
    done = subprocess.run(
        [*words, "peer", "name", names[1], "netns", spaces[1].pid], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SpaceError(f"no network between two hosts: {done.stderr.strip()}")
    for space, name, address in zip(spaces, names, addresses):
        space.command("sh", "-c", f"ip addr add {address}/24 dev {name}; ip link set {name} up")
