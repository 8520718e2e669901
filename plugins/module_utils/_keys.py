# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""API keys and what may be shown of them."""

from __future__ import annotations

import hashlib


def fingerprint(key: str) -> str:
    """What people see instead of a key: the first eight hexadecimal digits of its SHA-256."""
    return f"sk-…{hashlib.sha256(key.encode()).hexdigest()[:8]}"
