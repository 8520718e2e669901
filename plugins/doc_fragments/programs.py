# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of every module that looks for programs on a host."""

from __future__ import annotations


class ModuleDocFragment:
    """Added to a module's documentation by C(extends_documentation_fragment)."""

    DOCUMENTATION = r"""
options:
  programs:
    description:
      - Programs that the host must have, as P(inference.fleet.wanted_programs#filter) lists them. The module fails
        where one is missing. It looks for C(Python.h) where the engine's Python has it.
    type: list
    elements: dict
    default: []
    suboptions:
      program:
        description: Its name.
        type: str
        required: true
      why:
        description: Why it is needed, for the message.
        type: str
        required: true
      fix:
        description: How to install it, for the message.
        type: str
        required: true
"""
