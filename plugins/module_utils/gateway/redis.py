# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Enough of Redis' protocol to check that a server answers and accepts the password."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import typing as t
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.net import addresses

DEFAULT_PORT = 6379
SCHEMES = ("redis", "rediss")
#: Options of an address, as LiteLLM's client library has them: a file of certificates, and what is verified.
_CA_OPTION = "ssl_ca_certs"
_CERTIFICATE_OPTION = "ssl_cert_reqs"
_NAME_OPTION = "ssl_check_hostname"
_NO = ("0", "f", "false", "n", "no")


@dataclasses.dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is, from ``redis://USER:PASSWORD@HOST:PORT/DATABASE``."""

    host: str
    port: int = DEFAULT_PORT
    user: str = ""
    password: str = dataclasses.field(default="", repr=False)
    database: int = 0
    tls: bool = False
    ca_file: str = ""
    verified: bool = True

    @property
    def place(self) -> str:
        """For messages: without the password."""
        return f"{self.host}:{self.port}"


def parse(url: str, option: str) -> RedisAddress:
    """The parts of an address.

    Args:
        url: the address.
        option: the variable with the address, for the message.

    Raises:
        FleetError: it is invalid. The message has no part of it, because any could be the password.
    """
    form = f"{option} must be redis://:PASSWORD@HOST:PORT/0, or rediss:// with TLS"
    parts, host, port = addresses.split(url, form, SCHEMES, DEFAULT_PORT)
    database = parts.path.strip("/") or "0"
    if not database.isdigit():
        raise FleetError(f"{form}. What follows the host is no number of a database.")
    options = dict(urllib.parse.parse_qsl(parts.query))
    return RedisAddress(
        host=host,
        port=port,
        user=urllib.parse.unquote(parts.username or ""),
        password=urllib.parse.unquote(parts.password or ""),
        database=int(database),
        tls=parts.scheme == "rediss",
        ca_file=options.get(_CA_OPTION, ""),
        verified=options.get(_CERTIFICATE_OPTION, "required") == "required"
        and options.get(_NAME_OPTION, "true").lower() not in _NO,
    )


def check(address: RedisAddress, option: str, timeout: float) -> str:
    """Check that the server answers, accepts the password and writes; return its version.

    Args:
        address: where it is.
        option: the variable with the address, for the message.
        timeout: seconds for each step.

    Raises:
        FleetError: it does not; with host, port, error and what to do.
    """
    try:
        with _connected(address, timeout) as connection:
            server = _Server(connection)
            if address.password:
                server.ask("AUTH", *([address.user] if address.user else []), address.password)
            if address.database:
                server.ask("SELECT", str(address.database))
            info = server.ask("INFO", "server")
            replication = server.ask("INFO", "replication")
    except _Refused as error:
        raise FleetError(
            f"Redis at {address.place} ({option}) refuses: {error}. Check the user and the password in {option}."
        ) from None
    except ssl.SSLError as error:
        raise FleetError(
            f"Redis at {address.place} ({option}) is not trusted: {error}. Give its name as its certificate has it, "
            f"and the file of its authority, if that is not public: rediss://...?{_CA_OPTION}=/etc/ssl/redis-ca.pem."
        ) from None
    except OSError as error:
        raise FleetError(
            f"Redis at {address.place} ({option}) does not answer: {_reason(error)}. Check that it runs, that it "
            "listens on that address, and that a security group or a firewall lets this host through."
        ) from None
    if _field(replication, "role") in ("slave", "replica"):
        raise FleetError(
            f"Redis at {address.place} ({option}) is a replica, which takes no writes. Give the primary's address."
        )
    return _field(info, "redis_version") or "unknown"


def _reason(error: OSError) -> str:
    # On Python 3.9 these are two classes.
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "no answer in time"
    return error.strerror or str(error) or type(error).__name__


def _connected(address: RedisAddress, timeout: float) -> socket.socket:
    plain = socket.create_connection((address.host, address.port), timeout=timeout)
    if not address.tls:
        return plain
    context = ssl.create_default_context(cafile=address.ca_file or None)
    if not address.verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=address.host)


def _field(text: str, name: str) -> str:
    found = (line.partition(":")[2] for line in text.splitlines() if line.startswith(f"{name}:"))
    return next(found, "").strip()


class _Refused(Exception):
    """The server answered with an error."""


class _Server:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file: t.IO[bytes] = connection.makefile("rb")

    def ask(self, *words: str) -> str:
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
        self._connection.sendall(b"*%d\r\n%s" % (len(words), parts))
        line = self._file.readline().rstrip(b"\r\n").decode(errors="replace")
        if line.startswith("-"):
            raise _Refused(line[1:200])
        if line.startswith("$") and line[1:].isdigit():
            text = self._file.read(int(line[1:]) + 2)
            return text[:-2].decode(errors="replace")
        if line.startswith(("+", ":")):
            return line[1:]
        # The listener there has another protocol, or has closed the connection.
        raise _Refused(f"it does not speak Redis' protocol (it said {line[:40]!r})")
