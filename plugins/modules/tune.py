# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tune
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Decide which settings of an engine are tried next, and which won
description:
  - The controller's side of a search of settings on one host. It validates what is searched for, decides what is tried
    next within a budget of time, judges what was measured, and writes the winner as a profile.
  - It reads from the host's variables what other modules returned (C(tune_kept), C(engine_trials_staged),
    C(engine_described), C(benchmark_planned), C(benchmark_checked), C(rollout_status), C(engine_change)), and makes no
    connection. Role C(engine) starts and gates the trials, and role C(benchmark) measures them.
attributes:
  check_mode:
    support: full
    description: With O(state=recorded) nothing is written.
  diff_mode:
    support: none
    description: Only records and a profile are written.
options:
  state:
    description:
      - V(checked) validates the settings, before any host is asked.
      - V(planned) decides what is searched, before anything is touched. It fails with all that is wrong.
      - V(next) decides what is tried next, or that the search is at its end.
      - V(tried) adds a trial to the others.
      - V(found) finds the winner.
      - V(recorded) keeps what was tried, and writes the profile.
    type: str
    required: true
    choices: [checked, planned, next, tried, found, recorded]
  records:
    description:
      - The directory of the records of benchmarks, on the controller; those of searches are in C(tuning) there.
    type: path
    required: true
  settings:
    description:
      - With O(state=checked) and O(state=planned), the settings, by the names of role tune's variables without their
        prefix.
    type: dict
    default: {}
  profiles:
    description: With O(state=checked) and O(state=planned), the directory of the measured profiles, on the controller.
    type: str
    default: ""
  profile:
    description: With O(state=checked), the profile of the host, from which the search begins.
    type: str
    default: balanced
  gpu:
    description: With O(state=checked), the host's GPU; empty where unknown.
    type: str
    default: ""
  hardware:
    description: With O(state=checked), the same, and V(cpu) for a host without one.
    type: str
    default: ""
  instances:
    description: With O(state=checked), the host's instances, as M(inference.fleet.fleet_facts) gives them.
    type: list
    elements: dict
    default: []
  checked:
    description: With O(state=planned), the result of O(state=checked).
    type: dict
    default: {}
  start_timeout:
    description: With O(state=planned), the most seconds of a start.
    type: float
    default: 1200
  plan:
    description: From O(state=next) on, the result of O(state=planned).
    type: dict
    default: {}
  trials:
    description: From O(state=next) on, the trials so far.
    type: list
    elements: dict
    default: []
  began:
    description: With O(state=next), when the drain began; with O(state=tried), when the trial began. Unix time.
    type: float
    default: 0
  next:
    description: With O(state=tried), the result of O(state=next).
    type: dict
    default: {}
  tried:
    description:
      - With O(state=tried), how the trial went, C(release), C(measuring) (Unix time), and C(done), or C(step) and
        C(problem) of what ended it.
    type: dict
    default: {}
  results:
    description: With O(state=tried), what M(inference.fleet.benchmark_client) measured.
    type: list
    elements: dict
    default: []
  broken:
    description: With O(state=recorded), why the search broke off; empty where it did not.
    type: str
    default: ""
seealso:
  - module: inference.fleet.benchmark_client
  - module: inference.fleet.engine_change
"""

EXAMPLES = r"""
- name: Check what is searched for
  inference.fleet.tune:
    state: checked
    records: ~/.config/inference-fleet/benchmarks/aws
    profiles: inventories/aws/group_vars/engine_profiles
    settings: {for: interactive, max_itl: 0.05, minutes: 30, repeats: 3, keep_records: 10}
    instances: "{{ engine_instances }}"
    gpu: L40S
    hardware: L40S
  register: tune_checked
"""

RETURN = r"""
instance:
  description: The instance that tries the settings.
  returned: with O(state=checked) and O(state=planned)
  type: dict
scenario:
  description: The load.
  returned: with O(state=checked)
  type: str
probes:
  description: The baseline and a change of each setting, to see which have an effect.
  returned: with O(state=checked)
  type: list
  elements: dict
lines:
  description: For people, what is searched, or what won.
  returned: with O(state=planned) and O(state=recorded)
  type: list
  elements: str
turns:
  description: The most calls of O(state=next) that can be needed.
  returned: with O(state=planned)
  type: int
finished:
  description: Whether the search is at its end.
  returned: with O(state=next)
  type: bool
changes:
  description: What differs from the baseline in the next trial; empty for the baseline.
  returned: with O(state=next), unless it is finished
  type: dict
said:
  description: What was decided or seen, for people.
  returned: with O(state=next), O(state=tried) and O(state=found)
  type: str
trials:
  description: The trials with the new one.
  returned: with O(state=tried)
  type: list
  elements: dict
winner:
  description: The number of the trial that won; none where nothing did.
  returned: with O(state=found)
  type: int
keeps:
  description: The release that the instance is to run.
  returned: with O(state=found)
  type: str
rows:
  description: The trials, for the filter P(inference.fleet.table#filter).
  returned: with O(state=recorded)
  type: list
  elements: dict
columns:
  description: The table's columns.
  returned: with O(state=recorded)
  type: list
  elements: dict
record:
  description: The record's path; empty where none was written.
  returned: with O(state=recorded)
  type: str
profile:
  description: The path of the measured profile; empty where none was written.
  returned: with O(state=recorded)
  type: str
problem:
  description: Why there is no result; empty where there is one.
  returned: with O(state=recorded)
  type: str
"""
