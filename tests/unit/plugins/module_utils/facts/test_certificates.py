from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.facts.certificates import first_expiry

from tests.certificates import certificate

DAY = 86400


def issued(directory: Path, days: int) -> bytes:
    """A certificate for so many days; beyond 2049 its time has another form."""
    key, crt = directory / f"{days}.key", directory / f"{days}.crt"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=edge", "-days", str(days)]
    subprocess.run(["openssl", *words, "-keyout", key, "-out", crt], check=True, capture_output=True)
    return crt.read_bytes()


@pytest.mark.parametrize("days", [1, 90, 12_000])
def test_the_expiry_is_openssls(tmp_path: Path, days: int) -> None:
    pem = issued(tmp_path, days)
    assert abs(first_expiry(pem, "edge.pem") - (time.time() + days * DAY)) < 120


def test_the_first_one_of_a_chain_decides(tmp_path: Path) -> None:
    short, long = issued(tmp_path, 3), issued(tmp_path, 300)
    assert first_expiry(long + short, "edge.pem") == first_expiry(short, "edge.pem")


def test_the_key_beside_it_is_not_read(tmp_path: Path) -> None:
    both = certificate(tmp_path / "edge").read_bytes()
    assert b"PRIVATE KEY" in both
    assert first_expiry(both, "edge.pem") > time.time()


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    pem = issued(tmp_path, 1)
    lines = pem.splitlines(keepends=True)
    half = b"".join([*lines[:3], lines[-1]])
    for broken in (half, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(FleetError, match=r"edge\.pem has a certificate that cannot be read"):
            first_expiry(broken, "edge.pem")
    for none in (b"", b"nothing", lines[0]):
        with pytest.raises(FleetError, match=r"edge\.pem has no certificate"):
            first_expiry(none, "edge.pem")
