# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of a rotation: the lock, the judgement and the record; documented as module key_rotation."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import Result, by_name, plain
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.record import RecordAction, Run
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.beyond import hosts_beyond
from ansible_collections.inference.fleet.plugins.plugin_utils.keys import judgement as key_judgement
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal, lock

#: Runs that change keys; the ones that must reach every host, by their name in messages.
VERBS = {"rotate_keys": "A rotation", "keys": "A change of clients", "store_restore": ""}
#: The groups whose hosts accept clients' keys.
TIERS = ("inference", "gateway")

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "required": True, "choices": ["locked", "begun", "noted", "judged", "ended"]},
    "records": {"type": "path", "required": True},
    "verb": {"type": "str", "default": "rotate_keys", "choices": list(VERBS)},
    "rotation": {"type": "dict"},
    "clients": {"type": "list", "elements": "dict", "default": []},
    "options": {"type": "dict", "default": {}},
    "step": {"type": "str", "default": ""},
    "skip_unreachable": {"type": "bool", "default": False},
    "retiring": {"type": "bool", "default": False},
    "absence_limit": {"type": "float", "default": 900},
    "take_over": {"type": "bool", "default": False},
    "message": {"type": "str", "default": ""},
}


class KeyRotation(Run):
    """One method for each state."""

    def locked(self) -> Result:
        """Lock out rollouts and other key changes on this controller; refuse a run on a part of the fleet.

        Returns:
            ``beyond``: the hosts that accept keys and are no members of the fleet now, so that the run does not reach
            them: stopped, joining or leaving.
        """
        groups, verb = self._vars["groups"], self._arguments["verb"]
        every = {host for tier in TIERS for host in groups.get(tier, [])}
        left_out = sorted(every - set(self._hosts), key=by_name)
        if left_out and VERBS[verb]:
            raise FleetError(
                f"{VERBS[verb]} is of the whole fleet, inference hosts and gateways, and --limit leaves out "
                f"{', '.join(left_out)}: the new keys would be refused there, and the old ones never. Run it without "
                "--limit."
            )
        if not self._check:
            since = times.now()
            holder = lock.holder_of(self._pid, lock.person(), verb, since)
            lock.acquire(self._records, holder, self._arguments["take_over"])
        beyond = hosts_beyond(groups, self._vars["hostvars"], every)
        return {"beyond": sorted(beyond, key=lambda one: by_name(one["host"]))}

    def begun(self) -> Result:
        """Open the rotation's record, or continue it."""
        rotation = self._arguments["rotation"]
        again = journal.size(self._journal) > 0
        self._append(
            "resume" if again else "begin",
            rotation=rotation["id"],
            who=lock.person(),
            clients=key_judgement.summarize(self._arguments["clients"]),
            options=self._arguments["options"],
        )
        return {"resumed": again, "journal": self._journal}

    def noted(self) -> Result:
        """Record that a step begins."""
        self._append("step", step=self._arguments["step"])
        return {}

    def judged(self) -> Result:
        """What prevents the rotation from going on, after the hosts have done a step."""
        lost = [host for host in self._hosts if host in self._lost]
        reports = {
            host: key_judgement.HostReport(
                lost=host in lost,
                failure=str(self._of(host, "keys_failure", "")),
                proof=plain(self._of(host, "keys_proof") or {}),
            )
            for host in self._hosts
        }
        for host, report in reports.items():
            self._append("host", host=host, step=self._arguments["step"], **report.as_event)
        judgement = key_judgement.judge(reports, self._arguments["skip_unreachable"], self._too_soon())
        return {"problems": judgement.problems, "left_out": judgement.left_out}

    def ended(self) -> Result:
        """Close the record; fail if the rotation failed."""
        message = self._arguments["message"]
        if self._arguments["rotation"]:
            self._append("end", outcome="failed" if message else "completed", message=message)
        return {"failed": bool(message), "msg": message or "The keys are rotated."}

    def _too_soon(self) -> dict[str, float]:
        """The unreachable hosts that a reboot could bring back with retired keys, and until when.

        A host that was away for longer holds its edge when it comes back. It has been away at least since this rotation
        first found it unreachable.
        """
        if not self._arguments["retiring"]:
            return {}
        since = key_judgement.lost_since(journal.read(self._journal))
        until = {host: moment + self._arguments["absence_limit"] for host, moment in since.items()}
        return {host: moment for host, moment in until.items() if moment > time.time()}

    @property
    def _journal(self) -> str:
        return os.path.join(self._records, "rotations", f"{self._arguments['rotation']['id']}.jsonl")

    def _append(self, event: str, **fields: t.Any) -> None:
        if not self._check:
            os.makedirs(os.path.dirname(self._journal), mode=0o700, exist_ok=True)
            journal.append(self._journal, event, **fields)


class ActionModule(RecordAction):
    """See module key_rotation."""

    ARGUMENTS = ARGUMENTS
    RUN = KeyRotation
    RECORD = "rotation"
    ADVICE = "Free the disk or correct the directory's rights, then run again."
