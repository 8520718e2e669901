# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drain and undrain a host or an instance at its edge."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_drain
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Drain and undrain a host or one of its instances
description:
  - Drains a host, or one instance of it, at its edge without cutting a request, and undrains it.
  - A host is first a lame duck, if configured. Its C(/health) answers 503 so that the balancer in front turns away,
    while requests are still served. Then it is drained. New requests get 503 with C(Retry-After), those in flight
    finish.
  - A drained instance gets no new requests; the host's other instances do.
  - The state survives a reload or restart of HAProxy and a reboot. Where HAProxy does not run it is only recorded.
  - What an operator drained stays drained until an operator undrains it.
  - Where AWS announces the end or the maintenance of the instance, the host drains itself (RV(announced)). That drain
    counts more than a rollout's. An operator who undrains the host overrides it; only a further notice drains it again.
attributes:
  check_mode:
    support: full
    description: Neither changes nor waits for anything.
  diff_mode:
    support: full
    description: Shows the states before and after.
options:
  state:
    description:
      - V(lame_duck), V(drained) and V(undrained) are the wanted state of the host or instance.
      - V(kept) leaves all states as recorded, and makes HAProxy and its map file match the record.
    type: str
    required: true
    choices: [lame_duck, drained, undrained, kept]
  instance:
    description: Name or index of the one instance to drain or undrain; without it the whole host.
    type: str
  by:
    description: Who drains. A V(rollout) changes nothing where an V(operator) has drained.
    type: str
    choices: [operator, rollout]
    default: operator
  reason:
    description: Why, for the record.
    type: str
    default: ""
  lame_duck_seconds:
    description:
      - With O(state=drained), the seconds that the host is a lame duck before it is drained.
      - No time is spent where the host does not serve, or where other instances of it serve.
    type: float
    default: 0
  wait:
    description: With O(state=drained), the maximum seconds to wait until nothing is in flight.
    type: float
    default: 0
  metrics:
    description:
      - The engines whose counters must be zero as well; without it, those of the instances in the edge's configuration.
    type: list
    elements: dict
    suboptions:
      name:
        description: The instance's name.
        type: str
        required: true
      url:
        description: The engine's base URL, for example C(http://127.0.0.1:8100).
        type: str
        required: true
  config_path:
    description: HAProxy's configuration.
    type: path
    default: /etc/haproxy/haproxy.cfg
  map_path:
    description: The map that holds the host's drain state.
    type: path
    default: /etc/haproxy/maps/drain.map
  record_path:
    description: The record.
    type: path
    default: /var/lib/inference/drain.json
extends_documentation_fragment: inference.fleet.haproxy_sockets
"""

EXAMPLES = r"""
- name: Drain the host, and wait up to five minutes for its requests
  inference.fleet.edge_drain:
    state: drained
    reason: fan is being replaced
    lame_duck_seconds: 15
    wait: 300

- name: Undrain it
  inference.fleet.edge_drain:
    state: undrained

- name: Drain one instance in a rollout
  inference.fleet.edge_drain:
    state: drained
    instance: vllm-0
    by: rollout
    wait: 300
"""

RETURN = r"""
state:
  description: The new state of the host or the instance.
  returned: success
  type: str
  sample: drained
by:
  description: Who drained it, V(operator), V(aws) or V(rollout); empty when it serves.
  returned: success
  type: str
held_by:
  description:
    - V(operator) where a rollout must not undrain because an operator drained the host or instance, V(aws) where the
      host drains itself for what AWS announces; else none.
  returned: success
  type: str
announced:
  description: What AWS announces, where the host drains itself for it or an operator has overridden that; else empty.
  returned: success
  type: str
  sample: spot, terminates 12:03:10 UTC
overridden:
  description: Whether an operator put the host back into service although AWS announces something.
  returned: success
  type: bool
idle:
  description: Whether nothing is in flight, at the edge and in the engines.
  returned: with O(state=drained)
  type: bool
requests:
  description: The requests that were still in flight, with client, instance and age in seconds.
  returned: with O(state=drained)
  type: list
  elements: dict
  sample:
    - client: team-a
      instance: vllm-0
      seconds: 12
engines:
  description: The engines that still have work by their own counters, or do not answer.
  returned: with O(state=drained)
  type: list
  elements: dict
uncounted:
  description: The engines without counters, for which only the edge's count was waited for.
  returned: with O(state=drained)
  type: list
  elements: str
lame_duck_seconds:
  description: The seconds that the host was a lame duck.
  returned: with O(state=drained)
  type: float
waited:
  description: The seconds of waiting for the requests in flight.
  returned: with O(state=drained)
  type: float
live:
  description: Whether HAProxy runs; if not, the state is recorded for when it starts.
  returned: success
  type: bool
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import EdgeDrain, MetricsEndpoint, Paths

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "required": True, "choices": ["lame_duck", "drained", "undrained", "kept"]},
    "instance": {"type": "str"},
    "by": {"type": "str", "choices": ["operator", "rollout"], "default": "operator"},
    "reason": {"type": "str", "default": ""},
    "lame_duck_seconds": {"type": "float", "default": 0},
    "wait": {"type": "float", "default": 0},
    "metrics": {
        "type": "list",
        "elements": "dict",
        "options": {"name": {"type": "str", "required": True}, "url": {"type": "str", "required": True}},
    },
    "config_path": {"type": "path", "default": edge_state.CONFIG_PATH},
    "map_path": {"type": "path", "default": edge_state.DRAIN_MAP_PATH},
    "record_path": {"type": "path", "default": edge_state.DRAIN_RECORD_PATH},
    **haproxy.SOCKET_ARGUMENTS,
}


def run(params: dict[str, t.Any], check: bool, want_diff: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    state = params["state"]
    if state in ("kept", "lame_duck") and params["instance"] is not None:
        raise FleetError(
            f"state {state} is for a whole host: /health speaks for all its instances. Leave out instance."
        )
    paths = Paths(
        params["config_path"], params["map_path"], params["record_path"], params["socket"], params["master_socket"]
    )
    edge = EdgeDrain(paths, params["by"], params["reason"], check)
    name = edge.resolve(params["instance"])
    lame = 0.0
    if state == "kept":
        edge.keep()
    elif state == "drained":
        lame = edge.lame_duck(name, params["lame_duck_seconds"])
        edge.set(name, edge_state.DRAINED)
    else:
        edge.set(name, edge_state.LAME_DUCK if state == "lame_duck" else None)
    mark = edge.after.out if name is None else edge.after.of(name)
    result: dict[str, t.Any] = {
        "changed": bool(edge.actions),
        "state": mark.state if mark else edge_state.SERVING,
        "by": mark.by if mark else "",
        "held_by": edge.held_by(name),
        "announced": edge.after.announced,
        "overridden": bool(edge.after.aws and edge.after.aws.state == edge_state.OVERRIDDEN),
        "live": edge.live(),
        "actions": edge.actions,
    }
    if state == "drained":
        listed = params["metrics"]
        engines = None if listed is None else [MetricsEndpoint(item["name"], item["url"]) for item in listed]
        busy, waited = edge.wait(name, engines, 0 if check else params["wait"])
        result.update(
            idle=not busy,
            requests=[request.as_dict() for request in busy.requests],
            engines=busy.engines,
            uncounted=busy.uncounted,
            lame_duck_seconds=round(lame, 1),
            waited=round(waited, 1),
        )
    if want_diff and edge.before != edge.after:
        result["diff"] = {"before": edge.before.shown(), "after": edge.after.shown()}
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode, module._diff))


if __name__ == "__main__":
    main()
