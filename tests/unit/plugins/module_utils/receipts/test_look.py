from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.receipts import look as looking
from ansible_collections.inference.fleet.plugins.module_utils.receipts.look import Places, look
from ansible_collections.inference.fleet.plugins.module_utils.receipts.receipt import differences

SYSTEMCTL = """#!/bin/sh
cat "$0.answer"
"""


class Host:
    """A directory with a host's files, and programs that answer as its own would."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        (root / "etc").mkdir()
        (root / "etc/one.conf").write_text("one")
        (root / "weights").mkdir()
        (root / "weights/model.safetensors").write_bytes(b"0" * 4096)
        (root / "bin").mkdir()
        for name, answer in (
            ("systemctl", "ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n"),
            ("dpkg-query", "haproxy installed\nadduser installed\n"),
        ):
            program = root / "bin" / name
            program.write_text(SYSTEMCTL)
            program.chmod(0o755)
            self.answer(name, answer)
        patch.setenv("PATH", f"{root}/bin", prepend=os.pathsep)
        self.places = Places(
            contents=[f"{root}/etc", f"{root}/etc/*.d"],
            sizes=[f"{root}/weights"],
            modes=[f"{root}/bin"],
            units=["haproxy.service"],
            packages=["haproxy"],
        )

    def answer(self, name: str, text: str) -> None:
        (self.root / "bin" / f"{name}.answer").write_text(text)

    def look(self) -> dict[str, dict[str, str]]:
        return look(self.places, str(self.root / "admin.sock"), str(self.root / "master.sock"))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def by_hand(host: Host) -> None:
    (host.root / "etc/one.conf").write_text("two")


def other_mode(host: Host) -> None:
    (host.root / "etc/one.conf").chmod(0o600)


def other_owner(host: Host) -> None:
    os.chown(host.root / "etc/one.conf", 65534, 65534)


def removed(host: Host) -> None:
    (host.root / "etc/one.conf").unlink()


def added(host: Host) -> None:
    (host.root / "etc/two.conf").write_text("")


def added_link(host: Host) -> None:
    (host.root / "etc/link").symlink_to("one.conf")


def truncated(host: Host) -> None:
    os.truncate(host.root / "weights/model.safetensors", 100)


def overwritten(host: Host) -> None:
    (host.root / "weights/model.safetensors").write_bytes(b"1" * 4096)


def lost_directory(host: Host) -> None:
    (host.root / "bin").chmod(0o711)


def disabled(host: Host) -> None:
    host.answer("systemctl", "ActiveState=active\nUnitFileState=disabled\nNeedDaemonReload=no\n")


def stopped(host: Host) -> None:
    host.answer("systemctl", "ActiveState=inactive\nUnitFileState=enabled\nNeedDaemonReload=no\n")


def uninstalled(host: Host) -> None:
    host.answer("dpkg-query", "haproxy config-files\nadduser installed\n")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (by_hand, "etc/one.conf: sha256:"),
        (other_mode, "etc/one.conf: 0600, was 0644"),
        (removed, "etc/one.conf: missing"),
        (added, "etc/two.conf: new (file"),
        (added_link, "etc/link: new (link"),
        (truncated, "weights/model.safetensors: 100, was 4096"),
        (overwritten, "weights/model.safetensors: "),
        (lost_directory, "bin: 0711, was 0755"),
        (disabled, "unit haproxy.service: disabled, was enabled"),
        (stopped, "unit haproxy.service: inactive, was active"),
        (uninstalled, "package haproxy: config-files, was installed"),
    ],
)
def test_drift_is_found(host: Host, change: t.Callable[[Host], None], line: str) -> None:
    (host.root / "etc/one.conf").chmod(0o644)
    (host.root / "bin").chmod(0o755)
    before = host.look()
    assert differences(before, host.look()) == []
    change(host)
    found = differences(before, host.look())
    assert [one for one in found if line in one]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_owner_is_found(host: Host) -> None:
    before = host.look()
    other_owner(host)
    assert "nobody:" in differences(before, host.look())[0]


def test_weights_behind_links_count(host: Host) -> None:
    blob = host.root / "blob"
    blob.write_bytes(b"0" * 10)
    (host.root / "weights/linked.safetensors").symlink_to(blob)
    before = host.look()
    os.truncate(blob, 5)
    assert [line for line in differences(before, host.look()) if "linked.safetensors" in line]


def test_a_packages_own_neighbours_do_not_count(host: Host) -> None:
    before = host.look()
    host.answer("dpkg-query", "haproxy installed\n")
    assert differences(before, host.look()) == []


def test_a_host_whose_systemd_does_not_answer_fails(host: Host) -> None:
    (host.root / "bin/systemctl").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(FleetError, match="systemctl does not answer"):
        host.look()


def test_files_that_vanish_under_the_look_are_absent(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_walk", lambda path: iter([path, f"{path}/gone"]))
    assert not [path for path in host.look()["file"] if path.endswith("gone")]


def test_a_file_that_cannot_be_read_differs(host: Host) -> None:
    before = host.look()
    (host.root / "weights/model.safetensors").unlink()
    (host.root / "weights/model.safetensors").symlink_to("model.safetensors")
    [line] = [line for line in differences(before, host.look()) if "model.safetensors" in line]
    assert "unreadable: Too many levels of symbolic links" in line
