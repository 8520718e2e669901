# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: key_rotation
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Keep a rotation's lock and record, and judge whether it may go on
description:
  - The controller's side of role P(inference.fleet.keys#role). It reads all hosts of the run at once, so its tasks have
    C(run_once); it makes no connection. The keys themselves are handled by M(inference.fleet.api_key).
  - It reads from each host C(keys_failure), what went wrong there, and C(keys_proof), what M(inference.fleet.key_proof)
    returned.
  - The record is a file of one JSON object a line under C(rotations) in O(records), named after the rotation. It holds
    fingerprints and no keys.
attributes:
  check_mode:
    support: full
    description: Writes nothing and takes no lock.
  diff_mode:
    support: none
    description: Changes nothing on a host.
options:
  state:
    description:
      - V(locked) refuses a run whose C(--limit) leaves out an inference host or a gateway, and locks out rollouts and
        other key changes on this controller until this run ends, however it ends.
      - V(begun) opens the record, or continues it.
      - V(noted) records that O(step) begins.
      - V(judged) records the result of each host, and returns what prevents the rotation from going on.
      - V(ended) closes the record, and fails with O(message) if there is one.
    type: str
    required: true
    choices: [locked, begun, noted, judged, ended]
  records:
    description: The directory of the fleet's rollouts on the controller, which also holds the lock.
    type: path
    required: true
  verb:
    description: With O(state=locked), what the run does. A V(store_restore) may run on a part of the fleet.
    type: str
    choices: [rotate_keys, keys, store_restore]
    default: rotate_keys
  rotation:
    description: As M(inference.fleet.api_key) returns it.
    type: dict
  clients:
    description: With O(state=begun), the rotation's clients, as M(inference.fleet.api_key) returns them.
    type: list
    elements: dict
    default: []
  options:
    description: With O(state=begun), the options of the run, for the record.
    type: dict
    default: {}
  step:
    description: With O(state=noted) and O(state=judged), the step.
    type: str
    default: ""
  skip_unreachable:
    description: With O(state=judged), go on without hosts that do not answer.
    type: bool
    default: false
  retiring:
    description:
      - With O(state=judged), whether keys are dead now. An unreachable host is then left out only after
        O(absence_limit), since the rotation first found it unreachable. Until then a reboot could bring it back with
        the dead keys.
    type: bool
    default: false
  absence_limit:
    description: With O(retiring), the seconds after which a host that comes back waits until its keys are confirmed.
    type: float
    default: 900
  take_over:
    description: With O(state=locked), take over the lock of a dead run.
    type: bool
    default: false
  message:
    description: With O(state=ended), why the rotation failed.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Judge
  inference.fleet.key_rotation:
    state: judged
    records: "{{ keys_records }}"
    rotation: "{{ keys_rotation }}"
    step: test
  run_once: true
  register: keys_judged
"""

RETURN = r"""
beyond:
  description:
    - The inference hosts and gateways that the run does not reach because they are stopped, joining or leaving. They
      have the keys from before. For each C(host) and C(state).
  returned: with O(state=locked)
  type: list
  elements: dict
journal:
  description: The record's path on the controller.
  returned: with O(state=begun)
  type: str
resumed:
  description: Whether an earlier run began the rotation.
  returned: with O(state=begun)
  type: bool
problems:
  description: What prevents the rotation from going on.
  returned: with O(state=judged)
  type: list
  elements: str
left_out:
  description: The unreachable hosts that are left out.
  returned: with O(state=judged)
  type: list
  elements: str
"""
