#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_status
short_description: What an inference host runs, and its health
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
description:
  - Reads instances, releases, units, load, drains, the edge's health and the last gates of one host in one execution.
  - Missing things are left empty; a bare host has a status, too. RV(problems) names what could not be read.
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: Nothing is ever changed.
    support: none
options:
  host:
    description: The host's name in RV(rows).
    type: str
    default: ""
  engine_root:
    description: Where releases and instances live.
    type: path
    default: /opt/inference
  state_dir:
    description: Where the state of drains and gates lives.
    type: path
    default: /var/lib/inference
  hold_map:
    description: The map that lets HAProxy refuse every request until the keys of a host that was away are confirmed.
    type: path
    default: /etc/haproxy/maps/hold.map
  first_engine_port:
    description: Instance i listens on the loopback interface at this port + i.
    type: int
    default: 8100
  edge_url:
    description: Base URL of the host's edge; its certificate is not verified.
    type: str
    default: http://127.0.0.1:8000
  timeout:
    description: Seconds for each request.
    type: float
    default: 3
extends_documentation_fragment: inference.fleet.haproxy_sockets
seealso:
  - module: inference.fleet.chat_smoke
"""

EXAMPLES = r"""
- name: Read the host's status
  inference.fleet.fleet_status:
    host: "{{ inventory_hostname }}"
  register: status
"""

RETURN = r"""
instances:
  description: The instances that have a release or a unit.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Position on the host.
      type: int
    name:
      description: Engine and index.
      type: str
    engine:
      description: What runs, as V(vllm).
      type: str
    version:
      description: The engine's version.
      type: str
    release:
      description: The current release.
      type: str
    created:
      description: When the release was made.
      type: str
    model:
      description: The model's name on the hub.
      type: str
    revision:
      description: The model's revision.
      type: str
    served_name:
      description: The model name that clients use.
      type: str
    state:
      description: The unit's state as systemd reports it, or V(absent).
      type: str
    sub_state:
      description: The unit's substate.
      type: str
    since:
      description: When the unit became active, UTC.
      type: str
    running:
      description: Requests that the engine works on.
      type: int
    waiting:
      description: Requests that wait in the engine.
      type: int
    kv_usage:
      description: The share of the KV cache in use, from 0 to 1.
      type: float
    limit:
      description: Requests that it works on at once, by its own options and the edge's limit.
      type: int
edge:
  description:
    - The edge's C(health), an HTTP status, none where it does not answer; and under C(responses) the number of
      responses of each class (C(2xx), C(4xx), C(5xx)) from behind it since its process began.
    - Under C(pools), of a gateway whose edge leads into the pools by itself, its requests (C(running), C(waiting)) and
      how many it takes (C(limit)); none on any other host.
    - Under C(held), since when and why (C(since), C(why)) the host serves no request until a run has confirmed its
      keys; none where it is not held.
  returned: always
  type: dict
rollout:
  description: >-
    The last rollout that the host took part in, as M(inference.fleet.rollout_claim) records it; none for none.
  returned: always
  type: dict
drain:
  description:
    - Who drained the host, with C(state), C(by), C(reason) and C(since), and the same under C(instances) for single
      ones. Where several have drained the host, each is under C(marks), and the first three say what it does.
    - Under C(aws), what AWS announces for the host, with C(state) (C(overridden) where an operator put the host back
      all the same), C(reason), C(since) and C(notices). None while all are in service and nothing is announced.
  returned: always
  type: dict
gates:
  description: The last gates by name, each with C(at), C(passed), C(reason), C(message) and C(figures).
  returned: always
  type: dict
driver:
  description: The version of the loaded NVIDIA kernel module; none where none is loaded.
  returned: always
  type: str
problems:
  description: What exists but could not be read.
  returned: always
  type: list
  elements: str
