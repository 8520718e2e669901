"""Two runs that change the keys of the same hosts, interleaved at each of their reads and writes.

One is a rotation of a compromised key. The other one is site.yml, which reads the key store and writes to the hosts
later, or keys.yml, which also changes the store. In any order: in the end no host accepts a dead key, and each accepts
the current ones.
"""

from __future__ import annotations

import itertools
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.keys import holder as key_holder
from ansible_collections.inference.fleet.plugins.modules import api_key, edge_keys

from tests.unit.conftest import Result
from tests.unit.plugins.module_utils.keys.key_stores import ELSEWHERE, ME

HOSTS = ("host", "gateway")
CLIENTS = ("gateway", "team-a")

Steps = list[t.Callable[[], None]]


def run(module: t.Any, given: dict[str, t.Any]) -> Result:
    defaults = {name: argument.get("default") for name, argument in module.ARGUMENTS.items()}
    return dict(module.run({**defaults, **given}, False, False))


class Fleet:
    """A store, an inference host and a gateway."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for host in HOSTS:
            (directory / host).mkdir(parents=True)
        (directory / "gateway" / "clients.json").touch()

    def store(self, state: str, *names: str, **more: t.Any) -> Result:
        clients = [{"name": name} for name in names]
        return run(api_key, {"path": str(self.directory / "keys.json"), "state": state, "clients": clients, **more})

    def write(self, host: str, **given: t.Any) -> Result:
        place = self.directory / host
        paths = {
            "path": str(place / "keys.map"),
            "origin_path": str(place / "keys.origin.json"),
            "config_path": str(place / "none"),
            "engine_key_path": str(place / "none"),
            "engine_key_map": str(place / "engine.map"),
            "upstream_key_map": str(place / "upstream.map"),
            "gateway_clients": str(place / "clients.json"),
            "hold_map": str(place / "hold.map"),
            "presence_path": str(place / "presence.json"),
            "socket": str(place / "none.sock"),
            "master_socket": str(place / "none.sock"),
        }
        return run(edge_keys, {**paths, **given})

    def takes(self, host: str) -> set[str]:
        return {digest for digest, _client in self.entries(host, "keys.map")}

    def shows(self) -> str:
        return dict(self.entries("gateway", "upstream.map"))["upstream"]

    def entries(self, host: str, file: str) -> edge_state.Entries:
        return edge_state.parse_map((self.directory / host / file).read_text())


class Writer:
    """A run: it writes what it has read, then or later."""

    def __init__(self, fleet: Fleet, holder: key_holder.RotationHolder, now: list[key_holder.RotationHolder]) -> None:
        self.fleet = fleet
        self.refusals: list[str] = []
        self._holder = holder
        self._now = now
        self._read: Result = {}
        self._broken_off = False

    def step(self, do: t.Callable[[], t.Any]) -> t.Callable[[], None]:
        def go() -> None:
            self._now[0] = self._holder
            try:
                if not self._broken_off:
                    do()
            except FleetError as error:
                self.refusals.append(error.message)

        return go

    def change(self, state: str, *names: str, **more: t.Any) -> t.Callable[[], None]:
        """A step in the store, without which the run does not continue."""

        def do() -> None:
            self._broken_off = True
            self.fleet.store(state, *names, **more)
            self._broken_off = False

        return self.step(do)

    def read(self) -> t.Callable[[], None]:
        def do() -> None:
            self._read = self.fleet.store("read", "gateway", reveal=True)

        return self.step(do)

    def update(self, host: str) -> t.Callable[[], None]:
        def do() -> None:
            shown = {"upstream_key": self._read["key"]} if host == "gateway" else {}
            self.fleet.write(host, keys=self._read["hashes"], origin=self._read["store"], **shown)

        return self.step(do)

    def move(self) -> t.Callable[[], None]:
        def do() -> None:
            self.fleet.write("gateway", upstream_key=self._read["key"], origin=self._read["store"])

        return self.step(do)


def rotation(run: Writer) -> Steps:
    """As role keys goes, entry point rotate."""
    updates = [run.read(), *(run.update(host) for host in HOSTS)]
    return [
        run.change("pending", *CLIENTS, rotation_id="r"),
        *updates,
        run.change("finished", rotation_id="r", compromised=True),
        run.read(),
        run.move(),
        *updates,
        run.change("completed", rotation_id="r"),
    ]


def site(run: Writer) -> Steps:
    return [run.read(), *(run.update(host) for host in HOSTS)]


def new_client(run: Writer) -> Steps:
    change, (read, *updates) = run.change("present", "team-b"), site(run)

    def change_and_read() -> None:
        change()
        read()

    return [change_and_read, *updates]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[key_holder.RotationHolder]:
    """The current caller."""
    now = [ME]
    monkeypatch.setattr(key_holder, "current", lambda: now[0])
    # Nothing crashes here.
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    return now


@pytest.mark.parametrize("other", [site, new_client])
def test_no_order_of_two_runs_leaves_a_dead_key(
    tmp_path: Path, now: list[key_holder.RotationHolder], other: t.Callable[[Writer], Steps]
) -> None:
    refused = 0
    steps = (
        len(rotation(Writer(Fleet(tmp_path / "first"), ME, now))),
        len(other(Writer(Fleet(tmp_path / "r"), ME, now))),
    )
    for number, places in enumerate(itertools.combinations(range(sum(steps)), steps[1])):
        fleet = Fleet(tmp_path / str(number))
        first = fleet.store("present", *CLIENTS)
        for host in HOSTS:
            fleet.write(host, keys=first["hashes"], origin=first["store"])
        mine, theirs = Writer(fleet, ME, now), Writer(fleet, ELSEWHERE, now)
        queues = iter(rotation(mine)), iter(other(theirs))
        for place in range(sum(steps)):
            next(queues[place in places])()
        after = fleet.store("read", "gateway", reveal=True)
        dead, live = {key["sha256"] for key in after["retired"]}, {key["sha256"] for key in after["hashes"]}
        assert {key["sha256"] for key in first["hashes"]} <= dead, places
        assert after["rotation"] is None, places
        assert not mine.refusals, (places, mine.refusals)
        for host in HOSTS:
            assert not fleet.takes(host) & dead, places
        assert fleet.shows() == after["key"], places
        if len(live) == len(CLIENTS) or not theirs.refusals:
            assert all(fleet.takes(host) == live for host in HOSTS), places
        if not theirs.refusals:
            continue
        refused += 1
        assert all("run it again" in one or "is in progress" in one for one in theirs.refusals)
        # The actions of a run that was refused.
        again = Writer(fleet, ELSEWHERE, now)
        for do in site(again):
            do()
        assert not again.refusals
        assert all(fleet.takes(host) == live for host in HOSTS)
    assert 0 < refused < number


def test_a_machine_without_the_store_changes_nothing(tmp_path: Path, now: list[key_holder.RotationHolder]) -> None:
    fleet = Fleet(tmp_path / "fleet")
    first = fleet.store("present", *CLIENTS)
    for host in HOSTS:
        fleet.write(host, keys=first["hashes"], origin=first["store"])
    before = {host: fleet.takes(host) for host in HOSTS}
    looked = {host: fleet.write(host) for host in HOSTS}
    other = str(tmp_path / "laptop" / "keys.json")
    with pytest.raises(FleetError) as refused:
        fleet.store("present", *CLIENTS, path=other, hosts=looked)
    assert (
        f"key store {first['store']['id'][:8]}… (the key store {tmp_path}/fleet/keys.json on " in refused.value.message
    )
    assert f"the key store {other} on " in refused.value.message
    assert f"-e key_store_adopt={first['store']['id']}" in refused.value.message
    assert not os.path.exists(other)
    # Where it exists already, it is refused under both names, before any change and at each host.
    foreign = fleet.store("present", *CLIENTS, path=other)
    for attempt in (
        lambda: fleet.store("present", "team-b", path=other, hosts=looked),
        lambda: fleet.write("host", keys=foreign["hashes"], origin=foreign["store"]),
    ):
        with pytest.raises(FleetError) as refused:
            attempt()
        assert first["store"]["id"][:8] in refused.value.message
        assert foreign["store"]["id"][:8] in refused.value.message
    assert {host: fleet.takes(host) for host in HOSTS} == before


def test_a_store_from_an_older_copy_is_refused_and_goes_on_above_the_hosts(
    tmp_path: Path, now: list[key_holder.RotationHolder]
) -> None:
    fleet = Fleet(tmp_path / "fleet")
    path = tmp_path / "fleet" / "keys.json"
    fleet.store("present", *CLIENTS)
    copy = path.read_text()
    latest = fleet.store("present", *CLIENTS, "team-b")
    fleet.write("host", keys=latest["hashes"], origin=latest["store"])
    path.write_text(copy)
    looked = {"host": fleet.write("host"), "away": {"unreachable": True, "msg": "no route"}}
    with pytest.raises(FleetError, match=r"host has generation 2 of .* this run brought generation 1"):
        fleet.store("present", *CLIENTS, hosts=looked)
    adopt = latest["store"]["id"]
    restored = fleet.store("present", *CLIENTS, hosts=looked, adopt=adopt)
    assert (restored["store"]["id"], restored["store"]["generation"]) == (adopt, 3)
    # So the host takes it as it takes any later generation.
    assert (
        fleet.write("host", keys=restored["hashes"], origin=restored["store"])["taken"]["parts"]["keys"]["generation"]
        == 3
    )


def test_a_new_fleet_and_one_without_records_need_no_adoption(
    tmp_path: Path, now: list[key_holder.RotationHolder]
) -> None:
    fleet = Fleet(tmp_path / "fleet")
    looked = {host: fleet.write(host) for host in HOSTS}
    made = fleet.store("present", *CLIENTS, hosts=looked)
    fleet.write("host", keys=made["hashes"], origin=made["store"])
    (tmp_path / "fleet" / "host" / "keys.origin.json").unlink()
    old = {"host": fleet.write("host")}
    assert not fleet.store("present", *CLIENTS, hosts=old)["changed"]
    with pytest.raises(FleetError, match=r"host has 2 keys, and the key store .* has not been made yet"):
        fleet.store("present", *CLIENTS, path=str(tmp_path / "laptop.json"), hosts=old)
    foreign = str(tmp_path / "laptop" / "keys.json")
    fleet.store("present", "team-x", path=foreign)
    with pytest.raises(FleetError, match=r"host takes keys that store .* does not know: sk-"):
        fleet.store("present", "team-x", path=foreign, hosts=old)
    assert fleet.store("present", "team-x", path=foreign, hosts=old, adopt="true")["hashes"]
