"""The instance metadata service of one host (IMDSv2): ``python -m lab.aws.metadata ADDRESS PORT FILE``.

The file says what is announced, as a JSON object of paths below /latest/meta-data and their texts. It is read for each
request, so writing it is all that an announcement takes. Standard library alone: each host runs one.
"""

from __future__ import annotations

import datetime
import http.server
import json
import secrets
import sys
import time
import typing as t
from pathlib import Path

TOKEN = "/latest/api/token"  # noqa: S105 - a path
DATA = "/latest/meta-data"
LONGEST_TTL = 21600

SPOT = "spot/instance-action"
REBALANCE = "events/recommendations/rebalance"
MAINTENANCE = "events/maintenance/scheduled"
TARGET_STATE = "autoscaling/target-lifecycle-state"
NOTICES = ("spot", "rebalance", "maintenance", "asg")


def announcement(notice: str, when: datetime.datetime) -> dict[str, str]:
    """What the service says of a notice, in the form and with the dates that AWS documents for it.

    Args:
        notice: one of NOTICES.
        when: the end of the instance, or the begin of its maintenance, in UTC.
    """
    iso = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    if notice == "spot":
        return {SPOT: json.dumps({"action": "terminate", "time": iso}), "spot/termination-time": iso}
    if notice == "rebalance":
        return {REBALANCE: json.dumps({"noticeTime": iso})}
    if notice == "asg":
        return {TARGET_STATE: "Terminated"}
    until = when + datetime.timedelta(hours=2)
    event = {
        "NotBefore": _spelt(when),
        "Code": "system-reboot",
        "Description": "scheduled reboot",
        "EventId": "instance-event-0d59937288b749b32",
        "NotAfter": _spelt(until),
        "State": "active",
    }
    return {MAINTENANCE: json.dumps([event])}


def _spelt(when: datetime.datetime) -> str:
    """A date as in `21 Jan 2019 09:00:43 GMT`, whatever the locale."""
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    return f"{when.day} {months[when.month - 1]} {when:%Y %H:%M:%S} GMT"


class Tokens:
    """The session tokens that were given, and when each ends."""

    def __init__(self, clock: t.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: dict[str, float] = {}

    def make(self, ttl: str) -> str | None:
        """A token for so many seconds; None where AWS refuses the number."""
        if not ttl.isdigit() or not 1 <= int(ttl) <= LONGEST_TTL:
            return None
        token = secrets.token_urlsafe(40)
        self._ends[token] = self._clock() + int(ttl)
        return token

    def accepts(self, token: str) -> bool:
        return self._ends.get(token, 0.0) > self._clock()


class MetadataServer(http.server.ThreadingHTTPServer):
    """Serves what the file says, to those who show a token."""

    def __init__(self, address: tuple[str, int], said: Path, tokens: Tokens) -> None:
        super().__init__(address, _Request)
        self.said = said
        self.tokens = tokens


class _Request(http.server.BaseHTTPRequestHandler):
    server_version = "EC2ws"
    server: MetadataServer

    def log_message(self, *_arguments: object) -> None:
        pass

    def _answer(self, status: int, body: str = "", headers: t.Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_PUT(self) -> None:
        ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != TOKEN:
            self._answer(404)
        elif "X-Forwarded-For" in self.headers:
            # AWS gives no token to what a proxy passes on.
            self._answer(403)
        elif (token := self.server.tokens.make(ttl)) is None:
            self._answer(400)
        else:
            self._answer(200, token, {"X-aws-ec2-metadata-token-ttl-seconds": ttl})

    def do_GET(self) -> None:
        if not self.server.tokens.accepts(self.headers.get("X-aws-ec2-metadata-token", "")):
            self._answer(401)
            return
        said: dict[str, str] = json.loads(self.server.said.read_text(encoding="utf-8"))
        text = said.get(self.path.removeprefix(DATA).strip("/"))
        self._answer(404) if text is None else self._answer(200, text)


def main(arguments: list[str]) -> None:
    address, port, said = arguments
    server = MetadataServer((address, int(port)), Path(said), Tokens())
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
