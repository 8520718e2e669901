# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of every module that talks to a host's HAProxy."""

from __future__ import annotations


class ModuleDocFragment:
    """Added to a module's documentation by C(extends_documentation_fragment)."""

    DOCUMENTATION = r"""
options:
  socket:
    description: HAProxy's stats socket.
    type: path
    default: /run/haproxy/admin.sock
  master_socket:
    description: The socket of HAProxy's master, which reaches the processes that a reload left behind.
    type: path
    default: /run/haproxy-master.sock
"""
