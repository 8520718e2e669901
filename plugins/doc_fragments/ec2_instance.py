# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of every module that works on one EC2 instance."""

from __future__ import annotations


class ModuleDocFragment:
    """Added to a module's documentation by C(extends_documentation_fragment)."""

    DOCUMENTATION = r"""
options:
  instance:
    description: EC2's id of the instance.
    type: str
    required: true
  region:
    description: Its region.
    type: str
    required: true
  endpoint:
    description: The URL of a stand-in for AWS; empty for AWS.
    type: str
    default: ""
"""
