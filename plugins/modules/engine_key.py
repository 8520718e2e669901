# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the key between the edge and the engines of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_key
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Make and renew the key that a host's edge shows to its engines
description:
  - Makes a random key on the host, where it stays. The edge adds it to each request, so that no process on the host can
    bypass the edge by using an engine's loopback port.
  - The key is never returned; its fingerprint is.
attributes:
  check_mode:
    support: full
    description: Reports whether a key would be made.
  diff_mode:
    support: none
    description: A secret has no diff.
options:
  state:
    description:
      - With V(present) there is a key that only root can read.
      - With V(renewed) the stopped instance O(instance) will start with a new key. Update the edge with
        M(inference.fleet.edge_keys) before it starts. Where other instances run, the edge keeps the old key, which the
        instance accepts, too, until each of them has been restarted.
    type: str
    choices: [present, renewed]
    default: present
  instance:
    description: With O(state=renewed), the index of the instance, which is stopped.
    type: int
  others:
    description: With O(state=renewed), the indexes of the host's other instances, running or not.
    type: list
    elements: int
    default: []
  engines:
    description:
      - With O(state=renewed), the engines of the host's instances. Where one of them accepts only one key, as SGLang
        and LiteLLM do, there is a new key only while none of the O(others) runs.
    type: list
    elements: str
    default: []
  path:
    description: The file, readable by root only, as systemd reads environment files.
    type: path
    default: /etc/inference/engine_key.env
"""

EXAMPLES = r"""
- name: Make the engines' key
  inference.fleet.engine_key:

- name: Renew it while the first of two instances is stopped
  inference.fleet.engine_key:
    state: renewed
    instance: 0
    others: [1]
    engines: [vllm]
"""

RETURN = r"""
fingerprint:
  description: Of the key that the edge must send; empty in check mode when there is no key yet.
  returned: success
  type: str
  sample: sk-…1f0c9a2e
"""

import os
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint, new_key
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import unit_state
from ansible_collections.inference.fleet.plugins.module_utils.engines import key
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import kind, units

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "choices": ["present", "renewed"], "default": "present"},
    "instance": {"type": "int"},
    "others": {"type": "list", "elements": "int", "default": []},
    "engines": {"type": "list", "elements": "str", "default": []},
    "path": {"type": "path", "default": "/etc/inference/engine_key.env"},
}


def run(params: dict[str, t.Any], check: bool, running: t.Callable[[int], bool]) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result.

    Args:
        params: as in ARGUMENTS.
        check: change nothing.
        running: whether an instance runs, by its index.
    """
    path = params["path"]
    before = _private_keys(path)
    # A key that others could read is compromised: replace it rather than hide it.
    wanted = before or key.EngineKeys(new_key())
    if before and params["state"] == "renewed":
        others = [index for index in params["others"] if running(index)]
        engines = [kind(name) for name in params["engines"]]
        takes_several = bool(engines) and all(engine.takes_several_keys for engine in engines)
        wanted = key.renewed(before, params["instance"], others, takes_several)
    if wanted != before and not check:
        make_directories(os.path.dirname(path))
        write_atomically(path, key.render(wanted), mode=0o600)
    return {"changed": wanted != before, "fingerprint": fingerprint(wanted.current) if before or not check else ""}


def _private_keys(path: str) -> key.EngineKeys | None:
    text = read_text(path)
    if text is None or stat.S_IMODE(os.stat(path).st_mode) != 0o600:
        return None
    return key.parse(text)


def _runs(index: int) -> bool:
    states = [unit_state(unit) for unit in units(index=index)]
    return any(state.active in ("active", "activating", "reloading", "deactivating") for state in states)


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS, required_if=[("state", "renewed", ["instance"])], supports_check_mode=True
    )
    finish(module, lambda: run(module.params, module.check_mode, _runs))


if __name__ == "__main__":
    main()
