"""One start of an engine: runs on an inference host, so it is one file of the standard library."""

from __future__ import annotations

import http.client
import json
import subprocess
import time

LIMIT = 600
LOOK = 0.05


def health(port: int) -> int:
    """The status of an engine's own port; 0 where it has none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def start(unit: str, port: int) -> None:
    """Start a unit; print when it was started, when it served, and its journal in between."""
    began = time.time()
    subprocess.run(["systemctl", "start", unit], check=True)
    while health(port) != 200:
        if time.time() - began > LIMIT:
            raise SystemExit(f"{unit} does not serve after {LIMIT} s")
        time.sleep(LOOK)
    ended = time.time()
    words = ["--unit", unit, "--since", f"@{int(began)}", "--output", "json", "--output-fields", "MESSAGE"]
    journal = subprocess.run(["journalctl", *words], check=True, stdout=subprocess.PIPE, text=True).stdout
    print(json.dumps({"began": began, "ended": ended, "journal": journal}))
