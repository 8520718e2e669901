# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Where a rollout silences the alerts of a wave, for how long, and what people have to know about it. Pure."""

from __future__ import annotations

import typing as t

#: The configuration of the Alertmanager that role monitoring installs.
CONFIG = "/etc/prometheus/alertmanager.yml"
_PORT = 9093
#: How many times as long as last time a turn may take before its alerts are heard, and the least seconds.
_SLACK = 2
_LEAST = 600.0


def alertmanagers(
    hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Mapping[str, t.Any]]
) -> list[dict[str, str | None]]:
    """The Alertmanagers: through which ``host``, at which ``url``, and the ``config`` of one that is on it.

    Args:
        hosts: the monitoring hosts.
        hostvars: Ansible's.
    """
    found: list[dict[str, str | None]] = []
    for host in hosts:
        variables = hostvars[host]
        url = str(variables.get("monitoring_alertmanager_url") or "")
        if url:
            found.append({"host": str(host), "url": url, "config": None})
        elif str(variables.get("monitoring_prometheus", "install")) == "install":
            port = variables.get("monitoring_alertmanager_port", _PORT)
            found.append({"host": str(host), "url": f"http://127.0.0.1:{port}", "config": CONFIG})
    return found


def seconds(plan: t.Mapping[str, t.Any], hosts: t.Sequence[str], most: float) -> float:
    """How long the alerts of a turn's hosts are silent if nothing ends the silence.

    Args:
        plan: the rollout's.
        hosts: those of the turn.
        most: the longest time, and that of a turn whose duration is unknown.
    """
    expected = [plan["hosts"][host]["expected_seconds"] for host in hosts]
    known = [float(one) for one in expected if one is not None]
    planned = max(_LEAST, _SLACK * max(known)) if known and len(known) == len(expected) else most
    return min(planned, most)


def comment(plan: t.Mapping[str, t.Any], turn: t.Mapping[str, t.Any]) -> str:
    """What people read about a silence."""
    return f"{plan['verb']}, wave {turn['wave']} of {turn['waves']}: {', '.join(turn['hosts'])}. By {plan['who']}."


def notes(results: t.Iterable[t.Mapping[str, t.Any]], hosts: t.Sequence[str], ends: bool) -> list[str]:
    """A sentence for each Alertmanager that did not do it.

    Args:
        results: of module alert_silence, one for each.
        hosts: those of the turn.
        ends: whether it was to end the silence.
    """
    names = ", ".join(hosts)
    what = (
        f"The silence of {names} could not be ended: it ends by itself, and alerts of these hosts are held back until "
        "then."
        if ends
        else f"The alerts of {names} are not silenced: expect some while they are changed."
    )
    found = []
    for one in results:
        problem = str(one.get("problem", one.get("msg") or "no reason given"))
        if problem:
            where = one["__rollout_alertmanager"]["host"]
            found.append(
                f"{what} {where}: {problem.rstrip('.')}. The rollout goes on. See to it that {where} answers and that "
                "its Alertmanager runs (systemctl status prometheus-alertmanager), or set "
                "monitoring_alertmanager_url; -e rollout_silence=0 makes no silences."
            )
    return found
