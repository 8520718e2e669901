"""Health checks, against a real HTTP server."""

from __future__ import annotations

import socket

import pytest

from lab.aws.checks import HealthCheck, matches, run_check
from tests.unit.lab.aws.targets import Answering


def health(port: str = "traffic-port", protocol: str = "HTTP", timeout: float = 5, codes: str = "200") -> HealthCheck:
    return HealthCheck(protocol, port, "/health", timeout, codes)


@pytest.mark.parametrize(
    ("codes", "status", "expected"),
    [("200", 200, True), ("200", 204, False), ("200,204", 204, True), ("200-299", 299, True), ("200-299", 300, False)],
)
def test_matchers_are_read_as_aws_writes_them(codes: str, status: int, expected: bool) -> None:
    assert matches(codes, status) is expected


def test_a_check_asks_for_the_groups_path_on_the_targets_port() -> None:
    with Answering() as target:
        assert run_check(health(), target.address, target.port).passed
        assert target.paths == ["/health"]


def test_a_check_on_a_port_of_the_groups_own() -> None:
    with Answering() as target:
        assert run_check(health(port=str(target.port)), target.address, 9).passed


def test_another_status_is_named() -> None:
    with Answering(status=503) as target:
        result = run_check(health(), target.address, target.port)
        assert (result.passed, result.reason) == (False, "Target.ResponseCodeMismatch")
        assert result.description == "Health checks failed with these codes: [503]"
        assert run_check(health(codes="200-599"), target.address, target.port).passed
        assert run_check(health(protocol="TCP"), target.address, target.port).passed


def test_a_closed_port_and_a_silent_one_have_reasons() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert run_check(health(timeout=0.1), "127.0.0.1", port).reason == "Target.Timeout"
    assert run_check(health(), "127.0.0.1", port).reason == "Target.FailedHealthChecks"
