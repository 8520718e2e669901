"""The page of playbooks/status.yml, on hosts that do not answer: it is written all the same, and says so."""

from __future__ import annotations

from pathlib import Path

from tests.pages import check_page
from tests.unit.test_price_playbooks import ONE, inventory, play

__all__ = ["inventory"]


def test_hosts_that_do_not_answer_are_on_the_page_with_the_reason(inventory: Path, tmp_path: Path) -> None:
    path = tmp_path / "status.html"
    given = {"page": path, "keys_store": tmp_path / "keys.json", "status_prometheus_url": "http://127.0.0.1:1"}
    lines = play(
        inventory, "status.yml", *(word for name, value in given.items() for word in ("-e", f"{name}={value}"))
    )
    text = check_page(path.read_text()).text
    assert "0 of 4 hosts in service" in text
    assert "gpu-1 unreachable: Task failed: Data could not be sent to remote host" in text
    assert "gpu-9 stopped" in text
    assert f"{ONE:.3f}" in text
    assert "Prometheus at http://127.0.0.1:1: it does not answer" in text
    assert any("Prometheus at http://127.0.0.1:1: it does not answer" in line for line in lines)
    assert not (tmp_path / "keys.json").exists()
