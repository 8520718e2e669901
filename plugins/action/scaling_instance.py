# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let an instance of an Auto Scaling group join or leave the fleet; documented as module scaling_instance."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import write_atomically
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.ec2_instance import INSTANCE_ARGUMENTS
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.lifecycle import ABANDON, CONTINUE, ScalingGroups
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.members import JOIN, LEAVE, GroupMember
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal

STATES = ("looked", "joined", "abandoned", "kept", "leaving", "left")

#: Beside the rollouts' records.
JOURNAL = "scaling.jsonl"

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    **INSTANCE_ARGUMENTS,
    "state": {"type": "str", "required": True, "choices": list(STATES)},
    "tag": {"type": "str", "default": ""},
    "hooks": {"type": "list", "elements": "str", "default": ["join", "leave"]},
    "reason": {"type": "str", "default": ""},
    "records": {"type": "path", "required": True},
    "outcome": {"type": "path", "default": ""},
}


class _Turn:
    """One method for each state: what it changes in AWS, and what it writes down."""

    def __init__(self, arguments: dict[str, t.Any], host: str, check: bool) -> None:
        self._arguments = arguments
        self._host = host
        self._check = check
        self._instance = str(arguments["instance"])
        self._groups = ScalingGroups(
            arguments["region"], "playbooks/join.yml", arguments["endpoint"], arguments["hooks"]
        )
        self._member = self._groups.member(self._instance)
        self._actions: list[str] = []

    @property
    def _verb(self) -> str:
        """The playbook that it waits for at a hook of ours."""
        member = self._member
        ours = {hook.verb for hook in self._groups.hooks(member.group)} if member else set()
        return member.verb if member and member.verb in ours else ""

    def looked(self) -> None:
        self._beat()

    def joined(self) -> None:
        member = self._member
        if member and member.state.startswith("Terminating"):
            raise FleetError(
                f"{self._host} ({self._instance}) passed its gate, but group {member.group} is ending it "
                f"({member.state}). It does not join."
            )
        # First the tag: once the group sends requests there, every playbook has to know the host.
        if self._arguments["tag"]:
            self._change("remove the tag inference:state", lambda: self._groups.set_state(self._instance, ""))
        self._complete(JOIN, CONTINUE)
        self._write("joined")

    def abandoned(self) -> None:
        self._complete(JOIN, ABANDON)
        self._write("abandoned")

    def kept(self) -> None:
        self._beat()
        self._write("kept")

    def leaving(self) -> None:
        if self._arguments["tag"] != "leaving":
            self._change(
                "set the tag inference:state to leaving", lambda: self._groups.set_state(self._instance, "leaving")
            )

    def left(self) -> None:
        self._complete(LEAVE, CONTINUE)
        self._write("left")

    def result(self) -> Result:
        member = self._member
        return {
            "changed": bool(self._actions),
            "actions": self._actions,
            "group": member.group if member else "",
            "lifecycle_state": member.state if member else "",
            "waits": self._verb,
        }

    def _beat(self) -> None:
        if self._verb and not self._check:
            self._groups.beat(t.cast(GroupMember, self._member))

    def _complete(self, verb: str, result: str) -> None:
        if self._verb == verb:
            member = t.cast(GroupMember, self._member)
            said = f"complete the hook of group {member.group} with {result}"
            self._change(said, lambda: self._groups.complete(member, result))

    def _change(self, said: str, change: t.Callable[[], t.Any]) -> None:
        if not self._check:
            change()
        self._actions.append(said)

    def _write(self, verdict: str) -> None:
        """Write down what became of the host, where that is news."""
        if self._check:
            return
        reason = self._arguments["reason"]
        if self._arguments["outcome"]:
            write_atomically(
                self._arguments["outcome"], json.dumps({"verdict": verdict, "reason": reason}) + "\n", mode=0o600
            )
        if not self._actions and not reason:
            return
        records = os.path.abspath(os.path.expanduser(self._arguments["records"]))
        os.makedirs(records, mode=0o700, exist_ok=True)
        group = self._member.group if self._member else ""
        fields = {"host": self._host, "instance": self._instance, "group": group, "reason": reason}
        journal.append(os.path.join(records, JOURNAL), verdict, **fields, actions=self._actions)


class ActionModule(ControllerAction):
    """See module scaling_instance."""

    ARGUMENTS = ARGUMENTS

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        turn = _Turn(arguments, str(task_vars.get("inventory_hostname", "")), bool(self._task.check_mode))
        try:
            getattr(turn, arguments["state"])()
        except OSError as error:
            raise FleetError(
                f"What became of {arguments['instance']} cannot be written under {arguments['records']}: "
                f"{error.strerror or error}. Free the disk, or correct the directory's rights."
            ) from error
        return turn.result()
