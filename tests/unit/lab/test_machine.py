"""What the labs of a machine share, wherever each keeps its state."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import machine, network, state


@pytest.fixture(autouse=True)
def forwarding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of the kernel's switch, off; and name spaces that were there before."""
    switch = tmp_path / "ip_forward"
    switch.write_text("0")
    (tmp_path / "netns").mkdir()
    monkeypatch.setattr(network, "FORWARDING", switch)
    monkeypatch.setattr(network, "NAMESPACES", tmp_path / "netns")
    return switch


def test_labs_with_their_state_in_two_directories_get_ports_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = state.create("first", "10.99.0.0/24", bare=False)
    with machine.held():
        machine.note(first.bridge, first.ec2_port)
    monkeypatch.setenv("INFERENCE_FLEET_STATE", str(tmp_path / "elsewhere"))
    second = state.create("second", "10.99.1.0/24", bare=False)
    assert second.ec2_port != first.ec2_port
    assert second.balancer_port != first.balancer_port


def test_forwarding_stays_on_until_the_last_lab_of_the_machine_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forwarding: Path
) -> None:
    first = state.create("first", "10.99.0.0/24", bare=False)
    network._forward(first)
    monkeypatch.setenv("INFERENCE_FLEET_STATE", str(tmp_path / "elsewhere"))
    second = state.create("second", "10.99.1.0/24", bare=False)
    network._forward(second)
    network._restore_machine(first)
    assert forwarding.read_text() == "1"
    network._restore_machine(second)
    assert forwarding.read_text() == "0"
    assert not machine.RUN.exists()


def test_a_machine_that_forwarded_before_goes_on_doing_so(forwarding: Path) -> None:
    forwarding.write_text("1")
    lab = state.create("first", "10.99.0.0/24", bare=False)
    network._forward(lab)
    network._restore_machine(lab)
    assert forwarding.read_text() == "1"
