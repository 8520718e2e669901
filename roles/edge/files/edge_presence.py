#!/usr/bin/python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hold the edge of a host that was away, until a run has compared its keys with the key store; systemd runs this.

A key may have been retired meanwhile, and the host still has it. It serves by itself after a reboot, also an unplanned
one; not after it was stopped, or was away for longer than a limit. Without hosts that were away for longer a rotation
may go on, and no sooner (module key_rotation).

The file has
  boot     the boot in which HAProxy started last,
  started  the instance and when EC2 started it last; empty where that is unknown. A reboot does not change it,
  stopped  whether systemd was powering the machine off when it stopped this,
  why      why the edge is held; empty where it is not.
It was last modified when the host was last known to run. module edge_keys ends the hold.

start decides, before HAProxy starts; watch says that the host runs; stop says that it is being powered off.

Usage: edge_presence.py start|watch|stop [--limit SECONDS] [--file FILE] [--hold FILE] [--metadata URL]
                        [--decided FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import typing
import urllib.request

#: Seconds between two signs of life.
PERIOD = 10
#: Seconds by which a clock may be wrong at boot.
TOLERANCE = 60
#: Seconds for each answer of the instance metadata service.
PATIENCE = 2.0
#: Seconds for which an instance waits at its start for what it had before: the metadata service.
STARTING = 20.0

TITLE = "# Whether this host waits until its keys are confirmed. Written by edge_presence.py and module edge_keys.\n"
POWER_OFF = re.compile(r"\b(?:poweroff|halt)\.target\s+start\b")


class Presence(typing.TypedDict):
    """The file's content; see above."""

    boot: str
    started: str
    stopped: bool
    why: str


class PresencePaths(typing.NamedTuple):
    """Where everything is."""

    file: str
    hold: str
    metadata: str
    decided: str


def reason(before: Presence | None, seen: float, now: float, started: str, limit: float) -> str:
    """Why the keys of a host that has just booted need a confirmation; empty where they do not.

    Args:
        before: the file's content; None where there is none.
        seen: Unix time when the host was last known to run.
        now: this moment.
        started: the instance and when EC2 started it; empty where that is unknown.
        limit: the seconds for which the host may have been away.
    """
    if before is None:
        return "nothing says when it ran last"
    away = now - seen
    if away < -TOLERANCE:
        return f"its clock is {-away:.0f} seconds behind the time when it ran last"
    if away > limit:
        return f"it was away for {_span(away)}"
    if started and before["started"]:
        # This is certain, and EC2 may reboot an instance by its power button.
        return "" if started == before["started"] else "EC2 had stopped it"
    return "it was powered off" if before["stopped"] else ""


def start(paths: PresencePaths, limit: float) -> None:
    """Decide once in each boot."""
    boot = boot_id()
    why, before, started = "", None, ""
    try:
        before = read(paths.file)
        if before and before["boot"] == boot:
            mark_decided(paths, boot)
            return
        started = instance_start(paths.metadata, STARTING if before and before["started"] else PATIENCE)
        seen = os.stat(paths.file).st_mtime if before else 0.0
        why = reason(before, seen, time.time(), started, limit)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{paths.file} cannot be read ({error})"
    if why:
        print(f"The edge is held: {why}, so its keys may be old. site.yml confirms them.", file=sys.stderr)
        hold(paths.hold)
    elif before and before["why"]:
        # Another boot confirms nothing.
        why = before["why"]
    try:
        write(paths.file, {"boot": boot, "started": started, "stopped": False, "why": why})
        mark_decided(paths, boot)
    except OSError as error:
        print(f"{paths.file} cannot be written: {error}", file=sys.stderr)


def watch(paths: PresencePaths) -> None:
    """Say every few seconds that the host runs, for ever."""
    known = False
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            presence = read(paths.file)
            if presence and is_decided(paths, presence):
                if known:
                    os.utime(paths.file)
                else:
                    # Only once: stop writes, too, and this must not take it back.
                    started = presence["started"] or instance_start(paths.metadata, PATIENCE)
                    write(paths.file, {**presence, "started": started, "stopped": False})
                    known = True
        time.sleep(PERIOD)


def stop(paths: PresencePaths) -> None:
    """Remember whether the machine is being powered off."""
    command = ["systemctl", "list-jobs", "--no-legend", "--no-pager", "--plain", "--full"]
    jobs = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout
    presence = read(paths.file)
    if presence and is_decided(paths, presence) and POWER_OFF.search(jobs):
        write(paths.file, {**presence, "stopped": True})


def mark_decided(paths: PresencePaths, boot: str) -> None:
    """Say in /run, which no boot keeps, that start has decided in this boot.

    Watch and stop cannot ask the kernel: in a container systemd's sandbox shows them another boot than start sees.
    """
    replace(paths.decided, f"{boot}\n", 0o644)


def is_decided(paths: PresencePaths, presence: Presence) -> bool:
    """Whether the record is what start has decided in this boot."""
    try:
        with open(paths.decided, encoding="utf-8") as file:
            return file.read().strip() == presence["boot"]
    except FileNotFoundError:
        return False


def instance_start(metadata: str, seconds: float) -> str:
    """The instance and when EC2 started it last; empty where no metadata service says so within these seconds."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while True:
        try:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
            put = urllib.request.Request(f"{metadata}/latest/api/token", method="PUT", headers=headers)
            with opener.open(put, timeout=PATIENCE) as answer:
                token = answer.read().decode("ascii")
            address = f"{metadata}/latest/dynamic/instance-identity/document"
            get = urllib.request.Request(address, headers={"X-aws-ec2-metadata-token": token})
            with opener.open(get, timeout=PATIENCE) as answer:
                document = json.load(answer)
            return f"{document['instanceId']} {document['pendingTime']}"
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() + PATIENCE >= end:
                return ""
            time.sleep(1)


def hold(path: str) -> None:
    """Let HAProxy refuse every request, from its start on."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    replace(path, f"{TITLE}keys {moment}\n", 0o640)


def read(path: str) -> Presence | None:
    """The file's content; None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        return None
    return {
        "boot": str(document["boot"]),
        "started": str(document["started"]),
        "stopped": bool(document["stopped"]),
        "why": str(document["why"]),
    }


def write(path: str, presence: Presence) -> None:
    replace(path, json.dumps(presence) + "\n", 0o644)


def replace(path: str, text: str, mode: int) -> None:
    """Write a file that is complete or not there."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("event", choices=["start", "watch", "stop"])
    parser.add_argument("--limit", type=float, default=900)
    parser.add_argument("--file", default="/var/lib/inference/presence.json")
    parser.add_argument("--hold", default="/etc/haproxy/maps/hold.map")
    parser.add_argument("--metadata", default="http://169.254.169.254")
    parser.add_argument("--decided", default="/run/inference-presence-decided")
    arguments = parser.parse_args()
    paths = PresencePaths(arguments.file, arguments.hold, arguments.metadata, arguments.decided)
    if arguments.event == "start":
        start(paths, arguments.limit)
    elif arguments.event == "watch":
        watch(paths)
    else:
        stop(paths)


if __name__ == "__main__":
    main()
