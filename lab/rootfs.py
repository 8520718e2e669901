"""The root file system that all hosts share: as bare as a cloud image, built once, kept by its recipe's hash."""

from __future__ import annotations

import hashlib
import os
import re
import time
import typing as t
from pathlib import Path

from lab import controller, files, shell
from lab.errors import LabError
from lab.state import cache_root
from lab.steps import step

PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
)

# What a host that is not a real machine does not need; each would cost memory or time at boot.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "container-getty@.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "getty.target",
    "serial-getty@.service",
    "systemd-ask-password-wall.path",
    "systemd-networkd.service",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    "systemd-update-utmp.service",
)

JOURNAL = """[Journal]
Storage=persistent
SystemMaxUse=64M
"""

SSHD = """UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
AcceptEnv LANG LC_*
"""

# A hardened host: only root can read root's files, and a user's group is not the user's own.
LOGIN = {"UMASK": "027", "USERGROUPS_ENAB": "no"}
UMASK_OF_SESSIONS = "session optional pam_umask.so umask=0027\n"

# Package lists stay, compressed, so that installing works without an update first.
APT = """Acquire::GzipIndexes "true";
Acquire::Languages "none";
APT::Install-Recommends "false";
"""

# After this long the package lists name versions that mirrors have dropped.
FRESH_SECONDS = 14 * 24 * 3600


def codename() -> str:
    """This machine's release: the hosts get the same, from the same mirrors."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    raise LabError("/etc/os-release names no VERSION_CODENAME: the lab builds its hosts on Debian and Ubuntu only.")


def sources(release: str, directory: Path = Path("/etc/apt")) -> list[str]:
    """The distribution's own entries of this machine's apt sources, one line each; third parties' are left out."""
    found: list[str] = []
    for path in [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            found += _one_line(path.read_text(encoding="utf-8"))
        elif path.suffix == ".sources" and path.is_file():
            found += _deb822(path.read_text(encoding="utf-8"))
    suites = {release, f"{release}-updates", f"{release}-security"}
    pattern = re.compile(r"deb (?:\[[^]]*\] )?\S+ (\S+) (.+)")
    own = []
    for line in found:
        match = pattern.fullmatch(line)
        if match and match[1] in suites and "main" in match[2].split() and line not in own:
            own.append(line)
    if not any(pattern.fullmatch(line)[1] == release for line in own):  # type: ignore[index]
        raise LabError(f"The apt sources in {directory} have no `{release} main`, which the hosts are built from.")
    return own


def _one_line(text: str) -> list[str]:
    lines = (" ".join(line.partition("#")[0].split()) for line in text.splitlines())
    return [line for line in lines if line.startswith("deb ")]


def _deb822(text: str) -> list[str]:
    lines = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] += " " + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        key = fields.get("signed-by", "")
        option = f"[signed-by={key}] " if key.startswith("/") else ""
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                lines.append(f"deb {option}{uri} {suite} {fields.get('components', '')}".strip())
    return lines


def _recipe() -> tuple[str, str]:
    """The release, and a hash of everything that determines the build."""
    release = codename()
    parts = [
        release,
        *sources(release),
        *controller.apt_settings(),
        *sorted(controller.certificates()),
        *PACKAGES,
        *MASKED,
        JOURNAL,
        SSHD,
        *(f"{name} {value}" for name, value in LOGIN.items()),
        UMASK_OF_SESSIONS,
        APT,
    ]
    return release, hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def ensure(fresh_seconds: float = FRESH_SECONDS) -> Path:
    """The root file system, built if it is missing or its package lists are old."""
    release, digest = _recipe()
    directory = cache_root() / "rootfs"
    with files.locked(cache_root() / ".rootfs.lock"):
        for unfinished in directory.glob(".building-*"):
            files.remove_tree(unfinished)
        built = sorted(directory.glob(f"{release}-{digest}-*"), key=_built)
        if built and time.time() - _built(built[-1]) < fresh_seconds:
            return built[-1]
        target = directory / f"{release}-{digest}-{int(time.time())}"
        try:
            with step(f"root file system of the hosts: {target}"):
                _build(release, target)
        except LabError as error:
            if not built:
                raise
            print(f"  The root file system could not be renewed, and stays that of before: {error}", flush=True)
            return built[-1]
        return target


def _built(tree: Path) -> int:
    """Its build time, in seconds since the epoch: the end of its name."""
    return int(tree.name.rpartition("-")[2])


def _build(release: str, target: Path) -> None:
    building = target.with_name(f".building-{os.getpid()}")
    building.parent.mkdir(parents=True, exist_ok=True)
    settings = [f"--aptopt={line}" for line in (*controller.apt_settings(), *APT.splitlines())]
    options = ["--mode=root", "--variant=minbase", "--format=directory", "--skip=cleanup/apt/lists"]
    options += [f"--include={','.join(PACKAGES)}", *settings]
    shell.run(
        shell.tied_to_us(["mmdebstrap", *options, release, str(building), "-"]),
        stdin="\n".join([*sources(release), ""]),
        env={**os.environ, "TMPDIR": "/tmp"},  # noqa: S108 - mmdebstrap's own default, whatever ours is
    )
    _customize(building)
    building.rename(target)


def _customize(root: Path) -> None:
    units = root / "etc/systemd/system"
    for unit in MASKED:
        link = units / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    _put(root / "etc/systemd/journald.conf.d/lab.conf", JOURNAL)
    _put(root / "etc/ssh/sshd_config.d/lab.conf", SSHD)
    _harden(root)
    (root / "var/log/journal").mkdir(exist_ok=True)
    # Each host has its own, made by the lab, so that the controller knows them before the first connection.
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    _trust(root)


def _harden(root: Path) -> None:
    settings = root / "etc/login.defs"
    text = settings.read_text(encoding="utf-8")
    for name, value in LOGIN.items():
        text, found = re.subn(rf"^{name}\s.*$", f"{name} {value}", text, flags=re.MULTILINE)
        if not found:
            text += f"{name} {value}\n"
    settings.write_text(text, encoding="utf-8")
    for name in ("common-session", "common-session-noninteractive"):
        with (root / "etc/pam.d" / name).open("a", encoding="utf-8") as file:
            file.write(UMASK_OF_SESSIONS)


def _trust(root: Path) -> None:
    """Add this machine's trusted certificates that the image does not have."""
    own = (root / controller.HOST_BUNDLE.lstrip("/")).read_text(encoding="utf-8")
    extra = [block for block in controller.certificates() if block not in own]
    for number, block in enumerate(extra):
        _put(root / f"usr/local/share/ca-certificates/controller-{number}.crt", block + "\n")
    if extra:
        shell.run(["chroot", str(root), "update-ca-certificates"])


def _put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content)


def prune(used: t.Collection[Path]) -> None:
    """Remove older unused builds: neither ``used`` nor below a running machine of any lab."""
    directory = cache_root() / "rootfs"
    with files.locked(cache_root() / ".rootfs.lock"):
        for tree in sorted(directory.glob("[!.]*"), key=_built)[:-1]:
            if tree not in used and not files.in_use(tree):
                files.remove_tree(tree)
