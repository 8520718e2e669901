"""What the labs of a machine share, wherever each keeps its state: their ports, forwarding, name spaces.

In a directory that ends with the machine's run, like the networks that it is about.
"""

from __future__ import annotations

import contextlib
import json
import typing as t
from pathlib import Path

from lab import files

RUN = Path("/run/inference-fleet")


@contextlib.contextmanager
def held() -> t.Iterator[None]:
    """Hold the machine's lock. The directory goes with the last lab."""
    with files.locked(RUN / ".lock"):
        yield
        if not any(path.name != ".lock" for path in RUN.iterdir()):
            (RUN / ".lock").unlink()
            with contextlib.suppress(OSError):
                RUN.rmdir()


def note(bridge: str, ec2_port: int) -> None:
    """Record a lab by its bridge, whose name no other lab of the machine can have. Needs ``held``."""
    files.write(_record(bridge), json.dumps({"ec2_port": ec2_port}))


def forget(bridge: str) -> None:
    _record(bridge).unlink(missing_ok=True)


def ec2_ports(bridge: str) -> set[int]:
    """The EC2 ports of the labs other than ``bridge``'s."""
    return {int(json.loads(path.read_text(encoding="ascii"))["ec2_port"]) for path in _others(bridge)}


def alone(bridge: str) -> bool:
    """Whether the machine has no lab other than ``bridge``'s."""
    return not _others(bridge)


def mark(name: str) -> None:
    """Record how the machine was before its first lab."""
    files.write(RUN / name, "")


def unmark(name: str) -> bool:
    """Whether ``mark`` recorded it; the record goes."""
    marked = (RUN / name).exists()
    (RUN / name).unlink(missing_ok=True)
    return marked


def _record(bridge: str) -> Path:
    return RUN / f"{bridge}.json"


def _others(bridge: str) -> list[Path]:
    return [path for path in RUN.glob("*.json") if path != _record(bridge)]
