"""The hosts: systemd machines of nspawn over the shared root file system, reached over SSH like real ones."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import socket
import subprocess
import time
import typing as t
from pathlib import Path

from lab import cgroups, controller, files, network, processes, shell
from lab.errors import LabError
from lab.state import ROOT, Host, Lab, cache_root

INSTANCE_STORE = "/opt/dlami/nvme"
UV_CACHE = "/var/cache/uv-shared"
WHEELHOUSE = "/srv/wheelhouse"
MODEL = "/srv/model"
BOOTS_AT_ONCE = 8
INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
#: Of one host, with room for the machine's own.
INOTIFY_INSTANCES = 10
BOOT_SECONDS = 90.0
# nspawn exits with 133 when the machine wants a reboot, and leaves the restart to its keeper.
KEEPER = """
trap 'kill -TERM "$child"' TERM
while :; do
  setpriv --pdeathsig KILL -- "$@" &
  child=$!
  wait "$child"
  status=$?
  # A signal ends the first wait, not the machine.
  while kill -0 "$child" 2> /dev/null; do wait "$child"; status=$?; done
  [ "$status" -eq 133 ] || exit "$status"
done
"""
# nspawn keeps locks and mounts here by machine name, and leaves them behind: each machine gets its own directory.
NSPAWN_RUNTIME = Path("/run/systemd/nspawn")


def group(lab: Lab, host: Host) -> str:
    return f"{lab.name}/host-{host.name}"


def directory(lab: Lab, host: Host) -> Path:
    return lab.host_directory(host)


def running(lab: Lab, host: Host) -> bool:
    return processes.read(directory(lab, host) / "process.json") is not None


def base_of(lab: Lab, host: Host) -> Path | None:
    """The root file system below the host's own."""
    link = directory(lab, host) / "base"
    return link.readlink() if link.is_symlink() else None


def ensure_key(lab: Lab) -> None:
    """The controller's SSH key to all hosts of the lab."""
    lab.key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (lab.key.exists() and lab.key.with_suffix(".pub").exists()):
        _make_key(lab.key, f"lab {lab.name}")


def _make_key(path: Path, comment: str) -> None:
    path.unlink(missing_ok=True)
    shell.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def write_known_hosts(lab: Lab) -> None:
    """Every host's key, under its address and its name: host key checking stays on."""
    lines = []
    for host in lab.hosts.values():
        public = directory(lab, host) / "ssh_host_ed25519_key.pub"
        if public.exists():
            kind, key = public.read_text(encoding="ascii").split()[:2]
            lines.append(f"{lab.address(host)},{host.name} {kind} {key}\n")
    files.write_changed(lab.known_hosts, "".join(lines))


def prepare(lab: Lab, host: Host, base: Path) -> None:
    """Write the host's own files over the root file system. For a stopped host."""
    place = directory(lab, host)
    for name in ("upper", "work", "root", "instance-store"):
        (place / name).mkdir(parents=True, exist_ok=True)
    (place / "upper").chmod(0o755)
    link = place / "base"
    if not link.is_symlink() or not (link / "usr").is_dir():
        link.unlink(missing_ok=True)
        link.symlink_to(base)
    key = place / "ssh_host_ed25519_key"
    if not key.with_suffix(".pub").exists():
        _make_key(key, host.name)
    for path, content, mode in _own_files(lab, host):
        _lay(place, path, content, mode)
    model = place / "upper" / MODEL.lstrip("/")
    _parents(place, model)
    if not model.is_symlink():
        model.symlink_to("/srv/lab-model/tiny")


def copy_disk(lab: Lab, source: Host, host: Host) -> None:
    """Give a host that has never run what another one has on its disk and its instance store."""
    for name in ("upper", "instance-store"):
        target = directory(lab, host) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shell.run(["cp", "--archive", "--reflink=auto", str(directory(lab, source) / name), str(target)])


