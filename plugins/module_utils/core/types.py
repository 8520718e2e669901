# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Types of JSON documents."""

from __future__ import annotations

import typing as t

JsonObject = dict[str, t.Any]
JsonObjects = list[JsonObject]
#: An object that is only read.
JsonMapping = t.Mapping[str, t.Any]
