#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what an engine serves, with a benchmark client on its host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_client
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Measure what an engine serves, with a benchmark client on its host
description:
  - Runs the client aiperf on a host, against an engine's own port or the host's edge, and returns the figures of each
    repeat. Prompts follow from O(run), so those of two runs or two repeats are never the same, and no answer comes from
    a cache by accident.
  - It ends the client when the controller or its connection is lost, and when a repeat takes too long.
  - It does not drain. Role C(benchmark) does what belongs around it.
attributes:
  check_mode:
    support: full
    description: With O(state=measured) nothing is sent.
  diff_mode:
    support: none
    description: Nothing on the host changes.
options:
  state:
    description:
      - V(checked) asks what each of O(instances) serves and which context it has, and finds what its release says. It
        also stops a client that an earlier run has left.
      - V(measured) measures O(scenario).
    type: str
    required: true
    choices: [checked, measured]
  instances:
    description: With O(state=checked), the instances, as module M(inference.fleet.fleet_facts) gives them.
    type: list
    elements: dict
    default: []
  drained:
    description:
      - With O(state=checked), whether the host will be drained to be measured. One that an operator or AWS has drained
        is a problem then.
    type: bool
    default: true
  trials:
    description:
      - With O(state=checked), whether an instance may run a release that a search of settings only tries. Without it
        that is a problem. With it the instance's last good release counts, and it may be down.
    type: bool
    default: false
  root:
    description: The directory of releases.
    type: path
    default: /opt/inference
  client:
    description: With O(state=measured), the program.
    type: path
  url:
    description: With O(state=measured), the base URL, without C(/v1).
    type: str
  model:
    description: With O(state=measured), the model's served name.
    type: str
  tokenizer:
    description: With O(state=measured), the directory of the model, for the lengths of prompts.
    type: path
  api_key:
    description: The key to send. Without it, the host's engine key is sent.
    type: str
  key_file:
    description: The file with the host's engine key.
    type: path
    default: /etc/inference/engine_key.env
  scenario:
    description: With O(state=measured), the load, as module M(inference.fleet.benchmark) plans it.
    type: dict
  gpus:
    description: The indices of the instance's GPUs, for memory and power.
    type: list
    elements: int
    default: []
  run:
    description: With O(state=measured), the id of the run.
    type: str
    default: ""
  repeats:
    description: How often the scenario is measured.
    type: int
    default: 3
  request_timeout:
    description: Seconds for one request.
    type: float
    default: 600
  timeout:
    description: Seconds for one repeat.
    type: float
    default: 1800
  drain_path:
    description: The record of the host's drains.
    type: path
    default: /var/lib/inference/drain.json
  path:
    description: Where the running client is recorded.
    type: path
    default: /var/lib/inference/benchmark.json
seealso:
  - module: inference.fleet.benchmark
"""

EXAMPLES = r"""
- name: Measure 8 requests at once
  inference.fleet.benchmark_client:
    state: measured
    client: /opt/inference/runtimes/aiperf-0.13.0-1f0c9a2e/bin/aiperf
    url: http://127.0.0.1:8100
    model: Qwen/Qwen3-VL-8B-Instruct
    tokenizer: /opt/inference/models/Qwen--Qwen3-VL-8B-Instruct
    run: 20261130T101500Z
    scenario:
      name: at_8
      concurrency: 8
      requests: 32
      warmup: 8
      prompt_tokens: 1024
      output_tokens: 128
"""

RETURN = r"""
instances:
  description: >-
    With O(state=checked), for each instance by its name C(engine), C(version), C(model), C(revision), C(release),
    C(tokenizer), C(served_name) and C(context), the tokens of the longest request.
  returned: with O(state=checked)
  type: dict
problems:
  description: With O(state=checked), why an instance cannot be measured.
  returned: with O(state=checked)
  type: list
  elements: str
measured:
  description: >-
    With O(state=measured), the C(scenario); C(repeats), the figures of each; C(requests) and how many of them
    C(failed); C(problem), the first reason; C(prompt_tokens) of the longest prompt; C(gpu) with C(gpu_memory_gib) and
    C(watts), or C(gpu_problem).
  returned: with O(state=measured)
  type: dict
stopped:
  description: Whether a client of an earlier run was stopped.
  returned: with O(state=checked)
  type: bool
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.benchmark import run as benchmark
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.client import MeasuredEndpoint, Scenario
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, read_text
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.engines.key import parse
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import kind
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Releases
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure

_MEASURED = ("client", "url", "model", "tokenizer", "scenario", "run")
_ASK_SECONDS = 10.0


