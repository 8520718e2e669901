# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""SSH host keys: those that cloud-init prints to a console, and those of a known hosts file. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

_BEGIN, _END = "BEGIN SSH HOST KEY KEYS", "END SSH HOST KEY KEYS"
_KEY = re.compile(r"\b(ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp\d+) (AAAA[A-Za-z0-9+/]+={0,2})")
_SSH_PORT = 22


def printed_keys(console: str) -> list[str]:
    """The keys that cloud-init printed last, as ``TYPE BASE64``; none where it has not, or has not finished."""
    before, end, _after = console.rpartition(_END)
    if not end:
        return []
    _older, begin, block = before.rpartition(_BEGIN)
    if not begin:
        return []
    return [f"{kind} {key}" for kind, key in _KEY.findall(block)]


def known_name(address: str, port: int) -> str:
    """The name of a host in a known hosts file."""
    return address if port == _SSH_PORT else f"[{address}]:{port}"


def keys_of(known_hosts: str, name: str) -> list[str]:
    """The keys of a host in a known hosts file, as ``TYPE BASE64``."""
    return [" ".join(line.split()[1:3]) for line in known_hosts.splitlines() if _is_of(line, name)]


def replaced(known_hosts: str, name: str, keys: list[str]) -> str:
    """The known hosts file with these keys of a host, and no others."""
    kept = [line for line in known_hosts.splitlines() if not _is_of(line, name)]
    return "\n".join([*kept, *(f"{name} {key}" for key in keys)]) + "\n"


def fingerprint(key: str) -> str:
    """A key as ``ssh-keygen -l`` shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _is_of(line: str, name: str) -> bool:
    """Whether a line is about this host alone. Lines with markers, patterns or several hosts are left alone."""
    words = line.split()
    if len(words) < 3 or words[0].startswith(("#", "@")):
        return False
    return words[0] == name or _is_hashed(words[0], name)


def _is_hashed(word: str, name: str) -> bool:
    parts = word.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
