#!/usr/bin/python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep over HAProxy's reloads and restarts when each key was used last; systemd and module key_usage run this.

HAProxy counts in a table that ends with its process, and that a reload empties in the former process too. So reload and
stop add the table to a file right before. start says that a new process begins; show prints file and table together and
writes nothing.

The file has
  since    from when on all is known: a key that is not in it was not used since,
  keys     by the first 8 digits of the key's SHA-256, last_used (when its last request began) and requests,
  saved    when it was written,
  closed   whether HAProxy was stopped then,
  counted  what of the table of process pid is in keys, for where a reload fails and that process goes on.
Times are Unix times.

Not known is what the former process does after a reload: the requests that it still takes, at most one on each
connection that was open. Their time is seen while they are in flight.

Usage: key_usage.py start|reload|stop|show [--socket FILE] [--master-socket FILE] [--file FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
import typing

# Python's isolated mode leaves out this directory, which role edge has put the module in; a start of HAProxy writes
# nothing beside it.
sys.dont_write_bytecode = True
sys.path.append(os.path.dirname(os.path.abspath(__file__)))

import haproxy_socket  # noqa: E402

TABLE = "key_usage"
#: Seconds for which the table keeps an unused key: its "expire" in HAProxy's configuration.
EXPIRE = 24 * 86400
#: The most seconds between start or reload and the process that comes of it.
BIRTH = 90
#: Seconds after which this gives up, because HAProxy's reload or stop waits for it; and for each answer.
PATIENCE = 20
ASK_PATIENCE = 5.0

A_TABLE, NO_TABLE = "# table:", "No such table"
ROW = re.compile(r"^0x\S+ key=([0-9a-f]{8}) .*?\bexp=(\d+)\b.*? http_req_cnt=(\d+)$", re.MULTILINE)


class Use(typing.TypedDict):
    """How a key was used."""

    last_used: int
    requests: int


class Counted(typing.TypedDict):
    """How many of a process's requests are in the file."""

    pid: int
    requests: dict[str, int]


class Document(typing.TypedDict):
    """The file's content; see above."""

    since: int
    saved: int
    closed: bool
    keys: dict[str, Use]
    counted: Counted


Uses = dict[str, Use]


class Process(typing.NamedTuple):
    """The process that takes connections, and its table."""

    pid: int
    started: int
    uses: Uses


def parsed_table(reply: str, now: float) -> Uses:
    """The table in HAProxy's answer. What is left of a row's time is set when a request begins, and by nothing else."""
    return {
        key: {"last_used": int(now - EXPIRE + int(left_ms) / 1000), "requests": int(requests)}
        for key, left_ms, requests in ROW.findall(reply)
    }


def begun(before: Document | None, now: int) -> Document:
    """What is known when a process starts: all, where the one before was saved when it stopped."""
    known = before if before and before["closed"] else None
    return {
        "since": known["since"] if known else now,
        "saved": now,
        "closed": False,
        "keys": known["keys"] if known else {},
        "counted": {"pid": 0, "requests": {}},
    }


def merged(before: Document | None, current: Process, former: list[Uses], now: int, closed: bool = False) -> Document:
    """What is known with the tables of the running processes.

    Args:
        before: what the file has; None where there is none.
        current: the process that takes connections.
        former: the tables of those that a reload left behind. Of these only the times are new.
        now: this moment.
        closed: whether HAProxy stops now.
    """
    since = seen = current.started
    keys: Uses = {}
    counted: dict[str, int] = {}
    if before and follows(before, current):
        since, seen = before["since"], max(before["saved"], current.started)
        keys = {key: {**use} for key, use in before["keys"].items()}
        if before["counted"]["pid"] == current.pid:
            counted = before["counted"]["requests"]
    if now - seen > EXPIRE:
        # Rows of keys that were used before that may have expired.
        since = max(since, now - EXPIRE)
    for key, use in current.uses.items():
        known = keys.setdefault(key, {"last_used": 0, "requests": 0})
        known["last_used"] = max(known["last_used"], use["last_used"])
        # Fewer than were counted: the row had expired, and began again.
        again = counted.get(key, 0) if use["requests"] >= counted.get(key, 0) else 0
        known["requests"] += use["requests"] - again
    for key, use in ((key, use) for uses in former for key, use in uses.items()):
        known = keys.setdefault(key, {"last_used": 0, "requests": 1})
        known["last_used"] = max(known["last_used"], use["last_used"])
    return {
        "since": since,
        "saved": now,
        "closed": closed,
        # A time before that need not be the last one.
        "keys": {key: keys[key] for key in sorted(keys) if keys[key]["last_used"] >= since},
        "counted": {"pid": current.pid, "requests": {key: use["requests"] for key, use in current.uses.items()}},
    }


def follows(before: Document, current: Process) -> bool:
    """Whether nothing served between the last save and this process."""
    return before["counted"]["pid"] == current.pid or current.started <= before["saved"] + BIRTH


def parsed(text: str) -> Document:
    """The file's content, checked."""
    found = json.loads(text)
    return {
        "since": int(found["since"]),
        "saved": int(found["saved"]),
        "closed": bool(found["closed"]),
        "keys": {
            str(key): {"last_used": int(use["last_used"]), "requests": int(use["requests"])}
            for key, use in found["keys"].items()
        },
        "counted": {
            "pid": int(found["counted"]["pid"]),
            "requests": {str(key): int(count) for key, count in found["counted"]["requests"].items()},
        },
    }


def read(path: str) -> Document | None:
    try:
        with open(path, encoding="utf-8") as file:
            return parsed(file.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{path} cannot be read, so the keys' usage is counted from zero: {error!r}", file=sys.stderr)
        return None


def write(path: str, document: Document) -> None:
    # HAProxy's user owns the directory: under a name that it cannot have put there.
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def ask(path: str, command: str) -> str:
    return haproxy_socket.ask(path, command, ASK_PATIENCE)


def current_process(path: str) -> Process | None:
    """The process behind HAProxy's socket; None where its configuration has no such table."""
    answered = ask(path, "show info")
    info = dict(line.partition(": ")[::2] for line in answered.splitlines())
    reply = ask(path, f"show table {TABLE}")
    if reply.startswith(NO_TABLE):
        return None
    if not reply.startswith(A_TABLE) or not {"Pid", "Uptime_sec"} <= set(info):
        wrong = answered if reply.startswith(A_TABLE) else reply
        raise ValueError(f"HAProxy answered {wrong.strip()[:80]!r}")
    now = time.time()
    # It knows its age in whole seconds, and its first request has to be later than this.
    return Process(int(info["Pid"]), int(now) - int(info["Uptime_sec"]) - 1, parsed_table(reply, now))


def former_tables(path: str) -> list[Uses]:
    """The tables of the processes that a reload left to end their streams."""
    replies = []
    try:
        for pid in haproxy_socket.former_workers(ask(path, "show proc")):
            replies.append(ask(path, f"@!{pid} show table {TABLE}"))
    except OSError as error:
        print(f"{path} does not answer, so former processes are not seen: {error}", file=sys.stderr)
    # One that has just ended answers something else.
    return [parsed_table(reply, time.time()) for reply in replies if reply.startswith(A_TABLE)]


def shown(arguments: argparse.Namespace) -> dict[str, typing.Any]:
    """File and tables together; since is None where nothing is known."""
    before, known = read(arguments.file), None
    try:
        current = current_process(arguments.socket)
        if current:
            known = merged(before, current, former_tables(arguments.master_socket), int(time.time()))
    except (FileNotFoundError, ConnectionRefusedError):
        # It does not run. What it did until then is known if that was saved.
        known = before if before and before["closed"] else None
    return {"since": known["since"] if known else None, "keys": known["keys"] if known else {}}


def save(arguments: argparse.Namespace) -> None:
    """Bring the file up to date."""
    before, now = read(arguments.file), int(time.time())
    if arguments.event == "start":
        write(arguments.file, begun(before, now))
        return
    current = current_process(arguments.socket)
    if current is None:
        # Nothing was counted until now.
        write(arguments.file, begun(None, now))
        return
    former = former_tables(arguments.master_socket)
    write(arguments.file, merged(before, current, former, now, closed=arguments.event == "stop"))


def give_up(_number: int, _frame: object) -> None:
    raise TimeoutError(f"it took longer than {PATIENCE} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("event", choices=["start", "reload", "stop", "show"])
    parser.add_argument("--socket", default=haproxy_socket.SOCKET)
    parser.add_argument("--master-socket", default=haproxy_socket.MASTER_SOCKET)
    parser.add_argument("--file", default="/run/haproxy/key_usage.json")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        if arguments.event == "show":
            print(json.dumps(shown(arguments)))
        else:
            save(arguments)
    except (OSError, ValueError) as error:
        done = "read" if arguments.event == "show" else "saved"
        sys.exit(f"The keys' usage was not {done} ({arguments.socket}, {arguments.file}): {error}")
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()
