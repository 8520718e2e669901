"""A gateway's unprotected connections are reported, with what to do."""

from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.protection import unprotected

PLAIN = {"host": "gpu-1", "address": "10.0.0.1", "port": 8000, "tls": False}
SECRET = {"name": "gw-2", "address": "10.0.0.2", "port": 4000, "tls": True}
CA = "/etc/ssl/fleet.pem"


def test_what_is_protected_is_not_named() -> None:
    redis = f"rediss://:secret@cache.example:6379/0?ssl_ca_certs={CA}"
    database = f"postgresql://a:secret@db.example/x?sslmode=verify-full&sslrootcert={CA}"
    assert unprotected([SECRET], CA, redis, database) == []
    here = {**PLAIN, "address": "127.0.0.1"}
    assert unprotected([here], "", "redis://:secret@127.0.0.1:6379/0", "postgresql://a:secret@localhost/x") == []


def test_edges_that_are_not_are_named() -> None:
    [plain, unknown] = unprotected([PLAIN, {**PLAIN, "port": 8001}, SECRET], "", "", "")
    assert plain == "requests to gpu-1 are not encrypted (edge_tls_certificate there, edge_tls_ca here)"
    assert unknown == "the certificates of gw-2 are not verified (edge_tls_ca)"


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("redis://:secret@10.0.0.7:6379/0", "of Redis at 10.0.0.7:6379 the connection need not be encrypted"),
        ("rediss://:secret@10.0.0.7/0?ssl_cert_reqs=none", "of Redis at 10.0.0.7:6379 the certificate is not verified"),
        ("rediss://:secret@a/0?ssl_cert_reqs=optional", "of Redis at a:6379 the certificate is not verified"),
        ("rediss://:secret@a/0?ssl_check_hostname=False", "of Redis at a:6379 the certificate is not verified"),
        ("postgresql://a:secret@db/x", "of PostgreSQL at db:5432/x the connection need not be encrypted"),
        (
            "postgresql://a:secret@b/x?sslmode=prefer",
            "of PostgreSQL at b:5432/x the connection need not be encrypted",
        ),
        ("postgresql://a:secret@db/x?sslmode=require", "of PostgreSQL at db:5432/x the certificate is not verified"),
        ("postgresql://a:secret@db/x?sslmode=verify-ca", "of PostgreSQL at db:5432/x the certificate is not verified"),
    ],
)
def test_so_are_stores_without_their_passwords(url: str, state: str) -> None:
    redis, database = (url, "") if url.startswith("redis") else ("", url)
    [line] = unprotected([], "", redis, database)
    assert line.startswith(f"{state} (")
    assert "secret" not in line
