# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scaling_instance
version_added: 0.3.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Let an instance of an Auto Scaling group join or leave the fleet
description:
  - Reads the group of an instance, extends the hook at which it waits, ends that wait, and sets its tag
    C(inference:state). It works on the controller through boto3 and makes no connection to the host.
  - Every state can be repeated. An instance that does not wait, or is in no group, has no hook to complete.
  - What happened, and why, is a line of C(scaling.jsonl) in O(records).
attributes:
  check_mode:
    support: full
    description: Reads, and says what it would change.
  diff_mode:
    support: none
    description: C(actions) says what changes.
options:
  state:
    description:
      - V(looked) reads group and state, and sends a heartbeat if the instance waits.
      - V(joined) removes the tag and completes the launch hook with C(CONTINUE). The host passed its gate.
      - V(abandoned) completes the launch hook with C(ABANDON), and the group ends the instance.
      - V(kept) sends a heartbeat and leaves the instance waiting, for a person to look at.
      - V(leaving) sets the tag to V(leaving).
      - V(left) completes the termination hook with C(CONTINUE).
    type: str
    required: true
    choices: [looked, joined, abandoned, kept, leaving, left]
  tag:
    description: The value of its tag C(inference:state), as the inventory read it; empty for none.
    type: str
    default: ""
  hooks:
    description: The names of the hooks that are the fleet's. The group's other hooks are left alone.
    type: list
    elements: str
    default: [join, leave]
  reason:
    description: Why, for V(abandoned), V(kept) and V(left).
    type: str
    default: ""
  records:
    description: The directory of the fleet's records, on the controller.
    type: path
    required: true
  outcome:
    description: A file for the service that started the playbook; empty for none.
    type: path
    default: ""
extends_documentation_fragment: inference.fleet.ec2_instance
"""

EXAMPLES = r"""
- name: Let the host join
  inference.fleet.scaling_instance:
    state: joined
    instance: "{{ aws_instance_id }}"
    region: "{{ fleet_region }}"
    tag: "{{ fleet_state_tag }}"
    records: "{{ rollout_records }}"
"""

RETURN = r"""
group:
  description: The name of its Auto Scaling group; empty for none.
  returned: success
  type: str
lifecycle_state:
  description: Its state in the group, such as C(Pending:Wait); empty for none.
  returned: success
  type: str
waits:
  description: C(join) or C(leave) while it waits at a hook of the fleet's, else empty.
  returned: success
  type: str
actions:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: str
"""
