# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The arguments of every action that works on one EC2 instance; their documentation is fragment ec2_instance."""

from __future__ import annotations

import typing as t

INSTANCE_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "instance": {"type": "str", "required": True},
    "region": {"type": "str", "required": True},
    "endpoint": {"type": "str", "default": ""},
}
