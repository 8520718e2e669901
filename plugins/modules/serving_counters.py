#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a host has counted of the requests that it served."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_counters
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: What a host has counted of the requests that it served
description:
  - Reads how many answers came from behind the host's edge, how many of them were errors, and its engines' histograms
    of the time to first token and between tokens, all since their processes began. Two readings say what happened in
    between; see O(inference.fleet.rollout#module:max_regression).
  - It never fails. RV(problems) names what could not be read.
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: Nothing is ever changed.
    support: none
options:
  first_engine_port:
    description: Instance i listens on the loopback interface at this port + i.
    type: int
    default: 8100
  timeout:
    description: Seconds for each request.
    type: float
    default: 3
extends_documentation_fragment: inference.fleet.haproxy_sockets
seealso:
  - module: inference.fleet.rollout
"""

EXAMPLES = r"""
- name: Read the counters
  inference.fleet.serving_counters:
  register: counters
"""

RETURN = r"""
at:
  description: When they were read, in Unix time.
  returned: always
  type: float
edge:
  description: >-
    The C(answers) from behind the edge, and how many of them were C(errors): 5xx, or cut. None where it does not
    answer.
  returned: always
  type: dict
instances:
  description: >-
    For each instance with such metrics, by its name at the edge, the histograms C(ttft) and C(itl): pairs of a bound in
    seconds, none for the last, and how many values were at most that.
  returned: always
  type: dict
problems:
  description: What could not be read.
  returned: always
  type: list
  elements: str
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import server_name
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import METRICS_PATH
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure
from ansible_collections.inference.fleet.plugins.module_utils.rollout import counters


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "first_engine_port": {"type": "int", "default": 8100},
            **haproxy.SOCKET_ARGUMENTS,
            "timeout": {"type": "float", "default": 3},
        },
        supports_check_mode=True,
    )
    finish(module, lambda: look(module.params))


def look(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """What the module returns."""
    problems: list[str] = []
    rows = _read_statistics(params, problems)
    instances: dict[str, t.Any] = {}
    for index in counters.find_indexes(rows):
        found = _read_instance(params, index, problems)
        if found is not None:
            instances[server_name(index)] = found
    edge = counters.edge_counters(rows) if rows else None
    return {"changed": False, "at": time.time(), "edge": edge, "instances": instances, "problems": problems}


def _read_statistics(params: dict[str, t.Any], problems: list[str]) -> list[dict[str, str]]:
    try:
        workers = haproxy.workers(params["socket"], params["master_socket"])
        if workers:
            return workers[0].statistics()
        problems.append("HAProxy does not run.")
    except (FleetError, OSError, haproxy.WorkerGone) as error:
        problems.append(getattr(error, "message", str(error)) or "HAProxy ended while it was asked.")
    return []


def _read_instance(params: dict[str, t.Any], index: int, problems: list[str]) -> dict[str, t.Any] | None:
    client = HttpClient(f"http://127.0.0.1:{params['first_engine_port'] + index}", timeout=params["timeout"])
    try:
        reply = client.get(METRICS_PATH)
    except HttpFailure as error:
        problems.append(f"The metrics of {server_name(index)} cannot be read: {error.said}.")
        return None
    return counters.instance_counters(reply.text()) if reply.status == 200 else None


if __name__ == "__main__":
    main()
