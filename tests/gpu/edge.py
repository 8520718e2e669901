"""The edge of a machine without systemd: the role's configuration and programs in a real HAProxy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from tests.gpu.client import Client
from tests.gpu.hosts import ROOT, CommandError, Host, make_user

HAPROXY = "/usr/sbin/haproxy"
PLACE = Path("/etc/haproxy")
FILES = (
    "plugins/module_utils/edge/haproxy_socket.py",
    "roles/edge/files/edge_servers.py",
    "roles/edge/files/key_usage.py",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "roles/edge/files").glob("*.lua")),
)
CLIENT = "gpu-steps"


class RealEdge:
    """A host's edge, for as long as the context lasts.

    Args:
        host: this machine as a host, with its key between edge and engines.
        log: of HAProxy.
    """

    def __init__(self, host: Host, log: Path) -> None:
        self._host = host
        self._log = log
        document = json.loads(host.bundle.read_text(encoding="utf-8"))["edge"]
        self._config: str = document["config"]
        self.targets: list[dict[str, t.Any]] = document["targets"]
        self.checks: list[str] = document["checks"]
        self.key = f"sk-{secrets.token_urlsafe(32)}"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def exists() -> bool:
        return Path(HAPROXY).exists()

    def __enter__(self) -> RealEdge:
        user = make_user("haproxy")
        for directory in (PLACE, Path("/run/haproxy"), Path("/var/lib/haproxy")):
            directory.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            shutil.copy(ROOT / file, PLACE)
        (PLACE / "haproxy.cfg").write_text(self._config, encoding="utf-8")
        shutil.chown(PLACE / "haproxy.cfg", group=user.pw_gid)
        # A later edge on this machine has another key.
        origin = {"id": "0" * 32, "generation": time.time_ns(), "name": "tests/gpu"}
        keys = [{"name": CLIENT, "sha256": hashlib.sha256(self.key.encode()).hexdigest()}]
        for name, arguments in (("edge_keys", {"keys": keys, "origin": origin}), ("edge_drain", {"state": "kept"})):
            made = self._host.module(name, **arguments)
            if made.get("failed"):
                raise CommandError(made["msg"])
        self._host.command(sys.executable, "-I", str(PLACE / "edge_servers.py"), "start")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [HAPROXY, "-W", "-S", "/run/haproxy-master.sock", "-f", str(PLACE / "haproxy.cfg")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self._process is not None
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()

    def client(self, target: t.Mapping[str, t.Any]) -> Client:
        """A client of one of the edge's ports."""
        return Client(int(target["url"].rpartition(":")[2]), target["model"], self.key)

    def serve(self, limit: float = 15) -> bool:
        """Whether each of its ports says that an instance serves there, within some time."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            if all(self.client(target).health() == 200 for target in self.targets):
                return True
            time.sleep(0.1)
        return False

    def instances_of(self, since: int = 0) -> list[str]:
        """The instances that answered, by the access log from a line on."""
        words = [line.split() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()[since:]]
        return [word.partition("=")[2] for line in words for word in line if word.startswith("instance=")]
