# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the key between the edge and the engines of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_key
version_added: 0.1.0
author:
  - inference.fleet contributors
short_description: Make the key that a host's edge shows to its engines
description:
  - Makes a random key on the host, where it stays. The edge puts it on each request, so that no process on the host can
    walk past the edge by talking to an engine's loopback port.
  - The key is never returned; its fingerprint is.
attributes:
  check_mode:
    support: full
    description: Says whether a key would be made.
  diff_mode:
    support: none
    description: A secret has no diff.
options:
  path:
    description: The file, readable by root only, with the one line C(ENGINE_API_KEY=…) that EnvironmentFile= wants.
    type: path
    default: /etc/inference/engine_key.env
"""

EXAMPLES = r"""
- name: Make the engines' key
  inference.fleet.engine_key:
"""

RETURN = r"""
fingerprint:
  description: The first characters of the key's SHA-256; empty in check mode when there is no key yet.
  returned: success
  type: str
  sample: sk-…1f0c9a2e
"""

import os
import secrets
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils._files import read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils._keys import fingerprint

NAME = "ENGINE_API_KEY"


def main() -> None:
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "default": "/etc/inference/engine_key.env"}},
        supports_check_mode=True,
    )
    path = module.params["path"]
    name, _, key = (read_text(path) or "").strip().partition("=")
    usable = name == NAME and key.startswith("sk-") and len(key) > 40
    private = usable and stat.S_IMODE(os.stat(path).st_mode) == 0o600
    if not private and not module.check_mode:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        # A key that others could read is no secret any more: it is replaced, not merely hidden.
        key = f"sk-{secrets.token_urlsafe(32)}"
        write_atomically(path, f"{NAME}={key}\n", mode=0o600)
    module.exit_json(changed=not private, fingerprint=fingerprint(key) if key else "")


if __name__ == "__main__":
    main()
