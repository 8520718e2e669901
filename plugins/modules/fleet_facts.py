# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_facts
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Compute what hosts run
description:
  - Computes from the inventory what each host runs, namely its engine, its instances with their GPUs and ports, the
    services of its edge, and on a gateway the inference hosts behind each model. It makes no connection.
  - Run it once for all hosts, and pass what roles need of RV(hosts) as arguments, as C(playbooks/vars/arguments.yml)
    does.
  - An invalid variable does not stop the other hosts. RV(hosts) has the C(problem) of its host then, and lacks what
    depends on it, so that no role continues with a wrong value.
  - Variables are those of the inventory and of the command line. Variables of the play count only for the host that the
    task runs for.
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  hosts:
    description: The hosts; by default the one that the task runs for.
    type: list
    elements: str
seealso:
  - module: inference.fleet.fleet_variables
"""

EXAMPLES = r"""
- name: Compute what every host runs
  inference.fleet.fleet_facts:
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true
  register: fleet_facts

- name: Show the instances of each host
  ansible.builtin.debug:
    msg: "{{ fleet_facts.hosts[inventory_hostname].instances | map(attribute='name') }}"
"""

RETURN = r"""
code:
  description: The digest of this collection's files, which a host's receipt records.
  returned: always
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
hosts:
  description: The facts of each host, by its name.
  returned: always
  type: dict
  contains:
    tier:
      description: >-
        V(gateway) for hosts of the group C(gateway), else V(inference). The hosts of a tier are changed together.
      returned: always
      type: str
      sample: inference
    ring:
      description: Its ring in rollouts, V(canary) for a host of the group C(ring_canary). Empty for none.
      returned: always
      type: str
      sample: canary
    is_gateway:
      description: Whether the host is a gateway.
      returned: always
      type: bool
    gateway_kind:
      description: >-
        What serves the clients of a gateway, V(edge) where that is its edge alone. Empty for an inference host.
      returned: always
      type: str
      sample: edge
    profile:
      description: >-
        The profile of its engines' settings, C(engine_profile); of a measured one with a digest of its file. Empty
        where the variable is not set, and on a gateway.
      returned: always
      type: str
      sample: measured-l40s-interactive 5d41402abc4b
    problem:
      description: What is wrong with the host's variables, with the variable, its value and what is valid.
      returned: always; empty where nothing is
      type: str
      sample: "fleet_instances[1].port is 0; a port is 1 to 65535."
    engine:
      description: >-
        What its instances run unless one of them names its own. It is C(engine), else C(fleet_engine_tag), else
        C(fleet_engine). C(problem) reports an unknown engine. Of a gateway without instances, its kind.
      returned: when the variables can be read
      type: str
      sample: vllm
    edge_port:
      description: The port of its edge.
      returned: when it is a number
      type: int
      sample: 8000
    edge_url:
      description: The edge's URL on the host itself.
      returned: when its port is a number
      type: str
      sample: http://127.0.0.1:8000
    address:
      description: Where other hosts reach it.
      returned: always
      type: str
      sample: 10.0.8.11
    has_database:
      description: Whether the gateways record spending.
      returned: when the variables can be read
      type: bool
    caches:
      description: Whether its answers may come from a cache of whole answers.
      returned: always
      type: bool
    affinity:
      description:
        - How a request finds the instance, or on a gateway the host, that may have its beginning in the cache.
      returned: always
      type: str
      sample: prefix
    model:
      description: The name of the requested model; on a gateway that of its first model.
      returned: when C(problem) is empty
      type: str
      sample: Qwen/Qwen3-VL-8B-Instruct
    gpu_count:
      description: How many GPUs it has.
      returned: when C(problem) is empty
      type: int
      sample: 4
    instances:
      description: Its instances, as the modules and roles of this collection take them.
      returned: when C(problem) is empty
      type: list
      elements: dict
      contains:
        index:
          description: Its place on the host, from 0.
          type: int
        name:
          description: Engine and index.
          type: str
        engine:
          description: What it runs.
          type: str
        unit:
          description: Its systemd unit.
          type: str
        gpus:
          description: The GPUs that it owns, counted from 0.
          type: list
          elements: int
        port:
          description: The edge's port that leads to it.
          type: int
        engine_port:
          description: Its own port on the loopback interface.
          type: int
        health_path:
          description: The path of its health check.
          type: str
        served_name:
          description: The model name that clients use.
          type: str
        serves:
          description: Whether requests come to it. False on all but the first host of an instance that spans hosts.
          type: bool
        span:
          description: The host's place in an instance that spans hosts, with all of its nodes; else empty.
          type: dict
      sample:
        - index: 0
          name: vllm-0
          engine: vllm
          unit: vllm@0.service
          gpus: [0]
          port: 8000
          engine_port: 8100
          health_path: /health
          served_name: Qwen/Qwen3-VL-8B-Instruct
          serves: true
          span: {}
    edge_services:
      description: The edge's ports with the instances behind each, as role edge takes them.
      returned: when C(problem) is empty
      type: list
      elements: dict
    gate_targets:
      description: The gate's targets, for each port of the edge its name, its URL on the host itself, and the model.
      returned: when C(problem) is empty
      type: list
      elements: dict
      sample: [{name: edge, url: "http://127.0.0.1:8000", model: Qwen/Qwen3-VL-8B-Instruct}]
    edge_urls:
      description: The URLs of C(gate_targets).
      returned: when C(problem) is empty
      type: list
      elements: str
    engine_urls:
      description: The URLs of the instances that serve requests, on the host itself.
      returned: when C(problem) is empty
      type: list
      elements: str
      sample: ["http://127.0.0.1:8100"]
    upstreams:
      description: >-
        On a gateway, the ports at which the inference hosts serve, each with C(host), C(address), C(port), C(engine),
        C(model), C(tls), C(tls_name) and C(gpus).
      returned: when C(problem) is empty
      type: list
      elements: dict
    peers:
      description: >-
        On a gateway, the edges of the others, each with C(name), C(address), C(port), C(tls) and C(tls_name).
      returned: when C(problem) is empty
      type: list
      elements: dict
    pools:
      description: On a gateway, the hosts behind each of its models, as role edge takes them.
      returned: when C(problem) is empty
      type: list
      elements: dict
    front:
      description: >-
        On a gateway whose edge leads into the pools by itself, its only service, as role edge takes it; else empty.
      returned: when C(problem) is empty
      type: dict
    counters:
      description: >-
        On such a gateway, all gateways of that kind, each with C(name), C(host), C(address), C(port), C(tls) and
        C(tls_name).
      returned: when C(problem) is empty
      type: list
      elements: dict
"""