def check(params: dict[str, t.Any], stop: bool) -> dict[str, t.Any]:
    """What the instances serve."""
    stopped = benchmark.stop_left_over(params["path"]) if stop else False
    releases = Releases(params["root"])
    found: dict[str, t.Any] = {}
    problems = _held(params["drain_path"]) if params["drained"] else []
    for instance in params["instances"]:
        # The other nodes of an instance that spans hosts answer nothing.
        if not instance.get("serves", True):
            continue
        name, index = str(instance["name"]), int(instance["index"])
        trial = releases.trial(index)
        if trial and not params["trials"]:
            problems.append(
                f"{name} has {trial}, which a search of settings was only trying when it was broken off. "
                "playbooks/tune.yml, site.yml or playbooks/rolling_restart.yml puts its settings back."
            )
            continue
        release = releases.kept(index)
        manifest = releases.manifest(release)
        if not manifest:
            problems.append(f"{name} has no release: site.yml deploys one.")
            continue
        try:
            served = {} if trial else _ask(int(instance["engine_port"]), _engine_key(params["key_file"]))
        except (HttpFailure, FleetError) as error:
            said = error.said if isinstance(error, HttpFailure) else error.message
            problems.append(f"{name} does not answer at its own port {instance['engine_port']}: {said}.")
            continue
        copied = ("engine", "version", "model", "revision")
        found[name] = {
            **{key: str(manifest.get(key) or "") for key in copied},
            "release": release,
            "tokenizer": str(manifest.get("model_path") or ""),
            "served_name": str(served.get("id") or manifest.get("served_name") or ""),
            "context": int(served.get("max_model_len") or _context(manifest)),
        }
    return {"changed": False, "instances": found, "problems": problems, "stopped": stopped}


def _context(manifest: dict[str, t.Any]) -> int:
    """The context that a release's options name; 0 where they name none."""
    means = kind(manifest["engine"]).options.means
    found = (manifest.get("options") or {}).get(means.get("context_length", ""))
    return found if isinstance(found, int) else 0


def _held(path: str) -> list[str]:
    """Why the host must not be drained and undrained: what others have drained stays so."""
    drains = edge_state.read_drains(read_json(path), path)
    problems = [
        f"an operator has drained {server or 'it'}{f' ({mark.reason})' if mark.reason else ''}; playbooks/undrain.yml "
        "puts it back."
        for server, mark in [("", drains.host), *drains.instances.items()]
        if mark and mark.by == edge_state.OPERATOR
    ]
    return problems + ([f"AWS announces: {drains.announced}."] if drains.aws and drains.aws.mark else [])


def _ask(port: int, key: str) -> dict[str, t.Any]:
    reply = HttpClient(f"http://127.0.0.1:{port}", key=key, timeout=_ASK_SECONDS).get("/v1/models")
    if reply.status != 200:
        raise FleetError(f"{reply.status} for its models")
    models = (reply.json() or {}).get("data") or [{}]
    return t.cast("dict[str, t.Any]", models[0])


def _engine_key(path: str) -> str:
    keys = parse(read_text(path) or "")
    if keys is None:
        raise FleetError(f"{path} has no key; site.yml makes one")
    return keys.current


def measure(params: dict[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """The figures of a scenario."""
    scenario = Scenario(**params["scenario"])
    if check_mode:
        return {"changed": False, "measured": {}}
    if not os.access(params["client"], os.X_OK):
        raise FleetError(f"{params['client']} is not there: role benchmark installs it.")
    endpoint = MeasuredEndpoint(params["url"], params["model"], params["tokenizer"])
    run = benchmark.BenchmarkRun(
        program=params["client"],
        endpoint=endpoint,
        key=params["api_key"] or _engine_key(params["key_file"]),
        gpus=params["gpus"],
        id=params["run"],
        repeats=params["repeats"],
        request_timeout=params["request_timeout"],
        timeout=params["timeout"],
    )
    return {"changed": False, "measured": benchmark.measure(run, scenario, params["path"])}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["checked", "measured"]},
            "instances": {"type": "list", "elements": "dict", "default": []},
            "drained": {"type": "bool", "default": True},
            "trials": {"type": "bool", "default": False},
            "drain_path": {"type": "path", "default": edge_state.DRAIN_RECORD_PATH},
            "root": {"type": "path", "default": ENGINE_ROOT},
            "client": {"type": "path"},
            "url": {"type": "str"},
            "model": {"type": "str"},
            "tokenizer": {"type": "path"},
            "api_key": {"type": "str", "no_log": True},
            "key_file": {"type": "path", "default": edge_state.ENGINE_KEY_PATH, "no_log": False},
            "scenario": {"type": "dict"},
            "gpus": {"type": "list", "elements": "int", "default": []},
            "run": {"type": "str", "default": ""},
            "repeats": {"type": "int", "default": 3},
            "request_timeout": {"type": "float", "default": 600},
            "timeout": {"type": "float", "default": 1800},
            "path": {"type": "path", "default": benchmark.PATH},
        },
        required_if=[("state", "measured", _MEASURED)],
        supports_check_mode=True,
    )
    params = module.params
    if params["state"] == "checked":
        finish(module, lambda: check(params, stop=not module.check_mode))
    finish(module, lambda: measure(params, module.check_mode))


if __name__ == "__main__":
    main()
