"""The program of a monitoring host's status page, as the host runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.status.program import pack_status_program

from tests.pages import Reader, check_page


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "status.pyz"
    path.write_bytes(pack_status_program())
    return path


def write(program: Path, targets: Path) -> tuple[Reader, str]:
    """The page without a Prometheus, and what the journal gets."""
    page = program.with_name("status.html")
    options = ["--prometheus=http://127.0.0.1:1", f"--targets={targets}", "--host=watch-1", f"--page={page}"]
    done = subprocess.run(
        [sys.executable, "-I", str(program), "write", *options], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return check_page(page.read_text()), done.stderr


def test_equal_sources_make_equal_programs(program: Path) -> None:
    assert pack_status_program() == program.read_bytes()


def test_a_prometheus_that_does_not_answer_is_the_page(program: Path, tmp_path: Path) -> None:
    hosts = [{"targets": ["x"], "labels": {"host": f"gpu-{number}", "kind": "inference"}} for number in (1, 2)]
    (tmp_path / "edge.json").write_text(json.dumps(hosts))
    page, said = write(program, tmp_path)
    assert "✕ needs attention nothing is known of 2 hosts · as of " in page.text
    reason = "Prometheus at http://127.0.0.1:1: it does not answer (connection refused: nothing listens there)"
    assert f"What needs attention ✕ {reason}: systemctl status prometheus." in page.text
    assert "gpu-1 not known gpu-2 not known" in page.text
    assert "Made by watch-1 from its Prometheus, every 30 seconds." in page.text
    # No figure stands for one that is not known.
    assert "Hosts in service" not in page.text
    assert said.startswith(reason)


@pytest.mark.parametrize("text", [None, "[", '{"gpu-1": 1}', "[{}]", "7"])
def test_a_file_of_targets_that_is_none_is_named(program: Path, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "edge.json").write_text(text)
    page, said = write(program, tmp_path)
    assert f"{tmp_path}/edge.json " in page.text
    assert f"{tmp_path}/edge.json " in said
