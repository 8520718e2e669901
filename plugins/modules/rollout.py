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
  - The controller's side of every change of a fleet. It reads all hosts of the run at once, so its tasks have
    C(run_once); it makes no connection.
  - It reads from each host what role P(inference.fleet.rollout#role) sets there. C(rollout_facts) is what would change,
    C(rollout_status) what M(inference.fleet.fleet_status) returned, C(rollout_claimed) what
    M(inference.fleet.rollout_claim) returned, and C(rollout_proof) why the host does not pass the final gate.
  - The journal is the only source of truth, so a run that was killed at any point can be resumed.
attributes:
  check_mode:
    support: full
    description: V(locked) and V(planned) say what they would do; the other states are for a rollout that walks.
  diff_mode:
    support: none
    description: The plan says what would change.
options:
  state:
    description:
      - V(locked) locks out every other run on this controller until this one ends, however it ends.
      - V(known) says who changes the fleet from this controller now, and locks nothing.
      - V(planned) computes waves, reasons, refusals and warnings, and changes nothing.
      - V(contested) checks, once the hosts of the run are claimed and all were looked at, whether the rollout of
        another controller holds any host, so that no two of them count on each other's hosts.
      - V(begun) opens the record, or continues that of an interrupted rollout.
      - V(watched) says which wave has just ended and is to be compared with untouched hosts.
      - V(baked) waits O(pause) seconds if a wave has just ended.
      - V(compared) compares what the hosts of O(wave) and those that the rollout has not touched counted between
        O(counters) and their C(rollout_counters), and records it. If they are worse, V(next) stops.
      - V(next) decides from the journal and from the fleet's present load which hosts are changed now, or why none.
      - V(turned) records how the turn ended on each of O(hosts), from their C(engine_change) and from O(balancer).
      - V(ended) closes the record, writes its page, gives the lock back, and fails if the rollout has.
    type: str
    required: true
    choices: [locked, known, planned, contested, begun, watched, baked, compared, next, turned, ended]
  records:
    description: The directory of the fleet's rollouts on the controller.
    type: path
    required: true
  verb:
    description: What the rollout does.
    type: str
    choices: [site, rolling_restart, rollback, benchmark, tune]
    default: site
  waves:
    description: The waves after the canary ring, numbers of hosts or percentages of what is done after the wave.
    type: raw
  resume:
    description: Whether to resume an unfinished rollout of the same verb.
    type: bool
    default: true
  resume_within:
    description: Seconds after which such a rollout is not resumed.
    type: float
    default: 86400
  take_over:
    description: Take over the lock, or with V(planned) the hosts, of a dead run.
    type: bool
    default: false
  wait:
    version_added: 0.3.0
    description: With V(locked), seconds to wait for another run to end. If it has not by then, the result has C(busy).
    type: float
    default: 0
  accept_downtime:
    description: Change instances even if no other instance serves.
    type: bool
    default: false
  accept_no_way_back:
    description: Change serving instances even if none of their releases has passed a gate.
    type: bool
    default: false
  max_load:
    description: The share of the remaining instances' concurrent requests that may be used (0 to 1).
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
  max_regression:
    version_added: 0.3.0
    description:
      - How many times as bad as the untouched hosts those of a wave may be, by what M(inference.fleet.serving_counters)
        reads - share of errors, median time between tokens, and share of first tokens after one second.
      - 0 or empty compares nothing, and a rollback is never compared.
    type: raw
  wave:
    version_added: 0.3.0
    description: With V(compared), the wave that was watched.
    type: int
    default: 0
  counters:
    version_added: 0.3.0
    description: With V(compared), what V(baked) returned.
    type: dict
  stop_on_alarms:
    version_added: 0.3.0
    description:
      - The names of CloudWatch alarms, as a list or that list as JSON. With V(locked) they must exist, with V(planned)
        one in the state C(ALARM) refuses the rollout, and with V(next) it stops the rollout.
      - It needs boto3 and credentials with the right C(cloudwatch:DescribeAlarms). A O(verb=rollback) does not look.
    type: raw
  fleet:
    version_added: 0.3.0
    description: All hosts of the tier; O(stop_on_alarms) are looked for in their regions (C(fleet_region)).
    type: list
    elements: str
    default: []
  plan:
    description: What V(planned) returned.
    type: dict
  looks:
    description: With O(state=contested), the number of looks at the hosts so far.
    type: int
    default: 0
  walking:
    description: With O(state=contested), whether the rollout has begun to walk.
    type: bool
    default: false
  balancer:
    version_added: 0.3.0
    description:
      - What M(inference.fleet.target_group) returned. With V(planned) and V(next) the last look at the target groups. A
        host that is not healthy in all its groups does not count as capacity, and the last healthy host of a group is
        not taken out. With V(turned) the registration of the turn's hosts.
    type: dict
  hosts:
    version_added: 0.3.0
    description: With O(state=turned), the hosts of the turn.
    type: list
    elements: str
    default: []
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
  description: The other rollout that holds hosts, so that this one must release its own; empty for none.
  returned: with O(state=contested)
  type: str
again:
  description: Whether another rollout must release its hosts first, so that the hosts must be looked at again.
  returned: with O(state=contested)
  type: bool
looks:
  description: The next value of O(looks).
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
  description: Its length before this run, in bytes; 0 for a new rollout.
  returned: with O(state=begun)
  type: int
wave:
  description: The number of the wave that comes now, or that was watched.
  returned: with O(state=next), O(state=watched) and O(state=baked)
  type: int
counters:
  description: What each host had counted before the pause.
  returned: with O(state=baked)
  type: dict
verdict:
  description: V(worse), V(fine) or V(inconclusive); empty where nothing was compared.
  returned: with O(state=compared)
  type: str
text:
  description: The comparison in a sentence, with its figures.
  returned: with O(state=compared)
  type: str
hosts:
  description: The hosts to change now.
  returned: with O(state=next)
  type: list
  elements: str
left_out:
  description: The hosts of the plan that are not changed because they drain themselves for what AWS announces.
  returned: with O(state=next)
  type: list
  elements: str
self_test:
  description: The host on which the gate must show that it can fail; empty for none.
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
