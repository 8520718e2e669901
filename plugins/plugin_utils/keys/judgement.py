# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether a rotation may go on, from the results of the hosts. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times


@dataclasses.dataclass(frozen=True)
class HostReport:
    """The result of a step on a host.

    Attributes:
        lost: it is unreachable.
        failure: what went wrong there, for a person; empty for nothing.
        proof: what module key_proof returned.
    """

    lost: bool = False
    failure: str = ""
    proof: dict[str, t.Any] = dataclasses.field(default_factory=dict)

    @property
    def as_event(self) -> dict[str, t.Any]:
        """For the record."""
        proof: dict[str, t.Any] = {name: self.proof[name] for name in ("answered", "refused") if name in self.proof}
        return {"lost": self.lost, "failure": self.failure, **proof}


class Judgement(t.NamedTuple):
    """What prevents the rotation from going on, and the hosts that are left out."""

    problems: list[str]
    left_out: list[str]


def judge(
    reports: t.Mapping[str, HostReport], skip_unreachable: bool, too_soon: t.Mapping[str, float] | None = None
) -> Judgement:
    """Whether every host has done its step.

    Args:
        reports: by host.
        skip_unreachable: skip unreachable hosts, as long as one answers.
        too_soon: the unreachable hosts that could come back with retired keys, and the Unix time until which.
    """
    lost = [host for host, report in reports.items() if report.lost]
    left_out = lost if skip_unreachable and len(lost) < len(reports) else []
    waiting = {host: until for host, until in (too_soon or {}).items() if host in left_out}
    left_out = [host for host in left_out if host not in waiting]
    problems = [f"{host} does not answer." for host in lost if host not in left_out and host not in waiting]
    problems += [
        f"{host} does not answer. Run the same command again after {times.moment(until)} to leave it out: if it "
        "reboots before, it serves with its old keys; after that it waits until a run has confirmed its keys."
        for host, until in waiting.items()
    ]
    problems += [f"{host}: {report.failure}" for host, report in reports.items() if report.failure and not report.lost]
    return Judgement(problems, left_out)


def lost_since(events: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, float]:
    """The hosts that did not answer at their last step, with the Unix time since when they have not.

    Args:
        events: the rotation's record.
    """
    since: dict[str, float] = {}
    for event in events:
        if event.get("event") == "host" and event.get("lost"):
            since.setdefault(event["host"], float(event["at"]))
        elif event.get("event") == "host":
            since.pop(event["host"], None)
    return since


def summarize(clients: t.Iterable[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The clients in the record: with fingerprints and no more of their keys."""
    return [
        {
            "name": client["name"],
            "state": client["state"],
            "keys": [{"slot": key["slot"], "fingerprint": key["fingerprint"]} for key in client["stored_keys"]],
        }
        for client in clients
    ]
