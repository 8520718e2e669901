"""A real HAProxy on the loopback interface, with the role's own configuration."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.inference.fleet.plugins.module_utils.accountant import serve as accountant
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.facts import look
from ansible_collections.inference.fleet.plugins.module_utils.notices import watch
from ansible_collections.inference.fleet.plugins.module_utils.services.archive import build_program
from ansible_collections.inference.fleet.plugins.module_utils.watchdog import watch as watchdog
from ansible_collections.inference.fleet.plugins.modules import (
    edge_drain,
    edge_keys,
    key_proof,
    key_usage,
    serving_counters,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.variables import units

from tests.integration.edge.engine import Recorder
from tests.ports import free_port
from tests.programs import install_edge

ROLE = Path(__file__).resolve().parents[3] / "roles" / "edge"
#: Selects another HAProxy than the distribution's.
HAPROXY = os.environ.get("HAPROXY", "/usr/sbin/haproxy")
#: HAProxy 2.4 has no Lua filters, and retries no other host after a 401: see the role's README.
IS_HAPROXY_2_4 = (
    "2.4." in subprocess.run([HAPROXY, "-v"], capture_output=True, text=True, check=False).stdout.partition("\n")[0]
)
ENGINE_KEY = "sk-engine-key-that-stays-on-the-host-0000"
KEY = "sk-the-key-of-team-a-for-tests-only-000000000"

init_plugin_loader()

Answer = tuple[int, dict[str, str], bytes]


def eventually(condition: t.Callable[[], t.Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


class Edge:
    """One edge in front of existing instances."""

    def __init__(self, directory: Path, ports: list[int]) -> None:
        self.directory = directory
        self.programs = install_edge(directory / "programs")
        self.port = free_port()
        self.instance_ports = ports
        self.variables: dict[str, t.Any] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.generations: list[t.Any] = []
        self.log = directory / "haproxy.log"
        self.config = directory / "haproxy.cfg"
        self.maps = directory / "maps"
        self.drains = directory / "drain.json"
        self.usage_file = directory / "key_usage.json"
        self.socket = str(directory / "admin.sock")
        self.master_socket = str(directory / "master.sock")
        self.set_engine_key(ENGINE_KEY)
        self.set_keys({})
        self.drain(state="kept")

    # The modules' work on a host.

    def set_engine_key(self, key: str) -> None:
        """What module engine_key writes; set_keys() updates HAProxy."""
        (self.directory / "engine_key.env").write_text(f"ENGINE_API_KEY={key}\n")

    def set_keys(
        self, keys: dict[str, str], limits: t.Mapping[str, t.Mapping[str, t.Any]] | None = None, **changes: t.Any
    ) -> dict[str, t.Any]:
        """Run module edge_keys; the arguments map keys to clients, and clients to their limits."""
        hashes = [
            {"name": name, "sha256": api_keys.sha256(key), **(limits or {}).get(name, {})} for key, name in keys.items()
        ]
        places = {
            "path": str(self.maps / "keys.map"),
            "config_path": str(self.config),
            "engine_key_path": str(self.directory / "engine_key.env"),
            "engine_key_map": str(self.maps / "engine_key.map"),
            "upstream_key_map": str(self.maps / "upstream_key.map"),
            "gateway_clients": str(self.directory / "gateway_clients.json"),
            "origin_path": str(self.maps / "keys.origin.json"),
            "hold_map": str(self.maps / "hold.map"),
            "presence_path": str(self.directory / "presence.json"),
        }
        if self.generations[-1:] != [(hashes, changes.get("upstream_key"))]:
            self.generations.append((hashes, changes.get("upstream_key")))
        origin = origin_of(len(self.generations))
        parameters = {"keys": hashes, "upstream_key": None, "origin": origin, "adopt": "", **places, **self._sockets()}
        return edge_keys.run({**parameters, **changes}, check=False, want_diff=True)

    def drain(self, check: bool = False, **parameters: t.Any) -> dict[str, t.Any]:
        """Run module edge_drain."""
        defaults = {name: argument.get("default") for name, argument in edge_drain.ARGUMENTS.items()}
        places = {
            "config_path": str(self.config),
            "map_path": str(self.maps / "drain.map"),
            "record_path": str(self.drains),
            **self._sockets(),
        }
        return edge_drain.run({**defaults, **places, **parameters}, check, want_diff=True)

    def prove(self, live: dict[str, str], dead: dict[str, str], model: str) -> dict[str, t.Any]:
        """Run module key_proof; the arguments map keys to clients."""
        defaults = {name: argument.get("default") for name, argument in key_proof.ARGUMENTS.items()}
        keys = {
            kind: [{"name": name, "key": key} for key, name in given.items()]
            for kind, given in (("live", live), ("dead", dead))
        }
        urls = {
            "edges": [f"http://127.0.0.1:{self.port}"],
            "engines": [f"http://127.0.0.1:{port}" for port in self.instance_ports],
        }
        return key_proof.run({**defaults, **urls, **keys, "model": model, "patience": 0})

    def install_notices(self) -> Path:
        """The program that module edge_notices installs."""
        path = self.directory / "notices.pyz"
        path.write_bytes(build_program(watch))
        return path

    def install_watchdog(self) -> Path:
        """The program that module engine_watchdog installs."""
        path = self.directory / "watchdog.pyz"
        path.write_bytes(build_program(watchdog))
        return path

    def install_accountant(self) -> Path:
        """The program that module gateway_accountant installs."""
        path = self.directory / "accountant.pyz"
        path.write_bytes(build_program(accountant))
        return path

    def install_facts(self) -> Path:
        """The program that module edge_facts installs."""
        path = self.directory / "facts.pyz"
        path.write_bytes(build_program(look))
        return path

    def usage(self) -> dict[str, t.Any]:
        """Run module key_usage."""
        places = {
            "program": str(self.programs / "key_usage.py"),
            "path": str(self.usage_file),
            "map_path": str(self.maps / "keys.map"),
            "origin_path": str(self.maps / "keys.origin.json"),
        }
        return key_usage.run({**places, **self._sockets()})

    def count(self) -> dict[str, t.Any]:
        """Run module serving_counters."""
        return serving_counters.look(
            {**self._sockets(), "timeout": 3, "first_engine_port": self.instance_ports[0]},
        )

    def _sockets(self) -> dict[str, str]:
        return {"socket": self.socket, "master_socket": self.master_socket}

    # systemd's work.

    def start(self, **variables: t.Any) -> Edge:
        self.configure(**variables)
        self._write_server_states("start")
        self.keep_usage("start")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [HAPROXY, "-W", "-S", self.master_socket, "-f", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: self._runs(0))
        return self

    def reload(self) -> None:
        assert self.process
        self._write_server_states("reload")
        self.keep_usage("reload")
        before = self._reloads()
        self.process.send_signal(signal.SIGUSR2)
        eventually(lambda: self._runs(before + 1))

    def stop(self) -> None:
        if self.process:
            self.keep_usage("stop")
            self.process.terminate()
            try:
                self.process.wait(10)
            finally:
                self.process.kill()
                self.process = None

    def configure(self, **variables: t.Any) -> None:
        self.variables.update(variables)
        self.config.write_text(self._rendered())

    def _rendered(self) -> str:
        """The configuration that the role would write."""
        values: dict[str, t.Any] = {}
        for part in ("defaults", "vars"):
            values.update(yaml.safe_load((ROLE / part / "main.yml").read_text()))
        services = [
            {
                "port": self.port,
                "instances": [{"name": f"engine-{i}", "port": port} for i, port in enumerate(self.instance_ports)],
            }
        ]
        values.update(
            ansible_managed="Ansible managed",
            edge_address="127.0.0.1",
            # Within a test machine's limit on open files.
            edge_max_connections=1000,
            edge_services=services,
            __edge_maps=str(self.maps),
            __edge_bodies_program=str(ROLE / "files" / "bodies.lua"),
            __edge_socket=self.socket,
            __edge_servers_file=str(self.directory / "servers.state"),
            __edge_one_model_program=str(ROLE / "files" / "one_model.lua"),
            __edge_choose_model_program=str(ROLE / "files" / "choose_model.lua"),
            __edge_account_program=str(ROLE / "files" / "account.lua"),
            __edge_affinity_program=str(ROLE / "files" / "affinity.lua"),
            __edge_home_program=str(ROLE / "files" / "home.lua"),
            # The paths of the role's templates and files.
            ansible_search_path=[str(ROLE)],
            __edge_found={"files": []},
        )
        values.update(self.variables)
        # An Ansible that starts after its modules were imported does not know the collection's filters.
        values["__edge_plain_numbers"] = {
            name: units.seconds(values[name])
            if name in units.TIMES
            else units.size(values[name], units.SIZES.get(name, "B"))
            for name in values["__edge_plain_numbers"]
            if "{{" not in str(values[name])
        }
        templar = Templar(DataLoader(), variables=_trusted(values))
        return str(templar.template(trust_as_template("{{ (__edge_files | last).content }}")))

    def _write_server_states(self, event: str) -> None:
        subprocess.run(
            [
                *(sys.executable, "-I", str(self.programs / "edge_servers.py"), event),
                *("--config", str(self.config), "--drains", str(self.drains), "--socket", self.socket),
                *("--output", str(self.directory / "servers.state")),
            ],
            check=True,
        )

    def keep_usage(self, event: str) -> subprocess.CompletedProcess[str]:
        """Run the program that keeps the keys' usage. systemd ignores its result."""
        return subprocess.run(
            [
                *(sys.executable, "-I", str(self.programs / "key_usage.py"), event, "--file", str(self.usage_file)),
                *("--socket", self.socket, "--master-socket", self.master_socket),
            ],
            check=False,
            capture_output=True,
            text=True,
        )

    def _reloads(self) -> int:
        try:
            answer = haproxy.ask(self.master_socket, "show proc")
        except (OSError, FleetError):
            return -1
        master = re.search(r"^\d+\s+master\s+(?:\d+\s+)??(\d+)\s+(?:\[failed: \d+\]\s+)?\d+d", answer, re.MULTILINE)
        return int(master[1]) if master else -1

    def _runs(self, reloads: int) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log.read_text()
        return self._reloads() >= reloads and bool(haproxy.workers(self.socket, self.master_socket))

    # The client's view.

    def ask(self, path: str, key: str | None = None, method: str = "GET", body: t.Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if key is not None:
                sent["Authorization"] = f"Bearer {key}"
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # An edge that refuses a body need not read it.
                connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def status(self, path: str, key: str | None = None, **options: t.Any) -> int:
        return self.ask(path, key, **options)[0]

    def healthy(self) -> bool:
        return self.status("/health") == 200

    def start_and_wait(self, **variables: t.Any) -> Edge:
        """Start, and wait until every instance serves."""
        self.start(**variables)
        eventually(lambda: all(server.up for server in self.servers()))
        return self

    def servers(self) -> list[haproxy.Server]:
        return haproxy.workers(self.socket, self.master_socket)[0].servers()

    def access_log(self) -> list[str]:
        """The complete lines: HAProxy may be writing the last one."""
        *lines, _unfinished = self.log.read_text().split("\n")
        return [line for line in lines if line.startswith("client=")]


def _trusted(value: t.Any) -> t.Any:
    """The same with every text marked as a template, as the variables of a role are."""
    if isinstance(value, dict):
        return {key: _trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def error_of(answer: Answer) -> dict[str, t.Any]:
    """The error in an answer, which must have OpenAI's form."""
    _status, headers, body = answer
    assert headers["content-type"] == "application/json"
    document = json.loads(body)
    assert set(document) == {"error"}
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert isinstance(document["error"]["message"], str)
    return dict(document["error"])


def origin_of(generation: int) -> dict[str, t.Any]:
    """The generation of a key store, as module api_key returns it."""
    return {"id": "0" * 32, "generation": generation, "name": "the key store of this test"}


class Engine(t.Protocol):
    """A stand-in for one."""

    @property
    def port(self) -> int: ...


@contextlib.contextmanager
def unstarted_edge(directory: Path, engines: t.Sequence[Engine]) -> t.Iterator[Edge]:
    """An edge that serves client team-a with KEY, once it is started."""
    if os.geteuid() != 0 or not shutil.which(HAPROXY):
        pytest.skip("needs root and HAProxy")
    edge = Edge(directory, [engine.port for engine in engines])
    edge.set_keys({KEY: "team-a"})
    try:
        yield edge
    finally:
        edge.stop()


@contextlib.contextmanager
def two_engines() -> t.Iterator[list[Recorder]]:
    recorders = [Recorder(), Recorder()]
    try:
        yield recorders
    finally:
        for recorder in recorders:
            recorder.stop()


@pytest.fixture
def engines() -> t.Iterator[list[Recorder]]:
    with two_engines() as recorders:
        yield recorders


@pytest.fixture
def unstarted(tmp_path: Path, engines: list[Recorder]) -> t.Iterator[Edge]:
    with unstarted_edge(tmp_path, engines) as edge:
        yield edge


@pytest.fixture
def edge(unstarted: Edge) -> Edge:
    """An edge of this test's own; test files share one where that is enough, see shared_edge."""
    return unstarted.start_and_wait()


Shared = tuple[Edge, list[Recorder]]


@contextlib.contextmanager
def sharing(tmp_path_factory: pytest.TempPathFactory, **variables: t.Any) -> t.Iterator[Shared]:
    """An edge for a whole file, and its engines, for a fixture ``shared``: no test may change it."""
    with two_engines() as engines, unstarted_edge(tmp_path_factory.mktemp("edge"), engines) as edge:
        yield edge.start_and_wait(**variables), engines


@pytest.fixture
def shared_edge(shared: Shared) -> Edge:
    """For a file whose tests share one, in place of ``edge``."""
    return shared[0]


@pytest.fixture
def shared_engines(shared: Shared) -> list[Recorder]:
    """The same in place of ``engines``, with an empty record."""
    for engine in shared[1]:
        engine.seen.clear()
    return shared[1]
