"""A Redis is verified by its certificate and the name in it."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gateway import redis

from tests.certificates import certificate
from tests.integration.gateway.conftest import redis_server


@pytest.fixture
def server(tmp_path: Path) -> t.Iterator[tuple[int, Path]]:
    """The port of a Redis whose certificate is for localhost, and the file of its authority."""
    certificate(tmp_path, "DNS:localhost")
    files = [str(tmp_path / file) for file in ("crt.pem", "key.pem", "crt.pem")]
    options = ["--tls-cert-file", files[0], "--tls-key-file", files[1], "--tls-ca-cert-file", files[2]]
    with redis_server(tmp_path, "--port", "0", "--tls-port", "{port}", "--tls-auth-clients", "no", *options) as port:
        yield port, tmp_path / "crt.pem"


def look(url: str) -> str:
    return redis.check(redis.parse(url, "litellm_redis_url"), "litellm_redis_url", 5)


def test_a_certificate_with_its_name_is_trusted(server: tuple[int, Path]) -> None:
    port, authority = server
    assert look(f"rediss://localhost:{port}/0?ssl_ca_certs={authority}") != "unknown"


@pytest.mark.parametrize(
    ("host", "authority", "reason"),
    [("127.0.0.1", True, "IP address mismatch"), ("localhost", False, "self-signed certificate")],
)
def test_no_other_one_is(server: tuple[int, Path], host: str, authority: bool, reason: str) -> None:
    port, file = server
    given = f"?ssl_ca_certs={file}" if authority else ""
    with pytest.raises(FleetError, match=rf"Redis at {host}:{port} .litellm_redis_url. is not trusted: .*{reason}"):
        look(f"rediss://:secret@{host}:{port}/0{given}")


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_certificate_checks_can_be_switched_off_in_the_url(server: tuple[int, Path], option: str) -> None:
    port, _ = server
    assert look(f"rediss://127.0.0.1:{port}/0?{option}") != "unknown"