def _own_files(lab: Lab, host: Host) -> t.Iterator[tuple[str, str, int]]:
    place = directory(lab, host)
    given = controller.inherited(lab.gateway, lab.subnet)
    key = place / "ssh_host_ed25519_key"
    yield "etc/hostname", f"{host.name}\n", 0o644
    yield "etc/hosts", f"127.0.0.1 localhost\n{lab.address(host)} {host.name}\n", 0o644
    yield "etc/resolv.conf", given.resolv_conf, 0o644
    # Fixed, or systemd would treat each boot as the first and enable what the image masks.
    yield "etc/machine-id", f"{host.machine_id}\n", 0o444
    yield "etc/ssh/ssh_host_ed25519_key", key.read_text(encoding="ascii"), 0o600
    yield "etc/ssh/ssh_host_ed25519_key.pub", key.with_suffix(".pub").read_text(encoding="ascii"), 0o644
    yield "root/.ssh/authorized_keys", lab.key.with_suffix(".pub").read_text(encoding="ascii"), 0o600
    yield "etc/environment", "".join(f'{name}="{value}"\n' for name, value in given.proxies.items()), 0o644
    proxies = {name: given.proxies[name] for name in ("http_proxy", "https_proxy") if name in given.proxies}
    apt = "".join(f'Acquire::{name.partition("_")[0]}::Proxy "{value}";\n' for name, value in proxies.items())
    if apt:
        yield "etc/apt/apt.conf.d/95lab-proxy", apt, 0o644
    pip = {**given.pip, "cert": controller.HOST_BUNDLE} if given.pip else {}
    if pip:
        yield "etc/pip.conf", "[global]\n" + "".join(f"{name} = {value}\n" for name, value in pip.items()), 0o644


def _lay(place: Path, path: str, content: str, mode: int) -> None:
    target = place / "upper" / path
    _parents(place, target)
    files.write(target, content, mode)


def _parents(place: Path, target: Path) -> None:
    """Directories above ``target``, with their modes in the lower layer; a new one would hide them."""
    upper = place / "upper"
    for parent in reversed(target.relative_to(upper).parents):
        if not (upper / parent).exists():
            (upper / parent).mkdir()
            below = place / "base" / parent
            (upper / parent).chmod(below.stat().st_mode & 0o7777 if below.exists() else 0o755)
    if target.parent.name == ".ssh":
        target.parent.chmod(0o700)


def binds(lab: Lab, host: Host) -> list[str]:
    """What a host sees of this machine: its instance store, the shared download cache, local package indexes."""
    cache = cache_root()
    shared = [
        ("--bind", directory(lab, host) / "instance-store", INSTANCE_STORE),
        ("--bind", cache / "uv", UV_CACHE),
        ("--bind-ro", cache / "wheelhouse", WHEELHOUSE),
        # The directory above the model: a retrained model is another directory.
        ("--bind-ro", ROOT / "lab" / "model", "/srv/lab-model"),
    ]
    local = controller.inherited(lab.gateway, lab.subnet).directories
    shared += [("--bind-ro", Path(path), path) for path in local]
    for _, source, _ in shared:
        source.mkdir(parents=True, exist_ok=True)
    return [f"{option}={source}:{target}" for option, source, target in shared]


def boot(lab: Lab, host: Host, lock: int) -> None:
    """Start the machine; ``wait`` waits until it answers."""
    place = directory(lab, host)
    base = (place / "base").resolve()
    layers = f"lowerdir={base},upperdir={place / 'upper'},workdir={place / 'work'}"
    argv = [
        "sh",
        "-c",
        KEEPER,
        "keeper",
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--keep-unit",
        "--register=no",
        "--settings=no",
    ]
    argv += [f"--machine={host.name}", f"--hostname={host.name}", f"--directory={place / 'root'}"]
    cable = str(network.NAMESPACES / lab.port_of(host))
    argv += [f"--network-namespace-path={cable}"]
    argv += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", *binds(lab, host)]
    NSPAWN_RUNTIME.mkdir(parents=True, exist_ok=True)
    mounts = [
        ["-t", "tmpfs", "-o", "mode=755,size=1m", "tmpfs", str(NSPAWN_RUNTIME)],
        ["-t", "overlay", "-o", layers, "overlay", str(place / "root")],
    ]
    processes.start(
        place,
        argv,
        lock=lock,
        group=group(lab, host),
        mounts=mounts,
        network=cable,
        uses=[str(base)],
        # Hosts have dedicated processors: a busy one does not keep another from starting.
        cores=max(1.0, (os.cpu_count() or 1) / 2),
    )


