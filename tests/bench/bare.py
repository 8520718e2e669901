"""The least that HAProxy takes for what a gateway of kind ``edge`` has it do.

A configuration that forwards, with the same buffer and the same rounds of retries, and nothing else.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import typing as t
from pathlib import Path

from tests.integration.edge.conftest import HAPROXY, eventually, free_port

ROUND = """
frontend round_{number}
    bind {bind}
    default_backend round_{number}
backend round_{number}
    option http-buffer-request
    retry-on conn-failure empty-response 503
    retries 1
    server next {server}
"""


class Bare:
    """One HAProxy.

    Attributes:
        port: where it listens.
        process: it, with one thread.
    """

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process

    def cpu_seconds(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9


@contextlib.contextmanager
def bare(server_port: int, like: Path, rounds: int) -> t.Iterator[Bare]:
    """A HAProxy in front of a port.

    Args:
        server_port: where it forwards to.
        like: a gateway's configuration, which says how large the buffer is.
        rounds: one, or two as a gateway has them.
    """
    found = re.search(r"^    tune.bufsize .*$", like.read_text(), re.MULTILINE)
    assert found
    port = free_port()
    inner = f"abns@bare-{port}"
    places = [f"127.0.0.1:{port}", *[inner] * (rounds - 1), f"127.0.0.1:{server_port}"]
    text = "\n".join(
        [
            "global",
            "    nbthread 1",
            found[0],
            "defaults",
            "    mode http",
            "    option http-no-delay",
            *[f"    timeout {name} 60s" for name in ("client", "server", "connect")],
            *[ROUND.format(number=n, bind=places[n], server=places[n + 1]) for n in range(rounds)],
        ]
    )
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "haproxy.cfg"
        config.write_text(text + "\n")
        process = subprocess.Popen([HAPROXY, "-db", "-f", str(config)], stdin=subprocess.DEVNULL)
        try:
            eventually(lambda: _listens(port, process))
            yield Bare(port, process)
        finally:
            process.kill()
            process.wait()


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    listening = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    return f"0100007F:{port:04X}" in listening
