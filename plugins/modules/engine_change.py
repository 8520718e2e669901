# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_change
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Carry out a step of the change of an instance
description:
  - Drains, stops, starts and undrains an instance whose release changes, or that is restarted or removed. Each step
    runs its modules, and records itself in the rollout's journal.
  - Each step returns the state of the change, which is an argument of the next one. The wait until the instance serves,
    and both gates, are between the steps; role engine has them in order.
  - A step that fails is a failed task. O(step=judge) then decides what follows, an attempt with the last good release
    where something was stopped, or the end.
attributes:
  check_mode:
    support: full
    description: Passes check mode on to the modules that it runs, and writes nothing to the journal.
  diff_mode:
    support: none
    description: A change of a release is shown when it is staged.
options:
  step:
    description:
      - A step of a rollout, or one around them.
      - V(begin) makes a change out of what is staged. V(prove) marks the attempt as proven, on the host that serves the
        requests, and V(follow) on the further nodes of an instance that spans hosts. V(confirm) records the result.
        V(judge) decides what a failure leads to.
      - V(stop) also selects the release that is started next, and V(undrain) removes the drain of an instance that was
        removed.
      - V(measure) takes the place of V(stop) and V(start) in a benchmark, which changes nothing.
      - V(trial) stops a drained instance and selects O(release), which is only tried, for the next V(start).
        V(conclude) ends the trials, and makes the rest a change to O(release).
    type: str
    required: true
    choices:
      [begin, drain, trial, measure, stop, start, gate, undrain, edge_gate, conclude, prove, follow, confirm, judge]
  change:
    description:
      - The result of the previous step.
      - With O(step=begin), that of the host's previous instance, which is returned again if it failed, with
        RV(attempt=0). The host's other instances are then left unchanged.
    type: dict
    default: {}
  release:
    version_added: 0.3.0
    description: With O(step=trial) and O(step=conclude), the release.
    type: str
    default: ""
  staged:
    description: With O(step=begin), what M(inference.fleet.engine_release) returned for the instance.
    type: dict
  instances:
    description: With O(step=begin), the host's instances, as M(inference.fleet.fleet_facts) gives them.
    type: list
    elements: dict
    default: []
  root:
    description: With O(step=begin), the directory of runtimes, releases and instances.
    type: str
    default: /opt/inference
  edge_url:
    description: With O(step=begin), the base URL of the host's edge, on the host.
    type: str
    default: http://127.0.0.1:8000
  journal:
    description: With O(step=begin), the rollout's journal on the controller; empty for none.
    type: str
    default: ""
  rollout:
    description: With O(step=begin), the rollout's id; empty for none.
    type: str
    default: ""
  lame_duck_seconds:
    description: With O(step=begin), how long the balancer in front needs to notice a drain.
    type: float
    default: 0
  drain_seconds:
    description: With O(step=begin), how long requests in flight may take to finish.
    type: float
    default: 0
  forget_previous:
    description: With O(step=begin), do not keep the previous good release for a rollback.
    type: bool
    default: false
  keep_releases:
    description: With O(step=begin), how many releases to keep beside those that are in use.
    type: int
    default: 3
  edge_later:
    description:
      - With O(step=begin), whether the host serves without its instances until one has passed its gate. The host is not
        drained then.
    type: bool
    default: false
  measures:
    version_added: 0.3.0
    description: With O(step=begin), whether the instance is measured and not changed, so that nothing is rolled back.
    type: bool
    default: false
  task:
    description: With O(step=judge), the name of the failed task, where it did not use this module.
    type: str
    default: ""
  reason:
    description: With O(step=judge), why that task failed.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Begin
  inference.fleet.engine_change:
    step: begin
    staged: "{{ staged.instances[0] }}"
    instances: "{{ engine_instances }}"
    lame_duck_seconds: 15
    drain_seconds: 300
  register: engine_change

- name: Drain
  inference.fleet.engine_change: {step: drain, change: "{{ engine_change }}"}
  register: engine_change
"""

RETURN = r"""
attempt:
  description: V(1) brings the release into service, V(2) the last good one; V(0) when nothing is left to try.
  returned: always
  type: int
subject:
  description: The instance as this attempt starts it; empty where it starts none.
  returned: always
  type: dict
drafts:
  description: Whether it has a draft model.
  returned: always
  type: bool
passed:
  description: The attempt that passed both gates; V(0) for none.
  returned: always
  type: int
outcome:
  description:
    - The outcome, empty while the change goes on. V(done); V(rolled_back) to the last good release, which serves;
      V(stopped), without one; V(unrecorded), it serves and that could not be recorded; V(drained) or V(failed) after a
      failed rollback, by the state that was found.
  returned: always
  type: str
message:
  description: Why it failed, and what the instance runs now.
  returned: always
  type: str
"""
