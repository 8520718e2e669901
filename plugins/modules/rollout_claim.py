# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record on a host which rollout it takes part in, and its progress there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_claim
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Record on a host which rollout it takes part in
description:
  - Keeps two rollouts off one host, whichever controllers they run on. An interrupted rollout can be resumed, also from
    another controller once the first one has released its claim or is declared dead.
  - A host that another rollout holds is no error here. It is returned as RV(refused), so that the caller can release
    the other hosts first.
attributes:
  check_mode:
    support: full
    description: Reports what would be refused or changed.
  diff_mode:
    support: none
    description: The claim is bookkeeping; the rollout's record shows what happens.
options:
  state:
    description:
      - V(claimed) gives the host to the rollout.
      - V(done) records that O(instance) is done.
      - V(released) lets other rollouts in again. With O(finished=true) the rollout is finished, and there is nothing to
        resume.
      - V(looked) returns the claim. V(protected) records O(group), whichever rollout has the claim.
    type: str
    required: true
    choices: [claimed, done, looked, protected, released]
  id:
    description:
      - The rollout's id, with V(claimed), V(done) and V(released). The last two change nothing in the claim of another
        one.
    type: str
    default: ""
  verb:
    description: What the rollout does.
    type: str
    default: site
  who:
    description: The user.
    type: str
    default: ""
  controller:
    description:
      - The machine and directory that hold the record.
      - With another O(state) than V(claimed), a controller other than the claim's changes nothing.
    type: str
    default: ""
  since:
    description: When the rollout began, UTC.
    type: str
    default: ""
  targets:
    description: The release that each instance gets. For a resumed rollout, the first value counts.
    type: dict
    default: {}
  take_over:
    description: Take over the claim of another controller's dead rollout.
    type: bool
    default: false
  instance:
    description: With O(state=done), the instance.
    type: str
  seconds:
    description: With O(state=done), how long its change took; 0 for what is no change.
    type: float
    default: 0
  group:
    version_added: 0.3.0
    description:
      - With O(state=protected), the Auto Scaling group in which the host is protected from scale-in for the rollout;
        empty when it is so no longer.
    type: str
    default: ""
  finished:
    description: With O(state=released), whether the rollout has finished.
    type: bool
    default: false
  path:
    description: The file.
    type: path
    default: /var/lib/inference/rollout.json
"""

EXAMPLES = r"""
- name: Claim the host for this rollout
  inference.fleet.rollout_claim:
    state: claimed
    id: 20261122T153000Z-rolling_restart
    verb: rolling_restart
    who: anna@laptop
    controller: laptop:/home/anna/fleet/rollouts
    since: "2026-11-22T15:30:00Z"
    targets: {vllm-0: vllm-0c8b1f4e5a6d}
  register: claim
"""

RETURN = r"""
claim:
  description: The host's claim now.
  returned: success
  type: dict
refused:
  description: With O(state=claimed), the conflicting claim; none where there is none.
  returned: success
  type: dict
"""

import dataclasses
import json
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import locked, read_json, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.rollout import claim as rollout_claim
from ansible_collections.inference.fleet.plugins.module_utils.rollout.claim import Claim


def decide(before: Claim | None, params: dict[str, t.Any]) -> tuple[Claim | None, Claim | None]:
    """The host's claim afterwards, and the conflicting one."""
    if params["state"] == "claimed":
        names = ("id", "verb", "who", "controller", "since", "targets")
        wanted = Claim(**{name: params[name] for name in names})
        after, refused = rollout_claim.claimed(before, wanted, params["take_over"])
        return after or before, refused
    if params["state"] == "looked":
        return before, None
    if params["state"] == "protected":
        return (dataclasses.replace(before, protected=params["group"]) if before else None), None
    if before is None or before.id != params["id"] or params["controller"] not in ("", before.controller):
        return before, None
    if params["state"] == "released":
        return dataclasses.replace(before, held=False, finished=before.finished or params["finished"]), None
    if not params["instance"]:
        raise FleetError("state done needs the instance that is done.")
    at = times.now()
    return rollout_claim.with_done(before, params["instance"], at, params["seconds"]), None


def run(params: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    path = params["path"]
    if check:
        before = rollout_claim.parse(read_json(path), path)
        after, refused = decide(before, params)
    else:
        make_directories(os.path.dirname(path))
        with locked(f"{path}.lock"):
            before = rollout_claim.parse(read_json(path), path)
            after, refused = decide(before, params)
            if after is not None and after != before:
                _write(path, after)
    return {
        # Bookkeeping, like a gate's record: not a change of the host.
        "changed": False,
        "claim": dataclasses.asdict(after) if after else None,
        "refused": dataclasses.asdict(refused) if refused else None,
    }


def _write(path: str, claim: Claim) -> None:
    try:
        write_atomically(path, json.dumps(dataclasses.asdict(claim), indent=1) + "\n")
    except OSError as error:
        raise FleetError(
            f"{path} cannot be written ({error.strerror}), so no rollout could resume from it. Free the disk or "
            "correct the directory's rights, then run again."
        ) from error


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "required": True,
                "choices": ["claimed", "done", "looked", "protected", "released"],
            },
            "id": {"type": "str", "default": ""},
            "verb": {"type": "str", "default": "site"},
            "who": {"type": "str", "default": ""},
            "controller": {"type": "str", "default": ""},
            "since": {"type": "str", "default": ""},
            "targets": {"type": "dict", "default": {}},
            "take_over": {"type": "bool", "default": False},
            "instance": {"type": "str"},
            "seconds": {"type": "float", "default": 0},
            "group": {"type": "str", "default": ""},
            "finished": {"type": "bool", "default": False},
            "path": {"type": "path", "default": rollout_claim.PATH},
        },
        required_if=[("state", state, ("id",)) for state in ("claimed", "done", "released")],
        supports_check_mode=True,
    )
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
