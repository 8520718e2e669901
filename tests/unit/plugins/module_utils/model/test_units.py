from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.model.units import FETCH, RESTORE, Units, unit_files

_SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
case $1 in
  show) cat {state} ;;
  start) cat {status_after} > {status} 2>/dev/null; exit {code} ;;
esac
"""


class Host:
    """A systemctl with configured answers, first on PATH."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = tmp_path
        self.status = tmp_path / "status.json"
        self.log = tmp_path / "log"
        (tmp_path / "bin").mkdir()
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
        (tmp_path / "bin/journalctl").write_text("#!/bin/sh\nprintf 'one\\ntwo\\nthree\\nfour\\n'\n")
        (tmp_path / "bin/journalctl").chmod(0o755)

    def answers(self, active: str, result: str, code: int, status: dict[str, object] | None = None) -> None:
        (self.directory / "state").write_text(f"ActiveState={active}\nResult={result}\n")
        (self.directory / "after").write_text(json.dumps(status or {}))
        script = _SYSTEMCTL.format(
            log=self.log,
            state=self.directory / "state",
            status=self.status,
            status_after=self.directory / "after",
            code=code,
        )
        (self.directory / "bin/systemctl").write_text(script)
        (self.directory / "bin/systemctl").chmod(0o755)

    def fetch(self) -> None:
        Units(str(self.directory)).fetch("org--it", "r1", str(self.status))

    @property
    def asked(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if not line.startswith("show")]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_fetch_is_started_and_waited_for(host: Host) -> None:
    host.answers("inactive", "success", 0)
    host.fetch()
    assert host.asked == ["start inference-model@org--it.service"]


def test_a_fetch_of_the_same_revision_is_joined(host: Host) -> None:
    host.answers("activating", "success", 0)
    host.status.write_text('{"revision": "r1"}')
    host.fetch()
    assert host.asked == ["start inference-model@org--it.service"]


def test_a_fetch_of_another_revision_is_stopped_first(host: Host) -> None:
    host.answers("activating", "success", 0)
    host.status.write_text('{"revision": "r0"}')
    host.fetch()
    assert host.asked == ["stop inference-model@org--it.service", "start inference-model@org--it.service"]


def test_the_fetchs_own_reason_is_reported(host: Host) -> None:
    failed = {
        "revision": "r1",
        "state": "failed",
        "message": "the hub said no",
        "updated": time.time() + 5,
        "done_bytes": 1024**3,
        "total_bytes": 4 * 1024**3,
    }
    host.answers("failed", "exit-code", 1, failed)
    with pytest.raises(FleetError, match=r"org--it@r1: the hub said no \(1\.0 GiB of 4\.0 GiB are there\)"):
        host.fetch()


def test_without_one_the_journal_speaks(host: Host) -> None:
    host.answers("failed", "exit-code", 1)
    with pytest.raises(FleetError, match=r"two / three / four \(journalctl -u inference-model@org--it\.service\)"):
        host.fetch()


def test_a_fetch_that_was_stopped_by_hand_is_reported(host: Host) -> None:
    host.answers("inactive", "success", 1)
    with pytest.raises(FleetError, match="was stopped on the host before its end"):
        host.fetch()


def test_a_refusal_of_systemd_is_reported(host: Host) -> None:
    host.answers("inactive", "success", 0)
    (host.directory / "bin/systemctl").write_text("#!/bin/sh\necho Access denied >&2\nexit 1\n")
    with pytest.raises(FleetError, match="systemctl daemon-reload: Access denied"):
        Units(str(host.directory)).reload()


def test_enabled_is_what_the_link_says(tmp_path: Path) -> None:
    units = Units(str(tmp_path))
    assert not units.is_enabled()
    (tmp_path / "multi-user.target.wants").mkdir()
    (tmp_path / "multi-user.target.wants" / RESTORE).symlink_to(tmp_path / RESTORE)
    assert units.is_enabled()


def test_the_restore_runs_at_boot_and_at_each_engines_start() -> None:
    units = unit_files("/usr/bin/python3 /opt/inference/libexec/model_fetch.py")
    assert set(units) == {FETCH, RESTORE}
    assert "ExecStart=/usr/bin/python3 /opt/inference/libexec/model_fetch.py fetch %i\n" in units[FETCH]
    assert "WantedBy=multi-user.target" in units[RESTORE]
    # A unit that stays active would not be started again by the next start of an engine.
    assert "RemainAfterExit=" not in units[RESTORE]
    for content in units.values():
        assert "TimeoutStartSec=infinity\n" in content
        assert "NoNewPrivileges=true\n" in content
