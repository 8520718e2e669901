# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A PostgreSQL's address, a check that it answers, and a connection whose errors have no password."""

from __future__ import annotations

import dataclasses
import socket
import struct
import typing as t
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.net import addresses

#: The variable with the address, for messages.
OPTION = "litellm_database_url"

DEFAULT_PORT = 5432
SCHEMES = ("postgresql", "postgres")
_ENCRYPTED = ("require", "verify-ca", "verify-full")
#: A client's request for TLS, which any PostgreSQL answers with one letter.
_TLS_REQUEST = struct.pack("!ii", 8, 80877103)


@dataclasses.dataclass(frozen=True)
class PostgresAddress:
    """Where a database is, from ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``."""

    host: str
    port: int
    database: str
    url: str = dataclasses.field(repr=False)
    tls: bool = False
    verified: bool = False

    @property
    def place(self) -> str:
        """For messages: without user and password."""
        return f"{self.host}:{self.port}/{self.database}"


def parse(url: str) -> PostgresAddress:
    """The parts of an address.

    Raises:
        FleetError: it is invalid. The message has no part of it, because any could be the password.
    """
    form = f"{OPTION} must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    parts, host, port = addresses.split(url, form, SCHEMES, DEFAULT_PORT)
    database = parts.path.strip("/")
    if not database:
        raise FleetError(f"{form}. It names no database.")
    mode = dict(urllib.parse.parse_qsl(parts.query)).get("sslmode", "prefer")
    return PostgresAddress(host, port, database, url, tls=mode in _ENCRYPTED, verified=mode == "verify-full")


def look(address: PostgresAddress, timeout: float) -> None:
    """Check that a PostgreSQL answers. Whether it accepts the password shows when a client connects.

    Raises:
        FleetError: it does not; the message has host, port and error.
    """
    try:
        with socket.create_connection((address.host, address.port), timeout=timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(_TLS_REQUEST)
            answer = connection.recv(1)
    except OSError as error:
        raise FleetError(
            f"PostgreSQL at {address.place} ({OPTION}) does not answer: {error.strerror or error}."
        ) from None
    if answer not in (b"S", b"N"):
        raise FleetError(f"What answers at {address.place} ({OPTION}) is no PostgreSQL.")


def connect(address: PostgresAddress, timeout: float) -> t.Any:
    """A psycopg connection (LiteLLM's runtime has psycopg). Each statement is a transaction of its own.

    Raises:
        FleetError: it is refused; the message has host, port and error, and never the password.
    """
    try:
        import psycopg
    except ImportError:
        raise FleetError("This needs psycopg: run it with the Python of LiteLLM's runtime.") from None
    try:
        return psycopg.connect(address.url, connect_timeout=max(2, round(timeout)), autocommit=True)
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        password = urllib.parse.unquote(urllib.parse.urlsplit(address.url).password or "")
        if password:
            said = said.replace(password, "...")
        raise FleetError(f"PostgreSQL at {address.place} ({OPTION}) refuses: {said}") from None
