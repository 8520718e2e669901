# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a client, from the rows of module_utils/clients/schema.py."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import limits


def _documentation(option: str, own: dict[str, dict[str, t.Any]]) -> str:
    # JSON is YAML, too.
    return json.dumps({"options": {option: {"suboptions": {**own, **limits.documentation()}}}})


class ModuleDocFragment:
    """Added to a module's documentation by C(extends_documentation_fragment)."""

    #: Option C(clients): the clients' limits as a user sets them.
    DOCUMENTATION: t.ClassVar[str] = _documentation(
        "clients",
        {
            "name": {
                "description": ["Lower case letters, digits, dots, dashes and underscores."],
                "type": "str",
                "required": True,
            }
        },
    )

    #: Option C(keys): the hashes of keys, with their clients' limits.
    HASHES: t.ClassVar[str] = _documentation(
        "keys",
        {
            "name": {
                "description": ["The client's name, which stands in the access log. A client may have two keys."],
                "type": "str",
                "required": True,
            },
            "sha256": {
                "description": ["The key's hash in lower case hexadecimal. Never the key."],
                "type": "str",
                "required": True,
            },
            "slot": {
                "description": ["As the store returns it; without effect, because every live key is accepted."],
                "type": "str",
            },
        },
    )
