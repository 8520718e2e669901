# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""When certificates expire, from their bytes. Pure.

Python's own parser of certificates is private to module ssl, which costs a short program more than all of its own work.
"""

from __future__ import annotations

import binascii
import calendar
import itertools
import re
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

_PEM = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----(.+?)-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL)
_SEQUENCE = 0x30
_VERSION = 0xA0
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18


def first_expiry(pem: bytes, path: str) -> int:
    """The Unix time at which the first of a file's certificates expires.

    Raises:
        FleetError: there is none, or one that cannot be read.
    """
    found = _PEM.findall(pem)
    if not found:
        raise FleetError(f"{path} has no certificate in PEM form.")
    try:
        return min(_not_after(binascii.a2b_base64(body)) for body in found)
    except (IndexError, ValueError) as error:
        raise FleetError(f"{path} has a certificate that cannot be read ({error}).") from error


def _not_after(der: bytes) -> int:
    """RFC 5280: Certificate, TBSCertificate: version, serialNumber, signature, issuer, validity (from, until)."""
    fields = _elements(_only(_SEQUENCE, _only(_SEQUENCE, der)))
    tag, content = next(fields)
    for _field in range(3 + (tag == _VERSION)):
        tag, content = next(fields)
    _from, (kind, until) = itertools.islice(_elements(_expected(_SEQUENCE, tag, content)), 2)
    text = until.decode("ascii")
    if kind == _UTC_TIME:
        # RFC 5280, 4.1.2.5.1: from 50 on it is the last century.
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError(f"a time of kind {kind}")
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


def _only(wanted: int, data: bytes) -> bytes:
    """The content of the first element."""
    tag, content = next(_elements(data))
    return _expected(wanted, tag, content)


def _expected(wanted: int, tag: int, content: bytes) -> bytes:
    if tag != wanted:
        raise ValueError(f"tag {tag} in place of {wanted}")
    return content


def _elements(data: bytes) -> t.Iterator[tuple[int, bytes]]:
    """Tags and contents, one after the other."""
    at = 0
    while True:
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("it is cut off")
        yield tag, data[at : at + length]
        at += length
