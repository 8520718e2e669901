# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Enables the callback that shows the progress of a rollout."""

from __future__ import annotations

DOCUMENTATION = """
name: progress
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Enables the callback that shows the progress of a rollout
description:
  - Enables the callback P(inference.fleet.rollout#callback), whether or not C(callbacks_enabled) names it, and returns
      its terms. A playbook of the collection thus shows the same with any C(ansible.cfg), or with none.
  - It has an effect only where Ansible evaluates it before it loads callbacks. That is the file name of
    M(ansible.builtin.import_tasks), which is evaluated while the playbook is read.
options:
  _terms:
    description: What to return.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
- name: Check the variables
  ansible.builtin.import_tasks: "{{ lookup('inference.fleet.progress', 'variables.yml') }}"
"""

RETURN = """
_value:
  description: The terms.
  type: list
  elements: str
"""

import typing as t

from ansible import constants
from ansible.plugins.lookup import LookupBase

CALLBACK = "inference.fleet.rollout"


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[t.Any]:
        # Ansible has no interface for this. It reads this list once, after it has read the playbook.
        settings = vars(constants)
        if CALLBACK not in settings["CALLBACKS_ENABLED"]:
            settings["CALLBACKS_ENABLED"] = [*settings["CALLBACKS_ENABLED"], CALLBACK]
        return terms
