# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_event
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Record an event of a host in the rollout's journal
description:
  - Adds one line to the journal on the controller. It makes no connection, and does nothing without a journal, so that
    a deployment need not know whether it is part of a rollout.
  - A journal that cannot be written causes a warning, because the host must not be left half changed.
attributes:
  check_mode:
    support: full
    description: Writes nothing.
  diff_mode:
    support: none
    description: Changes nothing on the host.
options:
  journal:
    description: The journal's path on the controller, as M(inference.fleet.rollout) returns it; empty for none.
    type: str
    default: ""
  event:
    description: What kind of event it is.
    type: str
    required: true
    choices: [step, drained, gate, outcome, self_test, decision]
  fields:
    description: The event's data. The host is added. C(step) of an event V(step) must be a known one.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Note the step
  inference.fleet.rollout_event:
    journal: "{{ rollout_begun.journal }}"
    event: step
    fields: {instance: vllm-0, step: drain, attempt: 1}
"""

RETURN = r"""# """
