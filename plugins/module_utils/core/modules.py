# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The exit of a module."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


def finish(module: AnsibleModule, work: t.Callable[[], dict[str, t.Any]]) -> t.NoReturn:
    """Run a module's work, and exit with its result or its failure."""
    try:
        result = work()
    except FleetError as error:
        module.fail_json(msg=error.message, **error.details)
    for text in result.pop("warnings", ()):
        # Ansible deprecates them as a part of the result.
        module.warn(text)
    module.exit_json(**result)
