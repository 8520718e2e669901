"""What stands in for systemd on a machine with GPUs treats a unit as systemd does."""

from __future__ import annotations

import getpass
import os
import sys
import time
import typing as t
from pathlib import Path

import pytest

from tests.gpu import units

UNIT = """[Service]
User={user}
Environment=ONE=unit TWO="of the unit" PATH=/usr/bin:/bin
EnvironmentFile={place}/release
EnvironmentFile=-{place}/run/%i/environment
LoadCredential=key:{place}/secret
RuntimeDirectory={place}/run/%i
CacheDirectory={place}/cache
ExecStartPre={python} -c "import os; open(os.environ['RUNTIME_DIRECTORY'] + '/environment', 'w').write('THREE=start')"
ExecStart={python} {place}/engine.py
Restart=always
RestartSec=0.1
PrivateTmp=true
TimeoutStopSec={timeout}
UMask=0077
"""
ENGINE = """
import os, pathlib, subprocess, sys, time
place = pathlib.Path({place!r})
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
key = pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"], "key").read_text()
with open(place / "seen", "a") as file:
    print(*(os.environ.get(name) for name in ("ONE", "TWO", "THREE")), key, child.pid, file=file)
print("serves\\rstill", flush=True)
while not (place / "crash").exists():
    time.sleep(0.02)
(place / "crash").unlink()
sys.exit(3)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Path]:
    monkeypatch.setattr(units, "UNITS", tmp_path)
    monkeypatch.setattr(units, "STATE", tmp_path / "state")
    monkeypatch.setattr(units, "CGROUP", tmp_path / "cgroup")
    (tmp_path / "release").write_text('ONE="release"\n')
    (tmp_path / "secret").write_text("hidden")
    (tmp_path / "engine.py").write_text(ENGINE.format(place=str(tmp_path)))
    yield tmp_path
    units.stop("fake@3.service")


def start(place: Path, timeout: int = 5) -> None:
    text = UNIT.format(user=getpass.getuser(), place=place, python=sys.executable, timeout=timeout)
    (place / "fake@3.service").write_text(text)
    units.start("fake@3.service")


def wait_for(what: t.Callable[[], t.Any]) -> t.Any:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def seen(place: Path, count: int) -> list[list[str]]:
    def look() -> list[list[str]]:
        path = place / "seen"
        lines = [line.rsplit(" ", 5) for line in path.read_text().splitlines()] if path.exists() else []
        return lines if len(lines) >= count else []

    found: list[list[str]] = wait_for(look)
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_files_take_precedence_and_the_start_s_own_comes_last(place: Path) -> None:
    start(place)
    assert " ".join(seen(place, 1)[0]).startswith("release of the unit start hidden ")
    assert units.state_of("fake@3.service")["ActiveState"] == "active"


def test_the_unit_takes_precedence_over_the_machine_s_order_of_gpus(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    (place / "release").write_text("ONE=release\nCUDA_VISIBLE_DEVICES=GPU-of-the-unit\n")
    start(place)
    environment = Path(f"/proc/{seen(place, 1)[0][-1]}/environ").read_text().split("\0")
    assert [line for line in environment if line.startswith("CUDA")] == ["CUDA_VISIBLE_DEVICES=GPU-of-the-unit"]


def test_it_starts_again_and_leaves_nothing_of_the_old_process(place: Path) -> None:
    start(place)
    old = int(seen(place, 1)[0][-1])
    (place / "crash").touch()
    new = int(seen(place, 2)[1][-1])
    state = units.state_of("fake@3.service")
    assert (state["NRestarts"], state["ExecMainStatus"]) == (1, 3)
    assert not is_alive(old)
    assert is_alive(new)


def test_each_start_has_an_empty_directory_for_temporary_files(place: Path) -> None:
    def directory(count: int) -> Path:
        environment = Path(f"/proc/{seen(place, count)[-1][-1]}/environ")
        # Popen returns before the kernel shows it.
        lines = wait_for(environment.read_text).split("\0")
        return Path(next(line for line in lines if line.startswith("TMPDIR=")).removeprefix("TMPDIR="))

    start(place)
    first = directory(1)
    (first / "cache").write_text("of the first start")
    (place / "crash").touch()
    second = directory(2)
    assert (first.exists(), list(second.iterdir())) == (False, [])
    units.stop("fake@3.service")
    assert not second.exists()


def test_a_stop_ends_all_of_it(place: Path) -> None:
    start(place)
    child = int(seen(place, 1)[0][-1])
    units.stop("fake@3.service")
    assert units.state_of("fake@3.service")["ActiveState"] == "inactive"
    assert not is_alive(child)
    assert not (place / "run/3").exists()


def test_what_ignores_sigterm_is_killed_after_the_unit_s_timeout(place: Path) -> None:
    text = ENGINE.format(place=str(place)).replace("import os,", "import signal, os,", 1)
    (place / "engine.py").write_text(
        text.replace("child =", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nchild =", 1)
    )
    start(place, timeout=1)
    seen(place, 1)
    began = time.monotonic()
    units.stop("fake@3.service")
    assert 0.9 < time.monotonic() - began < 10


def test_a_carriage_return_ends_no_line_of_the_journal(place: Path) -> None:
    start(place)
    seen(place, 1)
    lines = wait_for(lambda: [text for _at, text in units.journal_of("fake@3.service")])
    assert lines == ["serves\rstill"]
    assert units.journal_of("fake@3.service", since=time.time() + 60) == []


def test_the_programs_answer_as_systemd_s_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert units.systemctl(["show", "--property", "LoadState,ActiveState", "other@1.service"]) == 0
    assert capsys.readouterr().out == "LoadState=not-found\nActiveState=inactive\n"
    start(place)
    pid = wait_for(lambda: units.state_of("fake@3.service")["MainPID"])
    units.systemctl(["show", "--property", "MainPID", "fake@3.service"])
    assert capsys.readouterr().out == f"MainPID={pid}\n"
    assert os.path.exists(f"/proc/{pid}")


SERVICE = """[Service]
ExecStart={python} {place}/service.py
Restart=always
RestartSec=0.1
TimeoutStopSec=5
"""


@pytest.fixture
def service(place: Path) -> t.Iterator[str]:
    """A unit without an index, a user or directories."""
    name = "inference-fake.service"
    (place / "service.py").write_text("import os, time\nprint(os.environ['PATH'], flush=True)\ntime.sleep(1000)\n")
    (place / name).write_text(SERVICE.format(python=sys.executable, place=place))
    yield name
    units.stop(name)


def said(unit: str) -> list[str]:
    return [text for _at, text in units.journal_of(unit) if not text.startswith("systemd:")]


def test_a_service_of_ours_is_installed_as_by_systemd(service: str) -> None:
    mode = Path("/run").stat().st_mode
    for words in (["daemon-reload"], ["enable", "--quiet", service], ["restart", service]):
        assert units.systemctl(words) == 0
    assert wait_for(lambda: said(service)) == [units.PATH]
    first = units.state_of(service)["MainPID"]
    units.systemctl(["restart", service])
    second = wait_for(lambda: units.state_of(service)["MainPID"])
    assert second != first
    assert not is_alive(first)
    units.systemctl(["disable", "--quiet", "--now", service])
    assert not is_alive(second)
    assert Path("/run").stat().st_mode == mode


def test_a_killed_unit_starts_again(place: Path) -> None:
    start(place)
    old = int(seen(place, 1)[0][-1])
    assert units.systemctl(["kill", "--signal=SIGKILL", "fake@3.service"]) == 0
    assert int(seen(place, 2)[1][-1]) != old
    assert not is_alive(old)
    assert units.state_of("fake@3.service")["NRestarts"] == 1


def test_a_timer_is_accepted_and_starts_nothing(place: Path) -> None:
    (place / "fake.timer").write_text("[Timer]\nOnActiveSec=1\nUnit=fake.service\n")
    assert units.systemctl(["restart", "fake.timer"]) == 0
    assert units.state_of("fake.timer")["ActiveState"] == "inactive"
