#!/usr/bin/python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep over HAProxy's reloads and restarts when each key was used last; systemd and module key_usage run this.

HAProxy counts in a table that ends with its process, and a reload empties that of the former process too. So the table
is added to a file right before: with reload and stop. start says that a new process begins, and show prints file and
table together and writes nothing.

What is in the file: "since" (what is not in "keys" was not used from then on, and what is in it was), "keys" (last_used,
when the last request began, and requests, by the first 8 digits of the key's SHA-256), "saved" (when it was written),
"closed" (whether that was when HAProxy stopped), and "counted" (what of a process's table is in "keys", because that
process goes on where a reload fails). All times are Unix times.

A request that the former process takes after a reload, on a connection that was open, is seen while it is in flight and
not counted.

Usage: key_usage.py start|reload|stop|show [--socket FILE] [--master-socket FILE] [--file FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
import typing

TABLE = "key_usage"
#: Seconds for which the table keeps an unused key: its "expire" in HAProxy's configuration.
EXPIRE = 24 * 86400
#: Seconds between this program and the process that systemd starts after it, at the most.
START_SECONDS = 90
#: Seconds after which it gives up: a reload waits for it.
PATIENCE = 20
ASK_SECONDS = 5.0
NO_TABLE = "No such table"

OLD_WORKER = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)
ROW = re.compile(r"^0x\S+ key=([0-9a-f]{8}) .*?\bexp=(\d+)\b.*? http_req_cnt=(\d+)$", re.MULTILINE)


class Use(typing.NamedTuple):
    """How one process saw a key used."""

    last_used: int
    requests: int


class Process(typing.NamedTuple):
    """A process of HAProxy and its table."""

    pid: int
    started: int
    uses: dict[str, Use]


class Document(typing.TypedDict):
    """The file's content."""

    since: int
    saved: int
    closed: bool
    keys: dict[str, dict[str, int]]
    counted: dict[str, typing.Any]


def table(reply: str, now: float) -> dict[str, Use] | None:
    """The rows of HAProxy's answer; None where its configuration has no such table.

    A row's time to live is set when a request begins, and by nothing else.
    """
    if reply.startswith(NO_TABLE):
        return None
    if not reply.startswith("# table:"):
        raise ValueError(f"HAProxy answered {reply.strip()[:80]!r} to 'show table {TABLE}'")
    return {
        key: Use(int(now - EXPIRE + int(left_ms) / 1000), int(requests))
        for key, left_ms, requests in ROW.findall(reply)
    }


def merged(before: Document | None, current: Process, former: typing.Iterable[dict[str, Use]], now: int) -> Document:
    """What is known with the tables of the running processes.

    Args:
        before: what the file says; None where there is none.
        current: the process that takes connections.
        former: the tables of processes that a reload left behind. Their requests are in the file, or never will be, so
            only the times count.
        now: this moment.
    """
    if before is None or not follows(before, current):
        # What an unknown process before this one saw is lost.
        since, keys, counted = current.started, {}, {}
    else:
        since = before["since"]
        keys = {key: dict(row) for key, row in before["keys"].items()}
        counted = before["counted"]["requests"] if before["counted"].get("pid") == current.pid else {}
        if now - max(before["saved"], current.started) > EXPIRE:
            since = max(since, now - EXPIRE)
    for key, use in current.uses.items():
        row = keys.setdefault(key, {"last_used": 0, "requests": 0})
        row["last_used"] = max(row["last_used"], use.last_used)
        # Fewer than were counted: the row had expired in between and began anew.
        row["requests"] += use.requests - (counted.get(key, 0) if use.requests >= counted.get(key, 0) else 0)
    for uses in former:
        for key, use in uses.items():
            row = keys.setdefault(key, {"last_used": 0, "requests": 1})
            row["last_used"] = max(row["last_used"], use.last_used)
    return {
        "since": since,
        "saved": now,
        "closed": False,
        # An older time need not be the last one.
        "keys": {key: row for key, row in sorted(keys.items()) if row["last_used"] >= since},
        "counted": {"pid": current.pid, "requests": {key: use.requests for key, use in sorted(current.uses.items())}},
    }


def follows(before: Document, current: Process) -> bool:
    """Whether no process was between the last save and this one."""
    return before["counted"].get("pid") == current.pid or current.started <= before["saved"] + START_SECONDS


def begun(before: Document | None, now: int) -> Document:
    """What is known when HAProxy starts: all, where the process before was saved when it stopped."""
    if before is None or not before["closed"]:
        return {"since": now, "saved": now, "closed": False, "keys": {}, "counted": {}}
    return {**before, "saved": now, "closed": False, "counted": {}}


def parsed(text: str) -> Document:
    """The file's content, checked."""
    found = json.loads(text)
    return {
        "since": int(found["since"]),
        "saved": int(found["saved"]),
        "closed": bool(found["closed"]),
        "keys": {
            str(key): {"last_used": int(row["last_used"]), "requests": int(row["requests"])}
            for key, row in found["keys"].items()
        },
        "counted": {"pid": int(found["counted"]["pid"]), "requests": dict(found["counted"]["requests"])}
        if found["counted"]
        else {},
    }


def read(path: str) -> Document | None:
    try:
        with open(path, encoding="utf-8") as file:
            return parsed(file.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{path} cannot be read, so the keys' usage begins anew: {error!r}", file=sys.stderr)
        return None


def write(path: str, document: Document) -> None:
    # HAProxy's user owns the directory: a name that nobody can have put there.
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def ask(path: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ASK_SECONDS)
        connection.connect(path)
        connection.sendall(f"{command}\n".encode())
        connection.shutdown(socket.SHUT_WR)
        chunks: list[bytes] = []
        while True:
            chunk = connection.recv(65536)
            if not chunk:
                return b"".join(chunks).decode()
            chunks.append(chunk)


def current_process(path: str) -> Process | None:
    """The process behind HAProxy's socket; None where it has no such table."""
    info = dict(line.partition(": ")[::2] for line in ask(path, "show info").splitlines())
    uses = table(ask(path, f"show table {TABLE}"), time.time())
    if uses is None:
        return None
    # HAProxy counts whole seconds; a request of its first one has to be later than this.
    return Process(int(info["Pid"]), int(time.time()) - int(info["Uptime_sec"]) - 1, uses)


def former_tables(path: str) -> list[dict[str, Use]]:
    """The tables of the processes that a reload left behind."""
    found = []
    try:
        old = ask(path, "show proc").partition("# old workers")[2].partition("# programs")[0]
        for pid in OLD_WORKER.findall(old):
            reply = ask(path, f"@!{pid} show table {TABLE}")
            # Another answer: it has just ended.
            if reply.startswith("# table:"):
                found.append(table(reply, time.time()) or {})
    except OSError as error:
        print(f"{path} does not answer, so former processes are not seen: {error}", file=sys.stderr)
    return found


def shown(arguments: argparse.Namespace) -> dict[str, typing.Any]:
    """File and tables together; since is None where nothing is known."""
    before = read(arguments.file)
    known = before if before and before["closed"] else None
    try:
        current = current_process(arguments.socket)
        known = merged(before, current, former_tables(arguments.master_socket), int(time.time())) if current else None
    except (FileNotFoundError, ConnectionRefusedError):
        # It does not run: the file is all there is.
        pass
    return {"since": known["since"] if known else None, "keys": known["keys"] if known else {}}


def save(arguments: argparse.Namespace) -> None:
    """Bring the file up to date."""
    now = int(time.time())
    before = read(arguments.file)
    if arguments.event == "start":
        write(arguments.file, begun(before, now))
        return
    current = current_process(arguments.socket)
    if current:
        document = merged(before, current, former_tables(arguments.master_socket), now)
        write(arguments.file, {**document, "closed": arguments.event == "stop"})


def give_up(_number: int, _frame: object) -> None:
    raise TimeoutError(f"it took longer than {PATIENCE} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("event", choices=["start", "reload", "stop", "show"])
    parser.add_argument("--socket", default="/run/haproxy/admin.sock")
    parser.add_argument("--master-socket", default="/run/haproxy-master.sock")
    parser.add_argument("--file", default="/run/haproxy/key_usage.json")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        if arguments.event == "show":
            print(json.dumps(shown(arguments)))
        else:
            save(arguments)
    except (OSError, ValueError, KeyError) as error:
        did = "read" if arguments.event == "show" else "saved"
        sys.exit(f"The usage of keys was not {did} ({arguments.event}, {arguments.socket}, {arguments.file}): {error}")


if __name__ == "__main__":
    main()
