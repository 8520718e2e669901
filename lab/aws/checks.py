"""A target group's health checks: real requests to its targets."""

from __future__ import annotations

import dataclasses
import http.client
import socket

from lab.aws.targets import CheckResult


@dataclasses.dataclass(frozen=True)
class HealthCheck:
    """How a group checks its targets.

    Args:
        protocol: HTTP, or TCP for a connection alone.
        port: a number, or `traffic-port` for the target's own.
        path: of the request.
        timeout: in seconds.
        codes: the statuses that pass, as AWS writes them: `200`, `200,202`, `200-299`.
    """

    protocol: str
    port: str
    path: str
    timeout: float
    codes: str

    def port_of(self, port: int) -> int:
        return port if self.port == "traffic-port" else int(self.port)


def matches(codes: str, status: int) -> bool:
    for part in codes.split(","):
        first, _, last = part.strip().partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False


def run_check(check: HealthCheck, address: str, port: int) -> CheckResult:
    """One health check of the target at that address, whose own port is ``port``."""
    there = check.port_of(port)
    try:
        if check.protocol == "TCP":
            socket.create_connection((address, there), timeout=check.timeout).close()
            return CheckResult()
        connection = http.client.HTTPConnection(address, there, timeout=check.timeout)
        try:
            connection.request("GET", check.path, headers={"User-Agent": "ELB-HealthChecker/2.0"})
            status = connection.getresponse().status
        finally:
            connection.close()
    except TimeoutError:
        return CheckResult("Target.Timeout", "Request timed out")
    except (OSError, http.client.HTTPException):
        return CheckResult("Target.FailedHealthChecks", "Health checks failed")
    if matches(check.codes, status):
        return CheckResult()
    return CheckResult("Target.ResponseCodeMismatch", f"Health checks failed with these codes: [{status}]")
