# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the start of an instance waits for, as a file in the instance's run directory.

The programs of a unit write it, modules read it; hosts have a copy of this file, which those programs import. It names
the invocation of the unit and the process that waits, so that a file which a killed process left behind is no wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import typing as t

FORMAT = 1
NAME = "waiting.json"

#: What is waited for.
GPU_HELD = "gpu_held"
GPU_LOST = "gpu_lost"
GPU_UNKNOWN = "gpu_unknown"
PORT_HELD = "port_held"
ADDRESS_MISSING = "address_missing"
MODEL_MISSING = "model_missing"
NODES_MISSING = "nodes_missing"
RELEASE_DIFFERS = "release_differs"


class Waiting(t.NamedTuple):
    """A wait that goes on.

    Attributes:
        kind: one of the constants above.
        what: the same for a person, with names and figures.
        since: Unix time from which on it has been this.
    """

    kind: str
    what: str
    since: float


class UnreadableError(ValueError):
    """The file is there, and this code cannot read it."""


def announce(directory: str, wait: Waiting) -> None:
    """Write down what is waited for, in place of what was before.

    Args:
        directory: the unit's runtime directory. It is the engines': a name that they could foresee might be a link.
        wait: what is waited for.
    """
    document = {
        "format": FORMAT,
        "invocation": os.environ.get("INVOCATION_ID", ""),
        "pid": os.getpid(),
        **wait._asdict(),
    }
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{NAME}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, 0o644)
        json.dump(document, file)
    os.replace(temporary, os.path.join(directory, NAME))


def withdraw(directory: str) -> None:
    """The wait is over."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, NAME))


def read(directory: str, invocation: str) -> Waiting | None:
    """What an instance waits for; None where it waits for nothing, or what waited is gone.

    Args:
        directory: the unit's runtime directory.
        invocation: systemd's name of the unit's present start.

    Raises:
        UnreadableError: the file is of a newer version, or is none of these.
    """
    path = os.path.join(directory, NAME)
    try:
        # Not followed and not waited for, should an engine have laid a link or a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        text = file.read()
    try:
        document = json.loads(text)
        found = int(document["format"])
        if found > FORMAT:
            raise UnreadableError(
                f"{path} has format {found}, and this version of inference.fleet reads format {FORMAT}"
            )
        if document["invocation"] != invocation or not os.path.exists(f"/proc/{int(document['pid'])}"):
            return None
        return Waiting(str(document["kind"]), str(document["what"]), float(document["since"]))
    except UnreadableError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableError(f"{path} does not say what the start waits for ({error!r})") from error
