# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Starting and stopping the traffic driver, which outlives the task that starts it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import processes
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, read_text
from ansible_collections.inference.fleet.plugins.module_utils.net.http import parse_url
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.config import pid_path, read_config

_DRIVER = f"{__name__.rpartition('.')[0]}.driver"
_LIBRARY = "aiohttp"
_POLL_SECONDS = 0.05
# Beyond the driver's own timeouts for its first answer, and for the streams in flight at the end.
_SLACK_SECONDS = 15.0


def log_path(output: str) -> str:
    """The path of the driver's log."""
    return f"{output}.log"


def running(output: str) -> int | None:
    """The pid of the driver that writes ``output``, None where there is none."""
    record = read_json(pid_path(output))
    try:
        pid, started = int(record["pid"]), record["started"]
    except (KeyError, TypeError, ValueError):
        return None
    return pid if processes.runs(pid, started) else None


def report(output: str) -> dict[str, t.Any] | None:
    """The last report, None where there is none."""
    document = read_json(output)
    return document if isinstance(document, dict) else None


def start(config: dict[str, t.Any]) -> int:
    """Start the driver and wait for its first answer.

    Args:
        config: for Config.

    Returns:
        Its pid.

    Raises:
        FleetError: it cannot be started, or its first request failed; then it has ended.
    """
    output = config["output"]
    if importlib.util.find_spec(_LIBRARY) is None:
        pip = f"{sys.executable} -m pip install"
        raise FleetError(
            f"The traffic driver needs the Python library {_LIBRARY}, which {sys.executable} does not have. Install "
            f"it: `{pip} {_LIBRARY}`, or in a checkout `{pip} --require-hashes -r requirements/controller.txt`."
        )
    # Here, where a failure can be shown.
    read = read_config(json.dumps(config))
    parse_url(read.url)
    os.makedirs(os.path.dirname(output), exist_ok=True)
    # An earlier run's report would be mistaken for the new one's.
    for path in (output, pid_path(output)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    process = _spawn(config)
    first = _first_answer(process, output, read.timeout + _SLACK_SECONDS)
    if first["ok"]:
        return process.pid
    process.wait(_SLACK_SECONDS)
    raise FleetError(
        f"The traffic driver's first request to {config['url']} gave {first['what'].rstrip('.')}. Give the URL of a "
        "gateway or edge that serves now, with its key and model (rollout_watch_url and its like)."
    )


def stop(output: str, grace: float) -> bool:
    """Stop the driver and wait until it has exited; return whether there was one.

    Args:
        output: the report's path.
        grace: seconds that the driver gives the streams in flight.

    Raises:
        FleetError: it does not exit.
    """
    pid = running(output)
    if pid is None:
        return False
    started = processes.start_ticks(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace + _SLACK_SECONDS
    while processes.runs(pid, started):
        if time.monotonic() > deadline:
            raise FleetError(
                f"The traffic driver, process {pid}, has not ended {grace + _SLACK_SECONDS:.0f} s after SIGTERM. "
                f"{log_path(output)} may say why; `kill -9 {pid}` ends it, and the report keeps what it has."
            )
        time.sleep(_POLL_SECONDS)
    return True


def _first_answer(process: subprocess.Popen[bytes], output: str, seconds: float) -> dict[str, t.Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        document = report(output)
        if document and document["first_answer"]:
            return t.cast("dict[str, t.Any]", document["first_answer"])
        if ended:
            said = (read_text(log_path(output)) or "").strip()[-500:] or "no word in its log"
            raise FleetError(f"The traffic driver ended with status {process.returncode} as it started: {said}")
        time.sleep(_POLL_SECONDS)
    process.kill()
    process.wait()
    raise FleetError(f"The traffic driver had no first answer within {seconds:.0f} s, and was ended.")


def _spawn(config: dict[str, t.Any]) -> subprocess.Popen[bytes]:
    # Where this collection was found, an installed one or a checkout.
    root = __file__[: -len(f"{__name__.replace('.', os.sep)}.py")].rstrip(os.sep)
    with open(log_path(config["output"]), "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", _DRIVER],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PYTHONPATH": root},
            # A signal to the playbook's process group or terminal must not end the driver before its last report.
            start_new_session=True,
        )
    with contextlib.suppress(BrokenPipeError), t.cast("t.IO[bytes]", process.stdin) as pipe:
        pipe.write(json.dumps(config).encode())
    return process
