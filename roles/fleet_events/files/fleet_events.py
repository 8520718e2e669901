"""The program of inference-fleet-events.service.

It is part of the collection that the controller uses, and runs from there. Once the collection has changed and no
playbook runs, it ends, and systemd starts the new version.

    fleet_events.py --settings FILE             works until it is stopped
    fleet_events.py --settings FILE --check     says what is wrong with queue and groups
"""

from __future__ import annotations

import argparse
import signal
import sys
import typing as t
from pathlib import Path

# …/ansible_collections/inference/fleet/roles/fleet_events/files: the link of the checkout is not to be resolved.
sys.path.insert(0, str(Path(__file__).absolute().parents[6]))

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.events.service import EventService
from ansible_collections.inference.fleet.plugins.plugin_utils.events.settings import read_settings


class _Stopped(BaseException):
    """SIGTERM: it ends a long poll, too."""


def say(line: str) -> None:
    """Write a line to the journal."""
    print(line, flush=True)


def stamps() -> dict[str, int]:
    """When the files of the collection that this process has loaded were changed."""
    found = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and (name.startswith("ansible_collections.inference.") or name == "__main__"):
            try:
                found[path] = Path(path).stat().st_mtime_ns
            except OSError:
                # An update is just under way.
                found[path] = 0
    return found


def work(service: EventService) -> None:
    def stop(_number: int, _frame: t.Any) -> None:
        raise _Stopped

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        service.run()
    except _Stopped:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("Stopping. The next start continues with what AWS says.")
        service.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="Lets hosts of Auto Scaling groups join and leave the fleet.")
    parser.add_argument("--settings", required=True)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    try:
        settings = read_settings(options.settings)
        loaded = stamps()
        service = EventService(settings, say, lambda: stamps() != loaded)
    except FleetError as error:
        print(error.message, file=sys.stderr)
        return 2
    if options.check:
        problems = service.problems()
        print("\n".join(problems), file=sys.stderr)
        return 1 if problems else 0
    work(service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
