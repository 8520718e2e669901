# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status_page
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Write the fleet's status as one HTML page
description:
  - Writes what was read of the fleet's hosts into one self-contained HTML file on the controller, readable by its owner
    only. It makes no connection to hosts.
  - With O(prometheus_url) it asks a Prometheus for the last hours, and draws load, requests, errors, time to first
    token and tokens per second. A Prometheus that does not answer, or answers in another format, is named on the page
    and in RV(problem); the page is written all the same.
  - The page is replaced atomically. A file that is no status page is never replaced.
  - Run it once for all hosts.
attributes:
  check_mode:
    support: full
    description: Writes nothing, and returns what it would write.
  diff_mode:
    support: partial
    description: Shows the fleet in one line, of the page that is there and of the new one.
options:
  path:
    description: The file. Its directory must exist.
    type: path
    required: true
  hosts:
    description: For each host the result of M(inference.fleet.fleet_status), or the failure.
    type: dict
    required: true
  gateways:
    description: Those of the hosts that are gateways.
    type: list
    elements: str
    default: []
  gpus:
    description: For each host the result of M(inference.fleet.gpu_info), or the failure; empty where it was not asked.
    type: dict
    default: {}
  aws:
    description: RV(inference.fleet.aws_status#module:hosts) of M(inference.fleet.aws_status).
    type: dict
    default: {}
  costs:
    description: What the hosts cost, from the filter P(inference.fleet.host_costs#filter).
    type: list
    elements: dict
    default: []
  beyond:
    description: The hosts that were not asked, from the filter P(inference.fleet.hosts_beyond#filter).
    type: list
    elements: dict
    default: []
  store:
    description: The result of M(inference.fleet.api_key) with state V(read), or the failure.
    type: dict
    default: {}
  rollouts:
    description: Lines about unfinished rollouts, from the filter P(inference.fleet.unfinished_rollouts#filter).
    type: list
    elements: str
    default: []
  notes:
    description: Further lines, such as where prices are from.
    type: list
    elements: str
    default: []
  prometheus_url:
    description: A Prometheus, such as V(http://127.0.0.1:9090). User and password in it are never shown.
    type: str
    default: ""
  history:
    description: Seconds that the charts show.
    type: float
    default: 21600
seealso:
  - module: inference.fleet.fleet_status
"""

EXAMPLES = r"""
- name: Write the page
  inference.fleet.status_page:
    path: status.html
    hosts: "{{ dict(names | zip(names | map('extract', hostvars, 'status_result'))) }}"
    prometheus_url: http://127.0.0.1:9090
  vars:
    names: "{{ ansible_play_hosts_all }}"
  run_once: true
"""

RETURN = r"""
page:
  description: The file.
  returned: success
  type: str
summary:
  description: The fleet in one line, which is the page's title, too.
  returned: success
  type: str
  sample: 38 of 40 hosts in service, 21 Sep 2026, 14:13:20 UTC
problem:
  description: Why the page has no history, or only a part of it; empty for no problem.
  returned: success
  type: str
"""
