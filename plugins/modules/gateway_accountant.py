# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the service that counts tokens at a gateway that is HAProxy alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_accountant
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Count the tokens of clients at a gateway that is HAProxy alone
description:
  - Installs C(inference-accountant.service). HAProxy asks it before it lets a request of a client with a limit on
    tokens through. It books what the request may use at most, and settles that with what the answer did use, when its
    line of the access log says so.
  - With a Redis the gateways count together, in the same accounts as those that run LiteLLM. Without one each has its
    part of every limit. While the Redis is away each has its part of what is left.
  - What was used is kept in C(accountant.json) below O(state_directory), and survives restarts. A file that cannot be
    read is put aside, and named in the journal.
attributes:
  check_mode:
    support: full
    description: Reports what would be installed.
  diff_mode:
    support: full
    description: Shows the unit before and after.
options:
  state:
    description: Whether the service is installed. What was used is kept when it is removed.
    type: str
    choices: [present, absent]
    default: present
  gateways:
    description: How many gateways of this kind there are.
    type: int
    default: 1
  prices:
    description: Of each model the price of a token of the prompt and of a token of the answer.
    type: dict
    default: {}
  redis_url:
    description: The gateways' Redis; empty for none. It is written to a file that only root can read.
    type: str
    default: ""
  stream_timeout:
    description: Seconds that a request takes at most. One that has booked something and left no line counts then.
    type: float
    default: 3600
  unit_directory:
    description: The directory of systemd's units.
    type: path
    default: /etc/systemd/system
  program_path:
    description: Where the program is installed.
    type: path
    default: /etc/inference/accountant.pyz
  config_path:
    description: Its settings.
    type: path
    default: /etc/inference/accountant.json
  keys_map:
    description: The edge's map of keys, with the clients' limits.
    type: path
    default: /etc/haproxy/maps/keys.map
  directory:
    description: The directory of its sockets, within HAProxy's chroot.
    type: path
    default: /var/lib/haproxy/accountant
  state_directory:
    description: The directory of what it remembers, and of metrics.
    type: path
    default: /var/lib/inference
extends_documentation_fragment: inference.fleet.haproxy_sockets
"""

EXAMPLES = r"""
- name: Count tokens, together with another gateway
  inference.fleet.gateway_accountant:
    gateways: 2
    prices: {Qwen/Qwen3-VL-8B-Instruct: [0.0000002, 0.0000006]}
    redis_url: "{{ gateway_redis_url }}"

- name: Remove it where LiteLLM counts
  inference.fleet.gateway_accountant:
    state: absent
"""

RETURN = r"""
counting:
  description: Whether the service is installed and runs.
  returned: success
  type: bool
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.accountant import serve, settings, unit
from ansible_collections.inference.fleet.plugins.module_utils.accountant.settings import AccountantSettings
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.gateway import redis
from ansible_collections.inference.fleet.plugins.module_utils.services.archive import build_program
from ansible_collections.inference.fleet.plugins.module_utils.services.install import ServiceFiles

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "gateways": {"type": "int", "default": 1},
    "prices": {"type": "dict", "default": {}},
    "redis_url": {"type": "str", "default": "", "no_log": True},
    "stream_timeout": {"type": "float", "default": 3600},
    "unit_directory": {"type": "path", "default": "/etc/systemd/system"},
    "program_path": {"type": "path", "default": unit.PROGRAM_PATH},
    "config_path": {"type": "path", "default": settings.CONFIG_PATH},
    # Its name makes Ansible take it for a secret.
    "keys_map": {"type": "path", "default": edge_state.KEYS_MAP_PATH, "no_log": False},
    "directory": {"type": "path", "default": settings.SOCKET_DIRECTORY},
    "state_directory": {"type": "path", "default": STATE_DIRECTORY},
    **haproxy.SOCKET_ARGUMENTS,
}
_MODE = 0o600


def run(params: dict[str, t.Any], check: bool, want_diff: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result.

    Raises:
        FleetError: a value is invalid.
    """
    files = ServiceFiles(unit.UNIT, params["unit_directory"], params["program_path"], check)
    config = params["config_path"]
    before, after = files.unit_text(), ""
    actions: list[str] = []
    if params["state"] == "absent":
        files.remove()
        # The accounts stay. The metrics go: nothing updates them, and stale ones would look current.
        for path in filter(os.path.lexists, (config, _metrics(params))):
            actions.append(f"remove {path}")
            if not check:
                os.unlink(path)
    else:
        wanted = _settings(params)
        if read_text(config) != wanted.render():
            actions.append(f"write {config}")
            if not check:
                make_directories(os.path.dirname(config))
                write_atomically(config, wanted.render(), mode=_MODE)
        after = unit.render_unit(params["program_path"], config, wanted)
        files.install(build_program(serve), after)
        if actions and not files.actions:
            files.restart()
    actions += files.actions
    result: dict[str, t.Any] = {"changed": bool(actions), "counting": bool(after), "actions": actions}
    if want_diff and before != after:
        header = os.path.join(params["unit_directory"], unit.UNIT)
        result["diff"] = {"before": before, "after": after, "before_header": header, "after_header": header}
    return result


def _settings(params: dict[str, t.Any]) -> AccountantSettings:
    if params["gateways"] < 1:
        raise FleetError(f"gateways is {params['gateways']}; it must be at least 1.")
    if params["redis_url"]:
        redis.parse(params["redis_url"], "gateway_redis_url")
    prices = {}
    for model, pair in params["prices"].items():
        try:
            read, write = (float(price) for price in pair)
        except (TypeError, ValueError):
            raise FleetError(
                f"The prices of {model} are {pair!r}; they must be two numbers, of a token of the prompt and of the "
                "answer."
            ) from None
        prices[str(model)] = (read, write)
    return AccountantSettings(
        gateways=params["gateways"],
        prices=prices,
        redis_url=params["redis_url"],
        patience=params["stream_timeout"],
        keys_map=params["keys_map"],
        directory=params["directory"],
        socket=params["socket"],
        state=os.path.join(params["state_directory"], "accountant.json"),
        metrics=_metrics(params),
    )


def _metrics(params: dict[str, t.Any]) -> str:
    return os.path.join(params["state_directory"], "metrics", "accountant.prom")


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode, module._diff))


if __name__ == "__main__":
    main()
