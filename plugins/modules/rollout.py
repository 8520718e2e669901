# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Plan a rollout, decide which hosts are next, and keep its record
description:
  - The controller's side of every change of a fleet. It looks at all hosts of the run at once, so its tasks have
    C(run_once); it makes no connection.
  - It reads from each host what role P(inference.fleet.rollout#role) leaves there. C(rollout_facts) is what would
    change, C(rollout_status) what M(inference.fleet.fleet_status) returned, C(rollout_claimed) what
    M(inference.fleet.rollout_claim) returned, and C(rollout_proof) why the host does not answer at the end.
  - The journal is the truth, so a run that was killed anywhere can be gone on with.
attributes:
  check_mode:
    support: full
    description: V(locked) and V(planned) say what they would; the other states are for a rollout that walks.
  diff_mode:
    support: none
    description: The plan says what would change.
options:
  state:
    description:
      - V(locked) keeps every other run on this controller off the fleet until this one ends, however it ends.
      - V(planned) works out waves, reasons, refusals and warnings, touching nothing.
      - V(contested) finds out, once the hosts of the run are claimed and all were looked at, whether the rollout of
        another controller holds any host, so that never two of them count on each other's hosts.
      - V(begun) opens the record, or goes on with that of a rollout that was broken off.
      - V(baked) waits O(pause) seconds if a wave has just ended.
      - V(next) decides from the journal and from the fleet's present load which hosts are changed now, or why none.
      - V(ended) closes the record, writes its page, gives the lock back, and fails if the rollout has.
    type: str
    required: true
    choices: [locked, planned, contested, begun, baked, next, ended]
  records:
    description: The directory of the fleet's rollouts on the controller.
    type: path
    required: true
  verb:
    description: What the rollout does.
    type: str
    choices: [site, rolling_restart, rollback]
    default: site
  waves:
    description: The waves after the canary ring, numbers of hosts or percentages of what is done after the wave.
    type: raw
  resume:
    description: Whether to go on with a rollout of the same verb that has not come to its good end.
    type: bool
    default: true
  resume_within:
    description: Seconds after which such a rollout is not gone on with.
    type: float
    default: 86400
  take_over:
    description: The run that holds the lock, or hosts at the moment of V(planned), is known to be dead.
    type: bool
    default: false
  accept_downtime:
    description: Change instances although nothing else serves.
    type: bool
    default: false
  accept_no_way_back:
    description: Change instances that serve although none of their releases has passed a gate.
    type: bool
    default: false
  max_load:
    description: How much of what the remaining instances work on at once may be used (0 to 1).
    type: float
    default: 0.9
  max_failures:
    description: How many hosts may fail before the rollout stops.
    type: int
    default: 0
  when_short:
    description: What to do when the rest of the fleet cannot carry the load while a wave is out.
    type: str
    choices: [refuse, shrink, force]
    default: refuse
  pause:
    description: Seconds to watch each wave before the next.
    type: float
    default: 0
  plan:
    description: What V(planned) returned.
    type: dict
  looks:
    description: With O(state=contested), how often the hosts were looked at already.
    type: int
    default: 0
  walking:
    description: With O(state=contested), whether the rollout has begun to walk.
    type: bool
    default: false
  message:
    description: With O(state=ended), why the rollout was stopped.
    type: str
    default: ""
  traffic:
    description: With O(state=ended), the report of M(inference.fleet.traffic).
    type: dict
"""

EXAMPLES = r"""
- name: Plan
  inference.fleet.rollout:
    state: planned
    verb: rolling_restart
    records: ~/.config/inference-fleet/rollouts
    waves: [1, 25%, 100%]
  register: rollout_planned
  run_once: true
"""

RETURN = r"""
plan:
  description: The waves, the hosts with their instances, what is left out, warnings and refusals.
  returned: with O(state=planned)
  type: dict
refused:
  description: Which other rollout holds hosts, so that this one has to give its own back; empty for none.
  returned: with O(state=contested)
  type: str
again:
  description: Whether another rollout has to give its hosts back first, so that they are to be looked at again.
  returned: with O(state=contested)
  type: bool
looks:
  description: What the next O(looks) is.
  returned: with O(state=contested)
  type: int
journal:
  description: The journal's path.
  returned: with O(state=begun)
  type: str
pid:
  description: The process of ansible-playbook, whose end ends the lock and the traffic driver.
  returned: with O(state=begun)
  type: int
journal_offset:
  description: How long it was before, in bytes; 0 for a new rollout.
  returned: with O(state=begun)
  type: int
wave:
  description: The number of the wave that comes now, or that was watched.
  returned: with O(state=next) and O(state=baked)
  type: int
hosts:
  description: The hosts that are changed now.
  returned: with O(state=next)
  type: list
  elements: str
self_test:
  description: The host on which the gate has to show that it can fail; empty for none.
  returned: with O(state=next)
  type: str
finished:
  description: Whether nothing is left to do.
  returned: with O(state=next)
  type: bool
stop:
  description: Why the rollout stops here; empty when it goes on.
  returned: with O(state=next)
  type: str
page:
  description: The record's page; empty where nothing had to be changed.
  returned: with O(state=ended)
  type: str
"""
