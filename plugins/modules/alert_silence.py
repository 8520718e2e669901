#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Silence the alerts of the hosts that a rollout changes now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: alert_silence
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Silence the alerts of the hosts that a rollout changes now
description:
  - Creates and ends silences in an Alertmanager, through the host on which the module runs.
  - A rollout has one silence at a time. It is signed with O(rollout), so another run of the same rollout finds it -
    for the same O(hosts) it gets a new end, for others it is replaced.
  - A silence ends by itself after O(seconds), whatever happens to the controller.
  - It never fails because of the Alertmanager. RV(problem) says what is wrong.
attributes:
  check_mode:
    support: full
    description: Reports what would be created or ended.
  diff_mode:
    support: none
    description: The silence is temporary; the comment says what it is for.
options:
  state:
    description: V(present) silences O(hosts), V(absent) ends every silence of O(rollout).
    type: str
    choices: [present, absent]
    default: present
  rollout:
    description: The rollout's id.
    type: str
    required: true
  hosts:
    description: With O(state=present), the values of the label C(host) in the alerts to silence.
    type: list
    elements: str
    default: []
  seconds:
    description: With O(state=present), how long.
    type: float
    default: 3600
  comment:
    description: With O(state=present), what people read about it.
    type: str
    default: ""
  url:
    description: The base URL of the Alertmanager, as this host reaches it.
    type: str
    default: http://127.0.0.1:9093
  config:
    description:
      - The Alertmanager's configuration on this host. Where the file does not exist, none is installed yet, and nothing
        is done. Empty for an Alertmanager that is elsewhere.
    type: path
  timeout:
    description: Seconds for each request.
    type: float
    default: 5
seealso:
  - module: inference.fleet.rollout
"""

EXAMPLES = r"""
- name: Silence the alerts of the wave
  inference.fleet.alert_silence:
    rollout: 20261122T153000Z-rolling_restart
    hosts: [gpu-1, gpu-2]
    seconds: 900
    comment: Wave 1 of 3, by anna@laptop
  delegate_to: watch-1
"""

RETURN = r"""
problem:
  description: Why the alerts are not silenced, or stay so until the silence ends by itself; empty for nothing.
  returned: success
  type: str
"""

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.rollout.silence import Alertmanager


def run(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    if params["state"] == "present" and not (params["hosts"] and params["seconds"] > 0):
        raise FleetError(
            f"hosts is {params['hosts']!r} and seconds is {params['seconds']:g}: a silence needs at least one host and "
            "more than 0 seconds."
        )
    if params["config"] and not os.path.exists(params["config"]):
        return {"changed": False, "problem": ""}
    try:
        return {"changed": _apply(params, check), "problem": ""}
    except FleetError as error:
        return {"changed": False, "problem": f"Alertmanager at {params['url']}: {error.message}"}


def _apply(params: dict[str, t.Any], check: bool) -> bool:
    alertmanager = Alertmanager(params["url"], params["timeout"])
    rollout = params["rollout"]
    if params["state"] == "absent":
        return bool(alertmanager.of(rollout) if check else alertmanager.end(rollout))
    if check:
        alertmanager.of(rollout)
    else:
        alertmanager.silence(rollout, params["hosts"], params["comment"], time.time(), params["seconds"])
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
            "rollout": {"type": "str", "required": True},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "float", "default": 3600},
            "comment": {"type": "str", "default": ""},
            "url": {"type": "str", "default": "http://127.0.0.1:9093"},
            "config": {"type": "path"},
            "timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