def ssh(lab: Lab, host: Host, *command: str) -> list[str]:
    """The command line that runs ``command`` on the host."""
    options = ["BatchMode=yes", "ConnectTimeout=5", f"UserKnownHostsFile={lab.known_hosts}", "ControlPath=none"]
    flags = [word for option in options for word in ("-o", option)]
    return ["ssh", "-F", "/dev/null", "-i", str(lab.key), *flags, f"root@{lab.address(host)}", *command]


def wait(lab: Lab, host: Host, seconds: float = BOOT_SECONDS) -> None:
    """Wait until the host has booted and accepts SSH."""
    deadline = time.monotonic() + seconds
    while not _answers(lab.address(host)):
        if not running(lab, host):
            raise LabError(f"Host {host.name} ended while it booted: {processes.tail(directory(lab, host))}")
        if time.monotonic() > deadline:
            raise LabError(
                f"Host {host.name} ({lab.address(host)}) has no SSH {seconds:.0f} s after its start: "
                f"{processes.tail(directory(lab, host))}"
            )
        time.sleep(0.1)
    result = subprocess.run(
        ssh(lab, host, "systemctl", "is-system-running", "--wait"), capture_output=True, text=True, check=False
    )
    if result.stdout.strip() not in ("running", "degraded"):
        said = result.stdout.strip() or result.stderr.strip()
        raise LabError(f"Host {host.name} ({lab.address(host)}) booted, but says {said!r} over SSH.")


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, 22), timeout=1) as connection:
        connection.settimeout(5)
        return connection.recv(4) == b"SSH-"
    return False


def halt(lab: Lab, host: Host, *, grace: float = 0.0) -> bool:
    """Shut the machine down, or kill it (``grace`` 0); True when it ran."""
    return processes.stop(directory(lab, host), group(lab, host), grace=grace)


def wipe_instance_store(lab: Lab, host: Host) -> None:
    """What a stop does to the local disks of an EC2 instance."""
    files.remove_tree(directory(lab, host) / "instance-store")


def discard(lab: Lab, host: Host) -> None:
    """Erase everything that the host ever wrote, except its keys."""
    place = directory(lab, host)
    for name in ("upper", "work", "instance-store"):
        files.remove_tree(place / name)
    (place / "base").unlink(missing_ok=True)


def bring_up(lab: Lab, wanted: t.Sequence[Host], base: t.Callable[[], Path], lock: int) -> None:
    """Boot all stopped hosts of ``wanted``, some in parallel."""
    ensure_key(lab)
    down = [host for host in wanted if not running(lab, host)]
    if down:
        tree = base()
        for host in down:
            # A machine that crashed may have left children of its keeper.
            halt(lab, host)
            prepare(lab, host, tree)
    write_known_hosts(lab)
    for host in wanted:
        network.ensure_host(lab, host)
    _wait_for_all(lab, [host for host in wanted if host not in down])
    _allow_inotify(len(lab.hosts))
    # More at once would all take longer than one may.
    for first in range(0, len(down), BOOTS_AT_ONCE):
        booting = down[first : first + BOOTS_AT_ONCE]
        for host in booting:
            boot(lab, host, lock)
        _wait_for_all(lab, booting)


def _allow_inotify(count: int) -> None:
    """Raise the machine's limit of inotify instances for so many hosts: with 128, systemd ends in the 24th."""
    needed = INOTIFY_INSTANCES * count
    if int(INOTIFY_LIMIT.read_text(encoding="ascii")) < needed:
        INOTIFY_LIMIT.write_text(f"{needed}\n", encoding="ascii")


def _wait_for_all(lab: Lab, booting: t.Sequence[Host]) -> None:
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(booting))) as pool:
        for done in [pool.submit(wait, lab, host) for host in booting]:
            done.result()


@dataclasses.dataclass(frozen=True)
class Memory:
    """The memory of a host, in bytes."""

    processes: int
    proportional: int


def memory(lab: Lab, host: Host) -> Memory:
    """Proportional set size of all processes of the host."""
    pids = cgroups.members(group(lab, host))
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return Memory(len(pids), total)
