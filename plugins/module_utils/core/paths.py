# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Default paths on a host."""

from __future__ import annotations

#: Runtimes, releases and instances; the default of engine_root.
ENGINE_ROOT = "/opt/inference"
#: Records about the host: drains, claims, gates.
STATE_DIRECTORY = "/var/lib/inference"
#: The settings of the accountant, which a gateway has that should have one.
ACCOUNTANT_SETTINGS = "/etc/inference/accountant.json"
