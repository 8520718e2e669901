"""The server of a monitoring host's status page."""

from __future__ import annotations

import os
import re
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, Reply
from ansible_collections.inference.fleet.plugins.plugin_utils.status.page import AGE_MARK, FleetReading, render_status
from ansible_collections.inference.fleet.plugins.plugin_utils.status.server import StatusServer

Ask = t.Callable[..., Reply]


@pytest.fixture
def ask(tmp_path: Path) -> t.Iterator[Ask]:
    """Asks a server of ``status.html``."""
    with StatusServer(str(tmp_path / "status.html"), 0, 90) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = HttpClient(f"http://127.0.0.1:{server.server_port}", timeout=10)
        yield lambda path="/", method="GET": client.send(method, path, {})
        server.shutdown()


def write(path: Path, age: float = 0) -> str:
    text = render_status(FleetReading(time.time(), [], renewed=30)).text
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return text


def test_the_page_says_how_old_it_is(ask: Ask, tmp_path: Path) -> None:
    text = write(tmp_path / "status.html", 40)
    assert text.count(AGE_MARK) == 1
    for path in ("/", "/status.html", "/?x"):
        reply = ask(path)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert reply.headers["cache-control"] == "no-store"
        assert " · written 4" in reply.text()
        assert AGE_MARK not in reply.text()
    # A page that was written since is the next answer.
    write(tmp_path / "status.html")
    assert " · written 4" not in ask().text()


@pytest.mark.parametrize("age", [0, 0.4, 1, 5, 9.6, 60, 89])
def test_the_age_is_in_whole_seconds(ask: Ask, tmp_path: Path, age: float) -> None:
    write(tmp_path / "status.html", age)
    assert re.search(r" · written [0-9]+ s ago", ask().text())


def test_a_page_that_is_not_renewed_says_what_to_do(ask: Ask, tmp_path: Path) -> None:
    write(tmp_path / "status.html", 7300)
    assert '<b class="bad">2 h 01 min old, and not renewed: systemctl status inference-status.timer' in ask().text()


def test_there_may_be_no_page_yet(ask: Ask) -> None:
    reply = ask()
    assert (reply.status, "There is no page yet" in reply.text()) == (503, True)


def test_nothing_else_is_served(ask: Ask, tmp_path: Path) -> None:
    write(tmp_path / "status.html")
    (tmp_path / "other").write_text("secret")
    assert [ask(path).status for path in ("/other", "/../etc/passwd")] == [404] * 2
    assert ask(method="POST").status == 501
    head = ask(method="HEAD")
    assert (head.status, head.body) == (200, b"")
