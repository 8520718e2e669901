# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a host's state at once, and compare it with its state after the last run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_receipt
version_added: 0.2.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Check in one task whether a host is still as the last run left it
description:
  - A run that has converged a host leaves a receipt there. It records what the host was made from (a digest of its
    variables, its neighbours, the client keys and this collection), and its state at the end of that run.
  - With O(state=looked) the module reads the state again. A host is converged if nothing differs on either side, and
    then a run has nothing to do there. Otherwise RV(reasons) names the differences, and the roles run as usual.
  - It reads files with content, owner and mode, units, packages, releases and runtimes, the size and time of each
    weight file, and what HAProxy has in memory.
attributes:
  check_mode:
    support: full
    description: Reads the same, and leaves no receipt.
  diff_mode:
    support: none
    description: The receipt is bookkeeping; what a role changes is in that role's diff.
options:
  state:
    description:
      - V(looked) compares.
      - V(recorded) writes the receipt. A run does that at its end, when the host has passed the gate.
    type: str
    required: true
    choices: [looked, recorded]
  digest:
    description:
      - The digest of everything that determines the host's wanted state. The action plugin of this module computes it,
        so a task does not set it.
    type: str
    default: ""
  further:
    description:
      - Further inputs of the host's wanted state, beside its variables. The action plugin adds them to the digest.
      - C(code) is the digest of this collection, as module M(inference.fleet.fleet_facts) returns it. Without it the
        action plugin reads the collection's files for each host.
    type: dict
    default: {}
  packages:
    description: The distribution's packages that the roles have installed. Needed with O(state=recorded).
    type: list
    elements: str
    default: []
  instances:
    description:
      - The engine instances of which RV(serving) tells, as module M(inference.fleet.fleet_facts) returns them.
    type: list
    elements: dict
    default: []
  root:
    description: Where the engines are.
    type: path
    default: /opt/inference
  state_dir:
    description: The directory of the receipt, and of other modules' records about the host.
    type: path
    default: /var/lib/inference
  maps:
    description: The directory of HAProxy's maps.
    type: path
    default: /etc/haproxy/maps
extends_documentation_fragment: inference.fleet.haproxy_sockets
"""

EXAMPLES = r"""
- name: Compare the host with its receipt
  inference.fleet.host_receipt:
    state: looked
  register: host_receipt

- name: Leave a receipt
  inference.fleet.host_receipt:
    state: recorded
    packages: [haproxy]
  when: not host_receipt.converged
"""

RETURN = r"""
converged:
  description: Whether the host is as the last run left it, and its wanted state is the same.
  returned: always
  type: bool
recorded:
  description: Whether there is a receipt that can be read, or with O(state=recorded) whether one was left.
  returned: always
  type: bool
reasons:
  description: The differences, or why there is nothing to compare with. At most twenty, and how many more there are.
  returned: always
  type: list
  elements: str
  sample: ["file /etc/haproxy/haproxy.cfg: sha256:9f86d081884c, was sha256:2c26b46b68ff"]
serving:
  description: Whether each of O(instances) is up and healthy at this moment. False without any.
  returned: with O(state=looked)
  type: bool
drain:
  description: What is drained, and who drained it, as module M(inference.fleet.fleet_status) returns it.
  returned: always
  type: dict
"""

import contextlib
import dataclasses
import json
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.core.errors import FleetError
from ..module_utils.core.files import read_json, write_atomically
from ..module_utils.core.modes import make_directories
from ..module_utils.core.paths import ENGINE_ROOT, STATE_DIRECTORY
from ..module_utils.edge.haproxy import SOCKET_ARGUMENTS
from ..module_utils.edge.hold import Hold
from ..module_utils.edge.state import read_drains
from ..module_utils.instances.ready import all_serve
from ..module_utils.receipts.look import Places, look
from ..module_utils.receipts.places import places_of
from ..module_utils.receipts.receipt import Receipt, differences, parse, shortened

CHANGED_INPUTS = "what is wanted of the host has changed: its variables, its neighbours, the keys or the collection"


def compare(params: dict[str, t.Any]) -> tuple[bool, list[str]]:
    """Whether the host has a receipt, and why it is not converged; no reasons where it is.

    A receipt only saves work: whatever keeps it from being compared is a reason to go the whole way, never a failure.
    """
    path, has_receipt = receipt_path(params), False
    try:
        receipt, reason = parse(read_json(path), path)
        has_receipt = receipt is not None
        if receipt is None:
            return False, [reason]
        found = look(Places(**receipt.places), params["socket"], params["master_socket"])
        held = Hold(
            os.path.join(params["maps"], "hold.map"), os.path.join(params["state_dir"], "presence.json"), []
        ).held()
    except FleetError as error:
        return has_receipt, [error.message]
    except OSError as error:
        return has_receipt, [f"{error.filename or path} cannot be read ({error.strerror})"]
    except TypeError:
        return False, [f"{path} is no receipt"]
    changed = [] if receipt.digest == params["digest"] else [CHANGED_INPUTS]
    if held:
        changed.append(f"its edge is held since {held.since}: {held.why}, and its keys are not confirmed")
    return True, changed + shortened(differences(receipt.found, found))


def record(params: dict[str, t.Any]) -> None:
    """Write the receipt."""
    places = places_of(params["root"], params["packages"], params["maps"], params["state_dir"])
    found = look(places, params["socket"], params["master_socket"])
    receipt = Receipt(params["digest"], dataclasses.asdict(places), found)
    make_directories(params["state_dir"])
    # It describes files that only root may read, so it is root's, too.
    write_atomically(receipt_path(params), json.dumps(receipt.document()) + "\n", mode=0o600)


def receipt_path(params: dict[str, t.Any]) -> str:
    return os.path.join(params["state_dir"], "receipt.json")


def serving(params: dict[str, t.Any]) -> bool:
    """Whether all instances serve. False where systemd does not answer; engine_ready reports that."""
    with contextlib.suppress(FleetError):
        return all_serve(params["instances"])
    return False


def drain(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """What is drained, and who drained it; nothing where it cannot be read, which role edge then reports."""
    path = os.path.join(params["state_dir"], "drain.json")
    with contextlib.suppress(FleetError, OSError):
        return read_drains(read_json(path), path).summary()
    return {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["looked", "recorded"]},
            "digest": {"type": "str", "default": ""},
            "further": {"type": "dict", "default": {}},
            "packages": {"type": "list", "elements": "str", "default": []},
            "instances": {"type": "list", "elements": "dict", "default": []},
            "root": {"type": "path", "default": ENGINE_ROOT},
            "state_dir": {"type": "path", "default": STATE_DIRECTORY},
            "maps": {"type": "path", "default": "/etc/haproxy/maps"},
            **SOCKET_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    params = module.params
    found: dict[str, t.Any] = {}
    if params["state"] == "looked":
        recorded, reasons = compare(params)
        found["serving"] = serving(params)
    else:
        recorded, reasons = False, []
        try:
            if not module.check_mode:
                record(params)
                recorded = True
        except (FleetError, OSError) as error:
            module.warn(f"The host has no new receipt ({error}). It serves; the next run looks at everything again.")
    module.exit_json(
        changed=False, recorded=recorded, converged=not reasons, reasons=reasons, drain=drain(params), **found
    )


if __name__ == "__main__":
    main()
