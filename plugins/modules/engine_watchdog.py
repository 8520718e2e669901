# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the service that finds engines which hang, and restarts them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_watchdog
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Restart engines that hang
description:
  - Installs C(inference-watchdog.service). Every two seconds it looks at each instance that the edge of the host leads
    to. An engine with requests in flight whose core makes no progress, and which does not answer a question of one
    token either, hangs. So does one whose HTTP server does not answer at all. An engine's own health check shows
    neither.
  - Such an instance is taken out of the edge. Its stacks, counters, journal and requests in flight are kept below
    O(state_directory). Then its core is killed, so that every client gets an error at once, and systemd starts it
    again. It returns to service when it has passed the gate that its last rollout conducted.
  - An instance that is drained, starting or in the hands of a rollout is not judged.
  - An instance that hangs again soon after its restarts, does not pass its gate, or whose GPU has failed, is given up.
    It stays out of service until a person has looked at it.
attributes:
  check_mode:
    support: full
    description: Reports what would be installed.
  diff_mode:
    support: full
    description: Shows the unit before and after.
options:
  mode:
    description:
      - V(act) restarts engines that hang. V(observe) keeps the evidence, counts them and does nothing else. V(off)
        removes the service.
    type: str
    choices: [act, observe, "off"]
    default: act
  quiet_seconds:
    description:
      - Seconds with requests in flight and without progress after which an engine is asked a question. An engine that
        has just started has 120 seconds, until it has finished ten requests.
    type: float
    default: 20
  confirm_seconds:
    description: Seconds without progress after the question, after which the engine hangs.
    type: float
    default: 15
  idle_seconds:
    description: Seconds without work after which an engine is asked a question; 0 for never.
    type: float
    default: 60
  pause_seconds:
    description: Seconds between two restarts of one instance, at least.
    type: float
    default: 600
  max_restarts:
    description: Restarts of one instance within O(window_seconds), after which it is given up.
    type: int
    default: 3
  window_seconds:
    description: See O(max_restarts).
    type: float
    default: 21600
  port:
    description: The port on the loopback interface at which HAProxy asks whether an instance may take requests.
    type: int
    default: 8099
  stacks:
    description: A program like py-spy that prints the stacks of a Python process; empty for none.
    type: str
    default: ""
  unit_directory:
    description: The directory of systemd's units.
    type: path
    default: /etc/systemd/system
  program_path:
    description: Where the program is installed.
    type: path
    default: /etc/inference/watchdog.pyz
  root:
    description: Where the engines are installed.
    type: path
    default: /opt/inference
  state_directory:
    description: The directory of its records, evidence and metrics.
    type: path
    default: /var/lib/inference
  config_path:
    description: HAProxy's configuration.
    type: path
    default: /etc/haproxy/haproxy.cfg
  record_path:
    description: The record of drains.
    type: path
    default: /var/lib/inference/drain.json
  claim_path:
    description: The record of the rollout that the host is in.
    type: path
    default: /var/lib/inference/rollout.json
extends_documentation_fragment: inference.fleet.haproxy_sockets
"""

EXAMPLES = r"""
- name: Restart engines that hang
  inference.fleet.engine_watchdog:

- name: Only report them
  inference.fleet.engine_watchdog:
    mode: observe
"""

RETURN = r"""
watching:
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
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT, STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import Paths
from ansible_collections.inference.fleet.plugins.module_utils.rollout import claim
from ansible_collections.inference.fleet.plugins.module_utils.services.archive import build_program
from ansible_collections.inference.fleet.plugins.module_utils.services.install import ServiceFiles
from ansible_collections.inference.fleet.plugins.module_utils.watchdog import agent, decision, unit, watch
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.judge import HangLimits

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "mode": {"type": "str", "choices": list(decision.MODES), "default": decision.ACT},
    "quiet_seconds": {"type": "float", "default": 20},
    "confirm_seconds": {"type": "float", "default": 15},
    "idle_seconds": {"type": "float", "default": 60},
    "pause_seconds": {"type": "float", "default": 600},
    "max_restarts": {"type": "int", "default": 3},
    "window_seconds": {"type": "float", "default": 21600},
    "port": {"type": "int", "default": agent.PORT},
    "stacks": {"type": "str", "default": ""},
    "unit_directory": {"type": "path", "default": "/etc/systemd/system"},
    "program_path": {"type": "path", "default": unit.PROGRAM_PATH},
    "root": {"type": "path", "default": ENGINE_ROOT},
    "state_directory": {"type": "path", "default": STATE_DIRECTORY},
    "config_path": {"type": "path", "default": edge_state.CONFIG_PATH},
    "record_path": {"type": "path", "default": edge_state.DRAIN_RECORD_PATH},
    "claim_path": {"type": "path", "default": claim.PATH},
    **haproxy.SOCKET_ARGUMENTS,
}

#: Each option of time or count, and its smallest value.
_LEAST = {
    "quiet_seconds": 5.0,
    "confirm_seconds": 5.0,
    "idle_seconds": 0.0,
    "pause_seconds": 0.0,
    "max_restarts": 1,
    "window_seconds": 60.0,
}


def run(params: dict[str, t.Any], check: bool, want_diff: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result.

    Raises:
        FleetError: a value is too small.
    """
    for name, least in _LEAST.items():
        if params[name] < least:
            raise FleetError(f"{name} is {params[name]:g}; it must be at least {least:g}.")
    files = ServiceFiles(unit.UNIT, params["unit_directory"], params["program_path"], check)
    before, after = files.unit_text(), ""
    if params["mode"] == decision.OFF:
        files.remove()
        if before:
            _release(params, check, files.actions)
    else:
        after = unit.render_unit(_command(params))
        files.install(build_program(watch), after)
    result: dict[str, t.Any] = {
        "changed": bool(files.actions),
        "watching": bool(after),
        "actions": files.actions,
    }
    if want_diff and before != after:
        header = os.path.join(params["unit_directory"], unit.UNIT)
        result["diff"] = {"before": before, "after": after, "before_header": header, "after_header": header}
    return result


def _command(params: dict[str, t.Any]) -> unit.WatchdogCommand:
    return unit.WatchdogCommand(
        program=params["program_path"],
        mode=params["mode"],
        limits=HangLimits(params["quiet_seconds"], params["confirm_seconds"], idle=params["idle_seconds"]),
        damping=decision.Damping(params["pause_seconds"], params["max_restarts"], params["window_seconds"]),
        port=params["port"],
        root=params["root"],
        state=params["state_directory"],
        stacks=params["stacks"],
        paths=Paths(
            config=params["config_path"],
            record=params["record_path"],
            socket=params["socket"],
            master_socket=params["master_socket"],
        ),
        claim=params["claim_path"],
    )


def _release(params: dict[str, t.Any], check: bool, actions: list[str]) -> None:
    """Put back what the watchdog had taken out: HAProxy keeps the last answer of an agent that is gone."""
    for worker in haproxy.workers(params["socket"], params["master_socket"])[:1]:
        for row in worker.statistics():
            is_ours = row["pxname"].startswith(edge_state.BACKEND_PREFIX)
            if is_ours and row.get("agent_status") and "DOWN" in row["status"]:
                actions.append(f"put {row['svname']} back into service")
                if not check:
                    worker.end_agent_down(row["pxname"], row["svname"])


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode, module._diff))


if __name__ == "__main__":
    main()
