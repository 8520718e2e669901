# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_variables
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Validate the variables of all hosts of a play
description:
  - Validates the variables of each host of the play against the argument specs of the roles, and reports every problem
    of every host at once. It makes no connection. Run it once, before any change.
  - Times and sizes may have a unit. A port is a number up to 65535.
  - An unused variable is reported as a typo when its name is close to that of another, or begins with a role's name.
    The message suggests the nearest variable. A variable that another one uses is accepted, whatever its name.
  - A value that refers to a role's variable is validated by that role.
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  roles:
    description: >-
      The roles whose variables are validated; none for all of them. Only with all of them are the names of variables
      validated, and the tag C(inference:role) of each host.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Check the variables of every host
  inference.fleet.fleet_variables:
  run_once: true
"""

RETURN = r"""
variables:
  description: For each problem a sentence with the variable, its value, what is valid, and the affected hosts.
  returned: when a variable is wrong
  type: list
  elements: str
  sample: ["edge_port is '80a0'; it must be a whole number. On gpu-1, gpu-2."]
"""
