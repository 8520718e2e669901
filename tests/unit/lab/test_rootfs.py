"""The inputs of the hosts' root file system."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from lab import rootfs
from lab.errors import LabError
from lab.state import cache_root

DEBIAN = """# comment
Types: deb deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://deb.debian.org/off
Suites: bookworm
Components: main
"""

UBUNTU = """# deb http://old.example jammy main
deb http://archive.ubuntu.com/ubuntu jammy main restricted  # the archive
deb [arch=amd64 signed-by=/etc/apt/keyrings/x.gpg] http://archive.ubuntu.com/ubuntu jammy-security main
deb-src http://archive.ubuntu.com/ubuntu jammy main
deb https://download.docker.com/linux/ubuntu jammy stable
deb http://ppa.launchpad.net/x/ubuntu focal main
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    return tmp_path / "apt"


def test_debian_sources_in_stanzas(apt: Path) -> None:
    (apt / "sources.list.d/debian.sources").write_text(DEBIAN)
    (apt / "sources.list.d/other.sources.disabled").write_text(DEBIAN.replace("debian.org", "disabled.example"))
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    assert rootfs.sources("bookworm", apt) == [
        f"deb {key}http://deb.debian.org/debian bookworm main contrib",
        f"deb {key}http://deb.debian.org/debian bookworm-updates main contrib",
        "deb http://deb.debian.org/debian-security bookworm-security main",
    ]


def test_ubuntu_sources_in_lines_without_third_parties(apt: Path) -> None:
    (apt / "sources.list").write_text(UBUNTU)
    assert rootfs.sources("jammy", apt) == [
        "deb http://archive.ubuntu.com/ubuntu jammy main restricted",
        "deb [arch=amd64 signed-by=/etc/apt/keyrings/x.gpg] http://archive.ubuntu.com/ubuntu jammy-security main",
    ]


def test_no_source_for_the_release_is_an_error(apt: Path) -> None:
    (apt / "sources.list").write_text(UBUNTU)
    with pytest.raises(LabError, match="no `noble main`"):
        rootfs.sources("noble", apt)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Builds that take no time."""
    made: list[Path] = []

    def build(release: str, target: Path) -> None:
        target.mkdir(parents=True)
        made.append(target)

    monkeypatch.setattr(rootfs, "_build", build)
    monkeypatch.setattr(rootfs, "_recipe", lambda: ("bookworm", "0123456789ab"))
    return made


def test_it_is_built_once(builds: list[Path]) -> None:
    assert rootfs.ensure() == rootfs.ensure()
    assert len(builds) == 1


def test_another_recipe_is_another_build(builds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = rootfs.ensure()
    monkeypatch.setattr(rootfs, "_recipe", lambda: ("bookworm", "ba9876543210"))
    assert rootfs.ensure() != before


def test_what_a_killed_build_left_is_removed(builds: list[Path]) -> None:
    unfinished = cache_root() / "rootfs/.building-4711"
    (unfinished / "etc").mkdir(parents=True)
    rootfs.ensure()
    assert not unfinished.exists()


def test_an_old_one_is_renewed_and_kept_when_that_fails(builds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = rootfs.ensure()
    aged = before.with_name(f"bookworm-0123456789ab-{int(time.time()) - 30 * 24 * 3600}")
    before.rename(aged)

    def fail(release: str, target: Path) -> None:
        raise LabError("no network")

    with monkeypatch.context() as offline:
        offline.setattr(rootfs, "_build", fail)
        assert rootfs.ensure() == aged
    assert rootfs.ensure() != aged


def test_only_what_no_lab_lies_over_is_pruned(builds: list[Path]) -> None:
    names = ("f00-100", "e00-200", "d00-300", "c00-400")
    trees = [cache_root() / "rootfs" / f"bookworm-{name}" for name in names]
    for tree in trees:
        tree.mkdir(parents=True)
    # A machine of a lab with another state directory keeps its lower layer.
    machine = os.open(trees[2], os.O_RDONLY)
    fcntl.flock(machine, fcntl.LOCK_SH)
    rootfs.prune([trees[1]])
    assert [tree.name for tree in trees if tree.exists()] == [f"bookworm-{name}" for name in names[1:]]
    os.close(machine)
    rootfs.prune([])
    assert os.listdir(cache_root() / "rootfs") == ["bookworm-c00-400"]


def test_hosts_are_strict(tmp_path: Path) -> None:
    (tmp_path / "etc/pam.d").mkdir(parents=True)
    (tmp_path / "etc/login.defs").write_text("UMASK\t\t022\n#USERGROUPS_ENAB yes\nUID_MIN 1000\n")
    for name in ("common-session", "common-session-noninteractive"):
        (tmp_path / "etc/pam.d" / name).write_text("session required pam_unix.so\n")
    rootfs._harden(tmp_path)
    assert (tmp_path / "etc/login.defs").read_text() == (
        "UMASK 027\n#USERGROUPS_ENAB yes\nUID_MIN 1000\nUSERGROUPS_ENAB no\n"
    )
    for name in ("common-session", "common-session-noninteractive"):
        lines = (tmp_path / "etc/pam.d" / name).read_text().splitlines()
        assert lines == ["session required pam_unix.so", "session optional pam_umask.so umask=0027"]
