"""A Hugging Face hub of a few megabytes on the loopback: the answers that huggingface_hub and our own client need, and
the ways in which a download goes wrong.

In a test, start() gives a Hub to fill and to break. As a program it serves directories, for hosts of a lab:

    python -m tests.fakes.hub --listen 127.0.0.1:8765 --model Qwen/Qwen3-VL-8B-Instruct=lab/models/tiny

Its faults are then set over HTTP: POST /_fake/faults with a JSON object of Faults' fields; GET /_fake/requests lists
what was asked.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import socket
import threading
import time
import typing as t
import urllib.parse
from pathlib import Path

#: Files of at least this size are LFS files: served by the CDN, named by their SHA-256.
LARGE = 64 * 1024


@dataclasses.dataclass
class Faults:
    """What goes wrong.

    Attributes:
        cut_after: end a body after this many bytes, for the next ``cuts`` bodies.
        cuts: how many bodies are cut; -1 for all.
        corrupt: change a byte in the next so many large bodies.
        status: answer everything with this status instead.
        statuses: answer the next requests with these, one each.
        code: X-Error-Code of such an answer.
        bytes_per_second: of a large body; 0 for no limit.
        ignore_range: send whole files whatever is asked for.
        token: the only token that is let in; empty for anybody.
        gated: describe the models to everybody, but give files to the token only.
    """

    cut_after: int = 0
    cuts: int = 0
    corrupt: int = 0
    status: int = 0
    statuses: list[int] = dataclasses.field(default_factory=list)
    code: str = ""
    bytes_per_second: int = 0
    ignore_range: bool = False
    token: str = ""
    gated: bool = False


@dataclasses.dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    offset: int
    authorized: bool
    sent: int = 0


class Hub:
    """The models of a hub, what goes wrong, and what was asked."""

    def __init__(self, page: int = 1000) -> None:
        self.faults = Faults()
        self.requests: list[Request] = []
        self.xet: dict[str, str] = {}
        self.cas = ""
        self.page = page
        self.url = ""
        self.cdn_url = ""
        self._lock = threading.Lock()
        self._commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self._refs: dict[str, dict[str, str]] = {}

    def commit(self, repository: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Make ``files`` the newest commit of a branch, and say which."""
        listing = json.dumps([(path, git_sha1(content)) for path, content in sorted(files.items())])
        name = hashlib.sha1(f"{repository} {listing}".encode(), usedforsecurity=False).hexdigest()
        self._commits.setdefault(repository, {})[name] = dict(files)
        self._refs.setdefault(repository, {})[branch] = name
        return name

    def add_directory(self, repository: str, directory: Path) -> str:
        files = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        return self.commit(repository, files)

    def refs(self, repository: str) -> dict[str, str]:
        return self._refs.get(repository, {})

    def exists(self, repository: str) -> bool:
        return repository in self._commits

    def resolve(self, repository: str, revision: str) -> str | None:
        name = self.refs(repository).get(revision, revision)
        return name if name in self._commits.get(repository, {}) else None

    def files(self, repository: str, commit: str) -> dict[str, bytes]:
        return self._commits[repository][commit]

    def blob(self, sha256: str) -> bytes | None:
        for commits in self._commits.values():
            for files in commits.values():
                for content in files.values():
                    if len(content) >= LARGE and hashlib.sha256(content).hexdigest() == sha256:
                        return content
        return None

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def next_status(self) -> int:
        with self._lock:
            return self.faults.statuses.pop(0) if self.faults.statuses else self.faults.status

    def take(self, fault: str) -> bool:
        """Use up one of a counted fault."""
        with self._lock:
            left = getattr(self.faults, fault)
            if left > 0:
                setattr(self.faults, fault, left - 1)
            return bool(left)

    def sent(self, path_part: str = "") -> int:
        """Bytes of bodies that were sent for paths with ``path_part`` in them."""
        return sum(request.sent for request in self.requests if path_part in request.path)

    def asked(self, path_part: str) -> list[Request]:
        return [request for request in self.requests if path_part in request.path]


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], hub: Hub) -> None:
        super().__init__(address, _Handler)
        self.hub = hub

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """A client that was killed is part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 - the base class's name
        """Not a word."""

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/_fake/faults":
            self._refuse(404, "", "")
            return
        self.hub.faults = Faults(**json.loads(body))
        self._json({})

    def _answer(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path)
        if path == "/_fake/requests":
            self._json([dataclasses.asdict(request) for request in self.hub.requests])
            return
        range_header = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        offset = int(range_header.group(1)) if range_header else 0
        self._request = Request(self.command, path, offset, "Authorization" in self.headers)
        self.hub.note(self._request)
        status = self.hub.next_status()
        if status:
            self._refuse(status, self.hub.faults.code, "set by the test")
            return
        cdn = re.fullmatch(r"/cdn/([0-9a-f]{64})", path)
        if cdn:
            content = self.hub.blob(cdn.group(1))
            self._content(content, {}, offset) if content is not None else self._refuse(404, "", "")
            return
        self._api(path, urllib.parse.parse_qs(parts.query), offset)

    def _api(self, path: str, query: dict[str, list[str]], offset: int) -> None:
        answers: tuple[tuple[str, t.Callable[..., None]], ...] = (
            (r"/api/models/([^/]+/[^/]+)/revision/(.+)", self._revision),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
            (r"/api/models/([^/]+/[^/]+)/refs", self._refs),
            (r"/api/models/([^/]+/[^/]+)/xet-read-token/([^/]+)", self._xet_token),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        )
        for pattern, answer in answers:
            match = re.fullmatch(pattern, path)
            if match:
                if self._may(match.group(1), is_file="/resolve/" in path):
                    answer(*match.groups(), query=query, offset=offset)
                return
        self._refuse(404, "", "Not Found")

    def _may(self, repository: str, is_file: bool) -> bool:
        faults = self.hub.faults
        given = self.headers.get("Authorization", "")
        let_in = not faults.token or given == f"Bearer {faults.token}"
        if given and faults.token and not let_in and not faults.gated:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif not self.hub.exists(repository) or (not let_in and not faults.gated):
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif not let_in and is_file:
            self._refuse(403 if given else 401, "GatedRepo", f"Access to model {repository} is restricted")
        else:
            return True
        return False

    def _commit(self, repository: str, revision: str) -> str:
        commit = self.hub.resolve(repository, revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit or ""

    def _revision(self, repository: str, revision: str, **_more: t.Any) -> None:
        commit = self._commit(repository, revision)
        if commit:
            siblings = [{"rfilename": path} for path in self.hub.files(repository, commit)]
            gated = "manual" if self.hub.faults.gated else False
            self._json({"id": repository, "sha": commit, "gated": gated, "private": False, "siblings": siblings})

    def _tree(self, repository: str, revision: str, query: dict[str, list[str]], **_more: t.Any) -> None:
        commit = self._commit(repository, revision)
        if not commit:
            return
        first = int(query.get("cursor", ["0"])[0])
        files = sorted(self.hub.files(repository, commit).items())
        entries = [self._entry(path, content) for path, content in files[first : first + self.hub.page]]
        headers = {}
        if first + self.hub.page < len(files):
            following = f"{self.hub.url}/api/models/{repository}/tree/{revision}?cursor={first + self.hub.page}"
            headers["Link"] = f'<{following}&recursive=true&expand=false>; rel="next"'
        if first == 0 and any("/" in path for path, _content in files):
            entries.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": "sub"})
        self._json(entries, headers)

    def _entry(self, path: str, content: bytes) -> dict[str, t.Any]:
        entry: dict[str, t.Any] = {"type": "file", "oid": git_sha1(content), "size": len(content), "path": path}
        if len(content) >= LARGE:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 135}
        if path in self.hub.xet:
            entry["xetHash"] = self.hub.xet[path]
        return entry

    def _refs(self, repository: str, **_more: t.Any) -> None:
        branches = [{"name": name, "targetCommit": commit} for name, commit in self.hub.refs(repository).items()]
        self._json({"branches": branches, "tags": [], "converts": []})

    def _xet_token(self, _repository: str, _revision: str, **_more: t.Any) -> None:
        expires = int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": self.hub.cas, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": str(expires)}
        self._json({"casUrl": self.hub.cas, "accessToken": "t", "exp": expires}, headers)

    def _resolve(self, repository: str, revision: str, path: str, offset: int, **_more: t.Any) -> None:
        commit = self._commit(repository, revision)
        if not commit:
            return
        content = self.hub.files(repository, commit).get(path)
        if content is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if len(content) < LARGE:
            self._content(content, {**headers, "ETag": f'"{git_sha1(content)}"'}, offset)
            return
        sha256 = hashlib.sha256(content).hexdigest()
        headers["X-Linked-Size"] = str(len(content))
        headers["X-Linked-ETag"] = f'"{sha256}"'
        headers["Location"] = f"{self.hub.cdn_url}/cdn/{sha256}?signature=of-the-test"
        self._send(302, headers, b"")

    def _content(self, content: bytes, headers: dict[str, str], offset: int) -> None:
        faults = self.hub.faults
        large = len(content) >= LARGE
        status = 200
        if large and self.hub.take("corrupt"):
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if offset and not faults.ignore_range:
            status = 206
            headers["Content-Range"] = f"bytes {offset}-{len(content) - 1}/{len(content)}"
            content = content[offset:]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(content)
        if large and faults.cut_after and end > faults.cut_after and self.hub.take("cuts"):
            end = faults.cut_after
        self._pour(content[:end], faults.bytes_per_second if large else 0)
        if end < len(content):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _pour(self, content: bytes, rate: int) -> None:
        step = max(1, rate // 20) if rate else 1024 * 1024
        for start in range(0, len(content), step):
            piece = content[start : start + step]
            self.wfile.write(piece)
            self._request.sent += len(piece)
            if rate:
                time.sleep(len(piece) / rate)

    def _json(self, value: t.Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, {**(headers or {}), "Content-Type": "application/json"}, json.dumps(value).encode())

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, {name: value for name, value in headers.items() if value}, b"")

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def start(page: int = 1000, address: str = "127.0.0.1", port: int = 0) -> t.Iterator[Hub]:
    """A hub and, at another port, its CDN, until the block ends."""
    hub = Hub(page)
    servers = [_Server((address, port), hub), _Server((address, 0), hub)]
    hub.url, hub.cdn_url = (f"http://{address}:{server.server_address[1]}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:8765")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=DIRECTORY")
    options = parser.parse_args()
    address, _colon, port = options.listen.rpartition(":")
    with start(address=address, port=int(port)) as hub:
        for model in options.model:
            name, _equals, directory = model.partition("=")
            print(f"{hub.url}/{name} at {hub.add_directory(name, Path(directory))}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
