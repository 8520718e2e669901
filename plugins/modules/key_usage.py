#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Report when an edge's keys were last used."""

from __future__ import annotations

DOCUMENTATION = r"""
module: key_usage
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: When an edge's keys were last used, and which keys it accepts
description:
  - Reads which keys the edge of a host accepts, and when each was last used. It sees no key and changes nothing.
  - HAProxy counts use, and a program that role P(inference.fleet.edge#role) installs keeps the counts over reloads and
    restarts. Counting starts again when a host boots or HAProxy crashes; RV(since) says when it started.
  - A request counts when the edge accepts its key, whatever its result (a 429 or 503, for example). One whose key is
    unknown, dead or expired does not count.
  - There is one gap. After a reload of HAProxy, the old process may still accept one request on each connection that a
    client or balancer had open. Such a request updates RV(usage[].last_used) only while it is in flight, and is not
    in RV(usage[].requests).
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed.
  diff_mode:
    support: none
    description: Nothing is ever changed.
options:
  program:
    description: The program that reads HAProxy's table and file.
    type: path
    default: /etc/haproxy/key_usage.py
  path:
    description: The file with the counts of processes that have ended.
    type: path
    default: /run/haproxy/key_usage.json
  map_path:
    description: The map of the keys that the edge accepts.
    type: path
    default: /etc/haproxy/maps/keys.map
  origin_path:
    description: The file in which the host records where its keys come from.
    type: path
    default: /etc/haproxy/maps/keys.origin.json
extends_documentation_fragment: inference.fleet.haproxy_sockets
seealso:
  - module: inference.fleet.edge_keys
"""

EXAMPLES = r"""
- name: See which keys are in use
  inference.fleet.key_usage:
  register: used
"""

RETURN = r"""
usage:
  description: The keys that were used since RV(since).
  returned: success
  type: list
  elements: dict
  contains:
    fingerprint:
      description: The key's fingerprint.
      type: str
      returned: always
      sample: sk-…1f0c9a2e
    last_used:
      description: When the last request with it began, in UTC.
      type: str
      returned: always
      sample: "2026-11-22T12:00:00Z"
    requests:
      description: How many requests there were since RV(since).
      type: int
      returned: always
since:
  description:
    - A key that is not in RV(usage) was not used from this moment on, in UTC.
    - None where nothing is known, because HAProxy does not run and did not stop cleanly, or does not count yet.
  returned: success
  type: str
  sample: "2026-11-22T12:00:00Z"
accepts:
  description: >-
    The fingerprints of the keys that the edge accepts; where HAProxy does not run, those that it will accept.
  returned: success
  type: list
  elements: str
taken:
  description:
    - The key store of these keys, as M(inference.fleet.edge_keys) returns it. None where it is unknown.
  returned: success
  type: dict
"""

import subprocess
import sys
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy, state, usage
from ansible_collections.inference.fleet.plugins.module_utils.edge.maps import EdgeMap
from ansible_collections.inference.fleet.plugins.module_utils.keys import origin

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "program": {"type": "path", "default": usage.PROGRAM_PATH},
    "path": {"type": "path", "default": usage.FILE_PATH},
    "map_path": {"type": "path", "default": state.KEYS_MAP_PATH},
    "origin_path": {"type": "path", "default": state.KEYS_ORIGIN_PATH},
    **haproxy.SOCKET_ARGUMENTS,
}

# The program's own timeout is shorter.
_TIMEOUT = 60


def run(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Do what the parameters say; return the module's result."""
    answer, warnings = _ask_program(params)
    workers = haproxy.workers(params["socket"], params["master_socket"])
    keys = EdgeMap(params["map_path"], "", workers)
    entries = keys.live_entries() if workers else [keys.entries() or []]
    accepts = sorted({api_keys.hash_fingerprint(digest) for entry in entries for digest, _value in entry})
    taken = origin.parse(read_json(params["origin_path"]), params["origin_path"])
    return {
        "changed": False,
        **usage.parse(answer),
        "accepts": accepts,
        "taken": taken.document() if taken else None,
        "warnings": warnings,
    }


def _ask_program(params: dict[str, t.Any]) -> tuple[str, list[str]]:
    """What the program prints, and its warnings."""
    places = {"--socket": params["socket"], "--master-socket": params["master_socket"], "--file": params["path"]}
    command = [sys.executable, "-I", params["program"], "show", *(word for pair in places.items() for word in pair)]
    try:
        with open(params["program"], "rb"):
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT)
    except FileNotFoundError as error:
        raise FleetError(
            f"There is no {params['program']}: the edge does not count its keys' use yet. Run playbooks/site.yml."
        ) from error
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise FleetError(
            f"{params['program']} failed: {said[-500:]}. Look at 'systemctl status haproxy', and run as root."
        ) from error
    return done.stdout, done.stderr.splitlines()


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = run(module.params)
    except FleetError as error:
        module.fail_json(msg=error.message, **error.details)
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
