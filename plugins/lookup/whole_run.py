# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses a partial run."""

from __future__ import annotations

DOCUMENTATION = """
name: whole_run
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Refuses a partial run
description:
  - Ends the run before any change when it was started with C(--tags), C(--skip-tags), C(--start-at-task), C(--step) or
    a strategy other than linear. They would skip locks, checks and barriers.
  - It also does so when C(--limit) names something that is not in the inventory, that is stopped, or that the playbook
    does not work on, when it is empty, which Ansible treats as every host, and when there is no host to work on.
  - It is meant for C(hosts) of a playbook's first play, because Ansible evaluates that whatever tasks are skipped.
options:
  _terms:
    description: The groups that the playbook works on; the first must have a host. None for the controller only.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
- name: Check how the run was started
  hosts: "{{ lookup('inference.fleet.whole_run', 'inference', 'gateway') }}"
  gather_facts: false
"""

RETURN = """
_value:
  description: V(localhost).
  type: list
  elements: str
"""

import os
import typing as t

from ansible import constants
from ansible.context import CLIARGS
from ansible.errors import AnsibleError
from ansible.inventory.manager import split_host_pattern
from ansible.plugins.lookup import LookupBase
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.limits import (
    inventory_problems,
    limit_problems,
    option_problems,
    text_problems,
)


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        if any(CLIARGS.get(name) for name in ("listhosts", "listtasks", "listtags", "syntax")):
            return ["localhost"]
        groups = (variables or {})["groups"]
        tiers = [str(tier) for term in terms for tier in (term if isinstance(term, list) else [term])]
        options = option_problems(CLIARGS, str(constants.config.get_config_value("DEFAULT_STRATEGY")))
        if options:
            raise AnsibleError(
                f"This playbook runs as a whole or not at all, and nothing was done: {', '.join(options)} would leave "
                "out locks, checks or barriers. Run it without. Hosts where nothing differs are left alone; --limit "
                "chooses hosts, and --check --diff shows what would be done."
            )
        sources = [os.path.relpath(source) for source in CLIARGS.get("inventory") or []]
        patterns = limit()
        problems = (
            inventory_problems(groups, tiers, sources)
            or text_problems(CLIARGS.get("subset"), patterns)
            or limit_problems(patterns, groups, tiers)
        )
        if problems:
            raise AnsibleError(f"Nothing was done. {' '.join(problems)}")
        return ["localhost"]


def limit() -> list[str]:
    """The patterns of --limit, including those of a file that it names."""
    patterns = []
    for pattern in split_host_pattern(CLIARGS.get("subset") or ""):
        if pattern.startswith("@"):
            with open(pattern[1:], encoding="utf-8") as file:
                patterns += [line.strip() for line in file if line.strip()]
        else:
            patterns.append(pattern)
    return [pattern for pattern in patterns if pattern]