rows:
  description: The host's lines of the fleet's table, ready for P(inference.fleet.table#filter).
  returned: always
  type: list
  elements: dict
"""

import dataclasses
import os
import subprocess
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, read_text
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT, STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy, state
from ansible_collections.inference.fleet.plugins.module_utils.edge import load as edge_load
from ansible_collections.inference.fleet.plugins.module_utils.edge.hold import MAP_PATH, Hold
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import METRICS_PATH, Load, load
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import GATEWAY, units
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Releases
from ansible_collections.inference.fleet.plugins.module_utils.instances.status import (
    UNIT_PROPERTIES,
    Unit,
    gate_of,
    instance_of,
    parse_units,
    rows_of,
)
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure
from ansible_collections.inference.fleet.plugins.module_utils.rollout import claim as rollout_claim


class StatusReader:
    """Reads this host's status. Failures are recorded, and the rest goes on."""

    def __init__(self, params: dict[str, t.Any]) -> None:
        self._params = params
        self.problems: list[str] = []

    def status(self) -> dict[str, t.Any]:
        releases = Releases(self._params["engine_root"])
        installed = self._installed()
        units = self._units(installed)
        indices = installed | {unit.index for unit in units if unit.active != "inactive"}
        linked = {index: releases.linked(index, "current") for index in sorted(indices)}
        found = {index: (release, self._manifest(releases, release)) for index, release in linked.items()}
        statistics = self._statistics()
        limits = state.request_limits(statistics)
        return {
            "instances": [
                instance_of(index, release, manifest, units, self._load(index, manifest, statistics), limits)
                for index, (release, manifest) in found.items()
            ],
            "edge": {
                "health": self._health(),
                "responses": state.responses(statistics) if statistics else None,
                "held": self._held(),
                "pools": edge_load.front(statistics),
            },
            "drain": self._drain(),
            "rollout": self._rollout(),
            "gates": self._gates(),
            "driver": self._driver(),
            "problems": self.problems,
        }

    def _installed(self) -> set[int]:
        path = os.path.join(self._params["engine_root"], "instances")
        return {int(name) for name in self._names(path) if name.isdigit()}

    def _manifest(self, releases: Releases, release: str | None) -> dict[str, t.Any]:
        try:
            return releases.manifest(release)
        except FleetError as error:
            self.problems.append(error.message)
            return {}

    def _units(self, installed: set[int]) -> list[Unit]:
        # A pattern matches only units that systemd has loaded; a stopped instance must be named.
        names = [unit for index in ("*", *sorted(installed)) for unit in units(index=index)]
        command = ["systemctl", "show", "--property", ",".join(UNIT_PROPERTIES), *names]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        except (OSError, subprocess.SubprocessError) as error:
            self.problems.append(f"systemd does not answer ({type(error).__name__}).")
            return []
        return parse_units(done.stdout, time.clock_gettime(time.CLOCK_MONOTONIC), time.time())

    def _load(self, index: int, manifest: dict[str, t.Any], statistics: list[dict[str, str]]) -> Load | None:
        if manifest.get("engine") == GATEWAY:
            return edge_load.load(statistics, index, GATEWAY)
        try:
            reply = self._client(f"http://127.0.0.1:{self._params['first_engine_port'] + index}").get(METRICS_PATH)
        except HttpFailure:
            return None
        return load(reply.text()) if reply.status == 200 else None

    def _health(self) -> int | None:
        try:
            return self._client(self._params["edge_url"]).get("/health").status
        except HttpFailure:
            return None

    def _statistics(self) -> list[dict[str, str]]:
        try:
            workers = haproxy.workers(self._params["socket"], self._params["master_socket"])
            return workers[0].statistics() if workers else []
        except (FleetError, OSError) as error:
            self.problems.append(getattr(error, "message", str(error)))
            return []

    def _rollout(self) -> dict[str, t.Any] | None:
        path = os.path.join(self._params["state_dir"], "rollout.json")
        try:
            claim = rollout_claim.parse(self._json(path), path)
        except FleetError as error:
            self.problems.append(error.message)
            return None
        return dataclasses.asdict(claim) if claim else None

    def _client(self, url: str) -> HttpClient:
        return HttpClient(url, timeout=self._params["timeout"], validate_certs=False)

    def _gates(self) -> dict[str, t.Any]:
        directory = os.path.join(self._params["state_dir"], "gate")
        names = [name[: -len(".json")] for name in self._names(directory) if name.endswith(".json")]
        return {name: gate_of(self._json(os.path.join(directory, f"{name}.json"))) for name in names}

    def _drain(self) -> dict[str, t.Any] | None:
        path = os.path.join(self._params["state_dir"], "drain.json")
        try:
            return state.read_drains(self._json(path), path).summary() or None
        except FleetError as error:
            self.problems.append(error.message)
            return None

    def _held(self) -> dict[str, str] | None:
        presence = os.path.join(self._params["state_dir"], "presence.json")
        try:
            held = Hold(self._params["hold_map"], presence, []).held()
        except OSError as error:
            self.problems.append(f"{self._params['hold_map']} cannot be read: {error.strerror}.")
            return None
        return held._asdict() if held else None

    def _json(self, path: str) -> t.Any:
        try:
            return read_json(path)
        except FleetError as error:
            self.problems.append(error.message)
        except OSError as error:
            self.problems.append(f"{path} cannot be read: {error.strerror}.")
        return None

    def _names(self, directory: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(directory) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.problems.append(f"{directory} cannot be read: {error.strerror}.")
            return []

    def _driver(self) -> str | None:
        text = read_text("/sys/module/nvidia/version")
        return text.strip() or None if text is not None else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "default": ""},
            "engine_root": {"type": "path", "default": ENGINE_ROOT},
            "state_dir": {"type": "path", "default": STATE_DIRECTORY},
            "hold_map": {"type": "path", "default": MAP_PATH},
            "first_engine_port": {"type": "int", "default": 8100},
            "edge_url": {"type": "str", "default": "http://127.0.0.1:8000"},
            **haproxy.SOCKET_ARGUMENTS,
            "timeout": {"type": "float", "default": 3},
        },
        supports_check_mode=True,
    )
    finish(module, lambda: look(module.params))


def look(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """What the module returns."""
    status = StatusReader(params).status()
    return {"changed": False, **status, "rows": rows_of(params["host"], status)}


if __name__ == "__main__":
    main()
