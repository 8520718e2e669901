# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Where things are on a host, unless a variable says otherwise."""

from __future__ import annotations

#: Runtimes, releases and instances; the default of engine_root.
ENGINE_ROOT = "/opt/inference"
#: What is kept about the host beside them: drains, claims, records.
STATE_DIRECTORY = "/var/lib/inference"
