# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""When an edge's keys were used last, as its program key_usage.py says it. Pure."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import keys, times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: Where role edge puts the program, and where that keeps what it knows.
PROGRAM_PATH = "/etc/haproxy/key_usage.py"
FILE_PATH = "/run/haproxy/key_usage.json"


def parse(answer: str) -> dict[str, t.Any]:
    """What the program printed, for a person.

    Returns:
        ``since``, from when on usage is known, in UTC (None where it is not); ``usage``, a list of ``fingerprint``,
        ``last_used`` and ``requests``.

    Raises:
        FleetError: it is no such answer.
    """
    try:
        found = json.loads(answer)
        return {
            "since": None if found["since"] is None else times.moment(found["since"]),
            "usage": [
                {
                    # The edge knows the first digits of the hash only, which are all that a fingerprint has.
                    "fingerprint": keys.hash_fingerprint(start_of_hash),
                    "last_used": times.moment(use["last_used"]),
                    "requests": int(use["requests"]),
                }
                for start_of_hash, use in sorted(found["keys"].items())
            ],
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetError(
            f"The edge's program key_usage.py answered {answer[:80]!r}, which is not understood "
            f"({type(error).__name__}). Run playbooks/site.yml, which installs the one that belongs to this version."
        ) from error
