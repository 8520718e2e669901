"""A stand-in for HAProxy's sockets: the modules' commands, answered as by HAProxy 2.6."""

from __future__ import annotations

import re
import socketserver
import threading
import typing as t
from pathlib import Path

SESSION = (
    "0x55ddc56ee400: proto=tcpv4 src={source} fe=edge_8000 be={backend} srv={server} ts=00 epoch=0 age={age} calls=3 "
    "rate=0 cpu=0 lat=0 rq[f=48c48080h,i=0,an=8000h,rx=,wx=,ax=] exp=4s rc=0 c_exp="
)


class FakeWorker:
    """The state of one process."""

    def __init__(
        self, maps: dict[str, list[tuple[str, str]]] | None = None, description: str = "0123abcd clients=2"
    ) -> None:
        self.maps = maps or {}
        self.description = description
        self.servers: dict[str, dict[str, int]] = {}
        self.sessions: list[dict[str, str]] = []
        self.clients: dict[str, str] = {}
        self.commands: list[str] = []
        self.refuse = ""
        #: What ``show stat`` answers.
        self.statistics = ""
        self._prepared: dict[int, list[tuple[str, str]]] = {}

    def answer(self, command: str) -> str:
        line, _newline, payload = command.partition("\n")
        self.commands.append(line)
        if self.refuse and line.startswith(self.refuse):
            return "Permission denied\n\n"
        for pattern, method in (
            (r"show version", lambda: "2.6.12\n\n"),
            (r"show info", lambda: f"Name: HAProxy\nnode: here\ndescription: {self.description}\nTainted: 0\n\n"),
            (r"show map (\S+)", self._show_map),
            (r"prepare map (\S+)", self._prepare_map),
            (r"add map @(\d+) (\S+) <<", lambda version, path: self._add(int(version), payload)),
            (r"commit map @(\d+) (\S+)", self._commit),
            (r"show servers state", self._show_servers),
            (r"set server (\S+)/(\S+) state (\w+)", self._set_server),
            (r"show table inflight data\.conn_cur gt 0", self._show_table),
            (r"show sess", self._show_sessions),
            (r"show stat", lambda: f"{self.statistics}\n"),
            (r"set server \S+ agent up", lambda: "\n"),
        ):
            match = re.fullmatch(pattern, line)
            if match:
                return t.cast("t.Callable[..., str]", method)(*match.groups())
        return f"Unknown command: '{line}'\n"

    def _show_map(self, path: str) -> str:
        if path not in self.maps:
            return "Unknown map identifier. Please use #<id> or <file>.\n\n"
        return "".join(f"0x{number:x} {key} {value}\n" for number, (key, value) in enumerate(self.maps[path])) + "\n"

    def _prepare_map(self, path: str) -> str:
        version = len(self._prepared) + 1
        self._prepared[version] = []
        return f"New version created: {version}\n\n"

    def _add(self, version: int, payload: str) -> str:
        assert payload.endswith("\n\n"), "a payload ends with an empty line"
        assert len(payload) < 16000, "a payload has to fit HAProxy's buffer"
        for line in payload.splitlines():
            if line:
                key, _space, value = line.partition(" ")
                self._prepared[version].append((key, value))
        return "\n"

    def _commit(self, version: str, path: str) -> str:
        self.maps[path] = self._prepared[int(version)]
        return "\n"

    def _show_servers(self) -> str:
        rows = ["1", "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight"]
        for number, (name, state) in enumerate(self.servers.items(), 1):
            rows.append(
                f"3 instances_8000 {number} {name} 127.0.0.1 {state['up']} {state['admin']} 1 1 5 6 3 4 6 0 0 0 - 8100"
            )
        return "\n".join(rows) + "\n\n"

    def _set_server(self, backend: str, name: str, state: str) -> str:
        if backend != "instances_8000" or name not in self.servers:
            return "No such server.\n\n"
        self.servers[name]["admin"] = 8 if state == "drain" else 0
        return "\n"

    def _show_table(self) -> str:
        rows = [f"# table: inflight, type: string, size:65536, used:{len(self.clients)}"]
        rows += [f"0x5: key={client}/{source} use=1 exp=9 conn_cur=1" for source, client in self.clients.items()]
        return "\n".join(rows) + "\n\n"

    def _show_sessions(self) -> str:
        own = "0x55ddc581d440: proto=unix_stream src=unix:1 fe=GLOBAL be=<NONE> srv=<none> ts=00 age=0s calls=1\n"
        return "".join(SESSION.format(**session) + "\n" for session in self.sessions) + own + "\n"


class FakeHaproxy:
    """The stats socket, and with ``old`` processes the master's socket too."""

    def __init__(self, directory: Path, old: dict[int, FakeWorker] | None = None) -> None:
        self.worker = FakeWorker()
        self.old = old or {}
        self.socket = str(directory / "admin.sock")
        self.master_socket = str(directory / "master.sock")
        self._servers = [self._listen(self.socket, self.worker.answer), self._listen(self.master_socket, self._master)]

    def __enter__(self) -> FakeHaproxy:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for path in (self.socket, self.master_socket):
            Path(path).unlink()

    def _master(self, command: str) -> str:
        if command.startswith("show proc"):
            old = "".join(f"{pid:<15} worker          1               0d00h00m03s     2.6.12\n" for pid in self.old)
            return (
                "#<PID>          <type>          <reloads>       <uptime>        <version>\n"
                "4372            master          1 [failed: 0]   0d00h00m03s     2.6.12\n"
                "# workers\n4416            worker          0               0d00h00m01s     2.6.12\n"
                f"# old workers\n{old}# programs\n\n"
            )
        match = re.match(r"@!(\d+) ", command)
        if match and int(match[1]) in self.old:
            return self.old[int(match[1])].answer(command[match.end() :])
        return f"Can't find the target PID matching the prefix '{command.split(' ')[0]}'\n"

    @staticmethod
    def _listen(path: str, answer: t.Callable[[str], str]) -> socketserver.ThreadingUnixStreamServer:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                received = b""
                while chunk := self.request.recv(65536):
                    received += chunk
                # One newline ends the command; a payload has its own empty line before it.
                text = received.decode()
                command = text if "<<" in text else text.rstrip("\n")
                self.request.sendall(answer(command).encode())

        return socketserver.ThreadingUnixStreamServer(path, Handler)
