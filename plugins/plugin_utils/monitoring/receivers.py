# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Who gets which alerts: the receivers, validated, and Alertmanager's configuration. Pure."""

from __future__ import annotations

import re
import typing as t
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import SEVERITIES

VARIABLE = "monitoring_receivers"
#: What a receiver may be, with the options that each needs and takes.
KINDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "webhook": (frozenset({"url"}), frozenset({"url", "max_alerts", "http_config"})),
    "sns": (
        frozenset({"topic_arn"}),
        frozenset({"topic_arn", "region", "subject", "access_key", "secret_key", "role_arn", "profile"}),
    ),
    "email": (
        frozenset({"to", "from", "smarthost"}),
        frozenset({"to", "from", "smarthost", "hello", "auth_username", "auth_password", "require_tls"}),
    ),
}
_COMMON = frozenset({"name", "severities", "matchers", "repeat"})
_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
_MATCHER = re.compile(r'[a-zA-Z_]\w*(=|!=|=~|!~)".*"\Z')
#: The receiver of what has no other.
NO_RECEIVER = "none"

#: What an alert says already: the second name is silent for the same labels.
_INHIBITS = (
    ("ErrorBudgetBurnFast", "ErrorBudgetBurnSlow|ErrorBudgetBurnLong", ["tier"]),
    ("ErrorBudgetBurnSlow", "ErrorBudgetBurnLong", ["tier"]),
    ("FirstTokenBurnFast", "FirstTokenBurnSlow", ["model_name"]),
    ("EngineHangs|WatchdogGaveUp", "InstanceDown|CrashLoop|MetricsUnreadable|QueueGrows", ["host", "server"]),
    ("GpuFailed|GpuFault|GpuMissing", "GpuDegraded|HostSlowerThanPeers", ["host"]),
    ("KeyExpiresSoon", "KeyExpires", ["client"]),
    ("CertificateExpiresSoon", "CertificateExpires", ["host", "file"]),
    ("DiskFull", "DiskFills", ["host", "what", "mountpoint"]),
)

Receivers = t.Sequence[t.Mapping[str, t.Any]]


def check_receivers(receivers: t.Any) -> None:
    """Raise FleetError that names every receiver with an error, with the value and what is valid.

    Raises:
        FleetError: one has an unknown kind, severity or option, or lacks one.
    """
    if not isinstance(receivers, (list, tuple)):
        raise FleetError(f"{VARIABLE} is {receivers!r}; it must be a list.")
    problems = [f"{VARIABLE}[{place}] {problem}" for place, one in enumerate(receivers) for problem in _problems(one)]
    names = [one.get("name") for one in receivers if isinstance(one, t.Mapping)]
    problems += [f"{VARIABLE} has {name!r} twice." for name in dict.fromkeys(names) if names.count(name) > 1]
    if problems:
        raise FleetError(" ".join(problems))


def _problems(one: t.Any) -> t.Iterator[str]:
    if not isinstance(one, t.Mapping):
        yield f"is {one!r}; it must be a dictionary."
        return
    name = one.get("name")
    if not isinstance(name, str) or not _NAME.match(name) or name == NO_RECEIVER:
        yield f"has the name {name!r}; valid are letters, digits, dots, dashes and underscores, except {NO_RECEIVER!r}."
    kinds = sorted(set(one) & set(KINDS))
    unknown = sorted(set(one) - set(KINDS) - _COMMON)
    if unknown:
        yield f"({name}) has {', '.join(unknown)}; valid are {', '.join([*KINDS, *sorted(_COMMON)])}."
    if len(kinds) != 1:
        yield f"({name}) must be one of {', '.join(KINDS)}; it is {' and '.join(kinds) or 'none of them'}."
    for kind in kinds:
        yield from _kind_problems(name, kind, one[kind])
    yield from _choice_problems(name, one)


def _kind_problems(name: t.Any, kind: str, options: t.Any) -> t.Iterator[str]:
    needed, known = KINDS[kind]
    if not isinstance(options, t.Mapping):
        yield f"({name}) has {kind}: {options!r}; it must be a dictionary with {', '.join(sorted(needed))}."
        return
    missing, unknown = sorted(needed - set(options)), sorted(set(options) - known)
    if missing:
        yield f"({name}): {kind} lacks {', '.join(missing)}."
    if unknown:
        yield f"({name}): {kind} has {', '.join(unknown)}; valid are {', '.join(sorted(known))}."
    if kind == "webhook" and "url" in options:
        url = urllib.parse.urlsplit(str(options["url"]))
        if url.scheme not in ("http", "https") or not url.netloc:
            # The whole address may be a secret.
            yield f"({name}): url of its webhook is no address with http:// or https://."


def _choice_problems(name: t.Any, one: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    severities, matchers = one.get("severities", []), one.get("matchers", [])
    for what, values in (("severities", severities), ("matchers", matchers)):
        if not isinstance(values, (list, tuple)):
            yield f"({name}) has {what}: {values!r}; it must be a list."
            return
    for severity in severities:
        if severity not in SEVERITIES:
            yield f"({name}) has the severity {severity!r}; valid are {', '.join(SEVERITIES)}."
    for matcher in matchers:
        if not isinstance(matcher, str) or not _MATCHER.match(matcher):
            yield f'({name}) has the matcher {matcher!r}; one is like client="team-a".'
    if not severities and not matchers:
        yield f"({name}) gets no alert: it has neither severities nor matchers."


def alertmanager(receivers: Receivers) -> dict[str, t.Any]:
    """Alertmanager's configuration. What no receiver asks for is shown and sent to no one.

    Raises:
        FleetError: a receiver is invalid.
    """
    check_receivers(receivers)
    return {
        "route": {
            "receiver": NO_RECEIVER,
            "group_by": ["alertname", "host"],
            "group_wait": "15s",
            "group_interval": "1m",
            "repeat_interval": "4h",
            "routes": [_route(one) for one in receivers],
        },
        "inhibit_rules": [
            {
                "source_matchers": [f'alertname=~"{source}"'],
                "target_matchers": [f'alertname=~"{target}"'],
                "equal": same,
            }
            for source, target, same in _INHIBITS
        ],
        "receivers": [{"name": NO_RECEIVER}, *map(_receiver, receivers)],
    }


def _route(one: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    severities = one.get("severities")
    matchers = [f'severity=~"{"|".join(severities)}"'] if severities else []
    repeat = {"repeat_interval": one["repeat"]} if "repeat" in one else {}
    # Every receiver that asks for an alert gets it.
    return {"receiver": one["name"], "matchers": [*matchers, *one.get("matchers", [])], "continue": True, **repeat}


def _receiver(one: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    (kind,) = set(one) & set(KINDS)
    options = dict(one[kind])
    signing = {
        name: options.pop(name)
        for name in ("region", "access_key", "secret_key", "role_arn", "profile")
        if kind == "sns" and name in options
    }
    if signing:
        options["sigv4"] = signing
    return {"name": one["name"], f"{kind}_configs": [{**options, "send_resolved": True}]}
