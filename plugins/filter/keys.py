# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that combine the key store's and the edges' data about the clients' keys."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.types import JsonMapping
from ansible_collections.inference.fleet.plugins.module_utils.keys import origin

#: Seconds within which every edge is updated after a key is retired. An edge may accept the key until then.
GRACE = 300

Hosts = t.Mapping[str, JsonMapping]


def key_rows(store: JsonMapping, hosts: Hosts, now: str | None = None) -> list[dict[str, t.Any]]:
    """A row for each key and host that used it, and one for the unused ones; see key_rows.yml."""
    moment = times.seconds(now or times.now())
    read = _read(hosts)
    rows = []
    for client in store["clients"]:
        for key in client["stored_keys"]:
            common = {
                "client": client["name"],
                "key": key["fingerprint"],
                "state": _state(client, key),
                "age": times.spoken(max(0, moment - times.seconds(key["created"]))),
                "due": client["due"] if key["slot"] == "current" else None,
                "limits": _limits(client),
            }
            rows += [{**common, **use} for use in _uses(key, read)]
    return rows


def key_notes(store: JsonMapping, hosts: Hosts, clients: t.Iterable[str] = ()) -> list[str]:
    """Notes beside the rows, the most urgent first; see key_notes.yml."""
    only = set(clients)
    lines = []
    edges = {host: hosts[host] for host in sorted(hosts) if "accepts" in hosts[host]}
    lines += _foreign(store, edges)
    for key in store["retired"]:
        if not only or key["name"] in only:
            lines += [line for host, edge in edges.items() if (line := _dead_key(key, host, edge))]
    lines += _unknown_keys(store, edges)
    if store["rotation"]:
        lines.append(_rotation(store["rotation"]))
    read = _read(hosts)
    lines += [f"{host} {_why(result)}" for host, result in sorted(hosts.items()) if host not in read]
    if not store["clients"]:
        lines.append("The key store has no client. Add some to fleet_clients and run playbooks/keys.yml.")
    return lines


def _read(hosts: Hosts) -> dict[str, JsonMapping]:
    """The hosts whose key usage is known."""
    return {host: hosts[host] for host in sorted(hosts) if hosts[host].get("since")}


def _why(result: JsonMapping) -> str:
    """Why the usage of a host's keys is not known."""
    if "usage" in result:
        return (
            "does not know which keys were used: its HAProxy does not run (playbooks/status.yml), or does not count "
            "yet (playbooks/site.yml)."
        )
    if result.get("unreachable") or not result.get("msg"):
        return "does not answer, so which keys were used there is not known."
    return f"was not read: {result['msg']}"


def _state(client: JsonMapping, key: JsonMapping) -> str:
    state = "retired" if key["retired"] else key["slot"]
    if state == "previous":
        state += f" until {times.minute(key['retire_at'])}"
    return f"{state}, expired" if client["expired"] else state


def _limits(client: JsonMapping) -> str:
    """The usage in few words."""
    return ", ".join(client_limits.brief(client_limits.of(client), short=True))


def _uses(key: JsonMapping, read: dict[str, JsonMapping]) -> list[dict[str, t.Any]]:
    """Where a key was used, and where it was not."""
    found = []
    unused = []
    for host, result in read.items():
        use = _use(key, result)
        if use:
            since, when = result["since"], times.minute(use["last_used"])
            found.append({"host": host, "last_used": when, "requests": use["requests"], "since": times.minute(since)})
        else:
            unused.append(host)
    if unused:
        # True for each of them.
        since = max(read[host]["since"] for host in unused)
        when = "never" if key["created"] >= since else "not since"
        name = _named(unused, others=bool(found))
        found.append({"host": name, "last_used": when, "requests": 0, "since": times.minute(since)})
    return found or [{"host": None, "last_used": "not known", "requests": None, "since": None}]


def _use(key: JsonMapping, result: JsonMapping) -> JsonMapping | None:
    return next((one for one in result["usage"] if one["fingerprint"] == key["fingerprint"]), None)


def _named(hosts: list[str], others: bool) -> str:
    if len(hosts) == 1:
        return hosts[0]
    return f"{len(hosts)} others" if others else f"all {len(hosts)}"


def _dead_key(key: JsonMapping, host: str, result: JsonMapping) -> str:
    """What is wrong with a dead key on a host; empty for nothing."""
    use = _use(key, result)
    used = use["last_used"] if use and use["last_used"] > key["retired"] else ""
    label = f"the dead key {key['fingerprint']} of {key['name']}, retired {times.minute(key['retired'])}"
    if key["fingerprint"] in result["accepts"]:
        taken = f", and took it at {times.minute(used)}" if used else ""
        return (
            f"ALARM: {host} still takes {label}{taken}. Run playbooks/site.yml -l {host}, which updates its edge, or "
            "playbooks/rotate_keys.yml where a rotation is in progress."
        )
    if used and times.seconds(used) > times.seconds(key["retired"]) + GRACE:
        return (
            f"{host} took {label}, until {times.minute(used)}. It refuses it now. Its access log says who used it: "
            f"journalctl -u haproxy --grep key={key['sha256'][:8]}"
        )
    return ""


def _foreign(store: JsonMapping, edges: dict[str, JsonMapping]) -> list[str]:
    """The hosts that have their keys from another store."""
    read = origin.Origin(store["store"]["id"], store["store"]["generation"], store["store"]["name"])
    taken = {host: origin.parse(result.get("taken"), host) for host, result in edges.items()}
    return [
        f"ALARM: {host} belongs to key {one.said}; this table is of {read.said}. Run this with that store "
        "(fleet_key_store): see 'The key store is lost' in docs/operations.md."
        for host, one in taken.items()
        if one and one.store != read.store
    ]


def _unknown_keys(store: JsonMapping, edges: dict[str, JsonMapping]) -> list[str]:
    """The live keys that a host should accept and does not. A rotation gives the edges its pending keys."""
    rotated = store["rotation"]["clients"] if store["rotation"] else []
    lines = []
    for host, result in edges.items():
        missing = [
            f"{client['name']} {key['fingerprint']} ({key['slot']})"
            for client in store["clients"]
            for key in client["stored_keys"]
            if client["name"] not in rotated and not key["retired"] and key["fingerprint"] not in result["accepts"]
        ]
        if missing:
            lines.append(f"{host} refuses live keys: {', '.join(missing)}. Run playbooks/site.yml -l {host}.")
    return lines


def _rotation(rotation: JsonMapping) -> str:
    resumed = f", continued {times.minute(rotation['resumed'])}" if rotation["resumed"] != rotation["started"] else ""
    return (
        f"Rotation {rotation['id']} of {', '.join(rotation['clients'])} is in progress, in step {rotation['step']}: "
        f"begun {times.minute(rotation['started'])}{resumed}, by {rotation['by']} on {rotation['controller']} (process "
        f"{rotation['pid']}). If that process is gone, playbooks/rotate_keys.yml goes on with it."
    )


class FilterModule:
    """Ansible's view of the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"key_notes": key_notes, "key_rows": key_rows}
