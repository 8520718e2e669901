# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The last use of an edge's keys, from the output of its program key_usage.py. Pure."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import keys, times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: The program that role edge installs, and its state file.
PROGRAM_PATH = "/etc/haproxy/key_usage.py"
FILE_PATH = "/run/haproxy/key_usage.json"


def parse(answer: str) -> dict[str, t.Any]:
    """The program's output, for a person.

    Returns:
        ``since``, the start of the known usage, in UTC (None where unknown); ``usage``, a list of ``fingerprint``,
        ``last_used`` and ``requests``.

    Raises:
        FleetError: the output is invalid.
    """
    try:
        found = json.loads(answer)
        return {
            "since": None if found["since"] is None else times.moment(found["since"]),
            "usage": [
                {
                    # The edge knows only the first digits of the hash, which are all that a fingerprint has.
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
