# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: show
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Show lines as they are
description:
  - Prints lines on the controller as they are, such as those of the filter P(inference.fleet.table#filter). What
    M(ansible.builtin.debug) prints depends on the callback that shows results; without further settings it prints a
    text of several lines as one line.
  - It makes no connection.
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  lines:
    description: The lines to show. A line with line breaks is shown as several.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the table
  inference.fleet.show:
    lines: "{{ rows | inference.fleet.table(['host', 'engine']) }}"
  run_once: true
"""

RETURN = r"""
lines:
  description: The lines that were shown.
  returned: success
  type: list
  elements: str
"""
