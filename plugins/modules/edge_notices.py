# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the service that drains a host's edge for what AWS announces."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_notices
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Drain a host in time for Spot interruptions, scale-in and maintenance
description:
  - Installs C(inference-notices.service), which watches the metadata of the EC2 instance every two seconds and drains
    the edge of the host before AWS ends or interrupts the instance. It needs no rights in AWS.
  - A Spot interruption and the end by an Auto Scaling group drain the host at once, a scheduled event
    O(maintenance_lead) seconds before it begins. Requests in flight finish, as with M(inference.fleet.edge_drain).
  - That drain ends by itself when nothing is announced any more and an instance answers, also after a reboot. An
    operator's drain is neither overwritten nor removed.
  - While the metadata does not answer, everything stays as it is.
attributes:
  check_mode:
    support: full
    description: Looks whether the metadata answers, and changes nothing.
  diff_mode:
    support: full
    description: Shows the unit before and after.
options:
  watch:
    description:
      - Whether to watch. V(auto) does where the metadata answers (an EC2 instance) and where the service is already
        installed, so that metadata that does not answer for a while removes nothing.
    type: str
    choices: [auto, "true", "false"]
    default: auto
  on_rebalance:
    description: What a rebalance recommendation leads to. V(note) only writes it to the journal.
    type: str
    choices: [note, drain]
    default: note
  maintenance_lead:
    description: Seconds before a scheduled event at which the host is drained.
    type: float
    default: 600
  lame_duck_seconds:
    description: Seconds that the host is a lame duck before it is drained.
    type: float
    default: 15
  metadata_url:
    description: The address of the metadata.
    type: str
    default: http://169.254.169.254
  unit_directory:
    description: The directory of systemd's units.
    type: path
    default: /etc/systemd/system
  program_path:
    description: Where the program is installed.
    type: path
    default: /etc/haproxy/notices.pyz
  config_path:
    description: HAProxy's configuration.
    type: path
    default: /etc/haproxy/haproxy.cfg
  map_path:
    description: The map that holds the host's drain state.
    type: path
    default: /etc/haproxy/maps/drain.map
  record_path:
    description: The record of drains.
    type: path
    default: /var/lib/inference/drain.json
extends_documentation_fragment: inference.fleet.haproxy_sockets
"""

EXAMPLES = r"""
- name: Watch for what AWS announces, where the host is an EC2 instance
  inference.fleet.edge_notices:

- name: Drain for rebalance recommendations as well
  inference.fleet.edge_notices:
    on_rebalance: drain
"""

RETURN = r"""
watching:
  description: Whether the service is installed and runs.
  returned: success
  type: bool
reason:
  description: Why.
  returned: success
  type: str
  sample: "http://169.254.169.254: connection refused: nothing listens there"
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import EdgeDrain, Paths
from ansible_collections.inference.fleet.plugins.module_utils.notices import decision, unit, watch
from ansible_collections.inference.fleet.plugins.module_utils.notices.metadata import ENDPOINT, Metadata
from ansible_collections.inference.fleet.plugins.module_utils.services.archive import build_program
from ansible_collections.inference.fleet.plugins.module_utils.services.install import ServiceFiles

AUTO = "auto"
ALWAYS = "true"
NEVER = "false"

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "watch": {"type": "str", "choices": [AUTO, ALWAYS, NEVER], "default": AUTO},
    "on_rebalance": {"type": "str", "choices": list(decision.ON_REBALANCE), "default": decision.NOTE},
    "maintenance_lead": {"type": "float", "default": 600},
    "lame_duck_seconds": {"type": "float", "default": 15},
    "metadata_url": {"type": "str", "default": ENDPOINT},
    "unit_directory": {"type": "path", "default": "/etc/systemd/system"},
    "program_path": {"type": "path", "default": unit.PROGRAM_PATH},
    "config_path": {"type": "path", "default": edge_state.CONFIG_PATH},
    "map_path": {"type": "path", "default": edge_state.DRAIN_MAP_PATH},
    "record_path": {"type": "path", "default": edge_state.DRAIN_RECORD_PATH},
    **haproxy.SOCKET_ARGUMENTS,
}


def run(params: dict[str, t.Any], check: bool, want_diff: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    paths = Paths(
        params["config_path"], params["map_path"], params["record_path"], params["socket"], params["master_socket"]
    )
    files = ServiceFiles(unit.UNIT, params["unit_directory"], params["program_path"], check)
    before = files.unit_text()
    watching, reason, warnings = _wanted(params, installed=bool(before))
    after = ""
    if watching:
        after = unit.render_unit(
            unit.WatchCommand(
                params["program_path"],
                params["metadata_url"],
                decision.NoticeSettings(params["on_rebalance"], params["maintenance_lead"]),
                params["lame_duck_seconds"],
                paths,
            )
        )
        files.install(build_program(watch), after)
    else:
        files.remove()
        edge = EdgeDrain(paths, edge_state.AWS, "", check)
        edge.forget_notices()
        files.actions += edge.actions
    result: dict[str, t.Any] = {
        "changed": bool(files.actions),
        "watching": watching,
        "reason": reason,
        "actions": files.actions,
        "warnings": warnings,
    }
    if want_diff and before != after:
        header = f"{params['unit_directory']}/{unit.UNIT}"
        result["diff"] = {"before": before, "after": after, "before_header": header, "after_header": header}
    return result


def _wanted(params: dict[str, t.Any], installed: bool) -> tuple[bool, str, list[str]]:
    """Whether to watch, why, and what the operator should know."""
    if params["watch"] == NEVER:
        return False, "it is turned off (edge_watch_notices)", []
    if params["watch"] == AUTO and installed:
        return True, "it is installed already", []
    problem = Metadata(params["metadata_url"]).answers()
    if params["watch"] == AUTO:
        return not problem, problem or "the metadata answers", []
    said = f"edge_watch_notices is true, and the metadata does not answer ({problem}): nothing announced is seen."
    return True, "it is turned on (edge_watch_notices)", [said] if problem else []


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode, module._diff))


if __name__ == "__main__":
    main()
