# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The receipt of a converged host: what it was made from, and its state afterwards. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

FORMAT = 1
_SHOWN = 20

# The state, by subject and name: {"file": {"/etc/x": "0644 root:root …"}, "unit": {"haproxy": "active enabled"}}.
Findings = dict[str, dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Receipt:
    """The record of a run that converged a host.

    Attributes:
        digest: of everything that determines the host's wanted state.
        places: what to read: the arguments of look.look().
        found: the state when the run ended.
    """

    digest: str
    places: dict[str, list[str]]
    found: Findings

    def document(self) -> dict[str, t.Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}


def parse(document: t.Any, path: str) -> tuple[Receipt | None, str]:
    """The receipt in a file's document, or none and why it does not count.

    A receipt only saves work: an unreadable one leads to a full run, which writes it again.
    """
    if document is None:
        return None, "no run has converged the host yet"
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        return None, f"{path} is no receipt"
    if document["format"] != FORMAT:
        return None, f"{path} has format {document['format']}, and this version of the collection reads {FORMAT}"
    digest, places, found = (document.get(name) for name in ("digest", "places", "found"))
    if not isinstance(digest, str) or not _is_places(places) or not _is_findings(found):
        return None, f"{path} is no receipt"
    return Receipt(digest, t.cast("dict[str, list[str]]", places), t.cast(Findings, found)), ""


def differences(before: Findings, now: Findings) -> list[str]:
    """The differences, one line each: ``file /etc/x: 0644 root:root, was 0640 root:haproxy``."""
    lines = []
    for subject in sorted({*before, *now}):
        old, new = before.get(subject, {}), now.get(subject, {})
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                lines.append(f"{subject} {name}: {_described(old.get(name), new.get(name))}")
    return lines


def shortened(lines: t.Sequence[str]) -> list[str]:
    """The first differences, and how many more there are."""
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f"and {more} more"] if more > 0 else list(lines)


def _described(old: str | None, new: str | None) -> str:
    if new is None:
        return "missing"
    if old is None:
        return f"new ({new})"
    changed = [(was, now) for was, now in zip(old.split(), new.split()) if was != now]
    if not changed or len(old.split()) != len(new.split()):
        return f"{new}, was {old}"
    return ", ".join(f"{_brief(now)}, was {_brief(was)}" for was, now in changed)


def _brief(word: str) -> str:
    kind, mark, digest = word.partition(":")
    return f"{kind}:{digest[:12]}" if mark and kind == "sha256" else word


def _is_places(value: t.Any) -> bool:
    return isinstance(value, dict) and all(isinstance(paths, list) for paths in value.values())


def _is_findings(value: t.Any) -> bool:
    return isinstance(value, dict) and all(isinstance(names, dict) for names in value.values())
