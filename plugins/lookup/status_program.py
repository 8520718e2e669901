# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs the program that writes and serves a fleet's status page."""

from __future__ import annotations

DOCUMENTATION = """
name: status_program
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Packs the program that writes and serves a fleet's status page
description:
  - Packs the code and the templates of the status page into one archive, in a temporary file of the controller, and
    returns its path. Ansible removes the file at the end of the run. Equal sources make equal archives.
  - Role C(monitoring) copies it to the monitoring host, where Python runs it with Jinja2.
options: {}
"""

EXAMPLES = """
- name: Install the program
  ansible.builtin.copy:
    src: "{{ lookup('inference.fleet.status_program') }}"
    dest: /etc/inference/monitoring/status.pyz
    owner: root
    group: root
    mode: "0644"
"""

RETURN = """
_value:
  description: The path.
  type: list
  elements: path
"""

import typing as t
from pathlib import Path

from ansible import constants
from ansible.plugins.lookup import LookupBase
from ansible_collections.inference.fleet.plugins.module_utils.core.files import write_atomically
from ansible_collections.inference.fleet.plugins.plugin_utils.status.program import pack_status_program


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        # The directory of this run, which Ansible removes.
        path = Path(vars(constants)["DEFAULT_LOCAL_TMP"]) / "status.pyz"
        # Two hosts may ask at once, and both get the same bytes.
        write_atomically(str(path), pack_status_program(), 0o600)
        return [str(path)]
