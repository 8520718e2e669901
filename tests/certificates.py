"""Certificates for tests only."""

from __future__ import annotations

import subprocess
from pathlib import Path


def certificate(directory: Path, name: str = "IP:127.0.0.1") -> Path:
    """Create a self-signed certificate and its key, in one file and in crt.pem and key.pem.

    Args:
        directory: of the files.
        name: in openssl's form, DNS:NAME or IP:ADDRESS.
    """
    directory.mkdir(exist_ok=True)
    both, key, crt = (directory / file for file in ("edge.pem", "key.pem", "crt.pem"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=edge", "-addext", f"subjectAltName={name}", "-keyout", str(key), "-out", str(crt)),
        ],
        check=True,
        capture_output=True,
    )
    both.write_text(crt.read_text() + key.read_text())
    return both
