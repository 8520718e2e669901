# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A gate's files: the key that it sends, and the record of the last gate with the last good figures.

Pure: the files' content in and out.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gate.speed import BUSY, number, slack

_ASSIGNMENT = re.compile(r"^(?:export\s+)?([A-Z][A-Z0-9_]*)=(.*)$")


def key_in(text: str, path: str) -> str:
    """The key in a file: its ENGINE_API_KEY, another variable named ..._KEY, or the bare key.

    Raises:
        FleetError: there is none, or an invalid one.
    """
    found: dict[str, str] = {}
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        match = _ASSIGNMENT.match(line)
        name, value = (match[1], match[2].strip().strip("\"'")) if match else ("", line)
        found.setdefault(name, value)
    names = ["ENGINE_API_KEY", *sorted(name for name in found if name.endswith("_KEY")), ""]
    key = next((found[name] for name in names if found.get(name)), "")
    return checked_key(key, f"The file {path}")


def checked_key(key: str, where: str) -> str:
    """A key that is valid in a header.

    Raises:
        FleetError: it is not; the message does not repeat it.
    """
    if not key:
        raise FleetError(f"{where} holds no key. Expected ENGINE_API_KEY=sk-… or the bare key.")
    if not re.match(r"^[\x21-\x7e]{8,}$", key):
        raise FleetError(f"{where} holds no usable key: 8 or more characters of ASCII without a space. Make a new key.")
    return key


def good_figures(document: t.Any, model: str) -> dict[str, t.Any] | None:
    """The last good figures in a record, or in a plain dictionary of figures; None where there are none for ``model``.

    Figures of another model do not count: a larger one is not a slow one. Neither do those that were only recorded,
        which a record keeps apart.
    """
    if not isinstance(document, dict):
        return None
    if "checks" in document or "good" in document:
        document = document.get("good") or {}
    if document.get("model", model) != model:
        return None
    figures = document.get("figures", document)
    usable = isinstance(figures, dict) and any(number(figures, name) for name in ("ttft_ms", "tokens_per_second"))
    return figures if usable else None


def record_of(result: dict[str, t.Any], before: t.Any, at: str) -> dict[str, t.Any]:
    """The record beside the host's other state: this gate, and the last good figures for judging speed."""
    good = before.get("good") if isinstance(before, dict) else None
    if result["passed"] and result["judged"] and _is_better_founded(result["figures"], good, result["model"]):
        good = {"at": at, "model": result["model"], "figures": result["figures"]}
    kept = (
        "name",
        "url",
        "model",
        "passed",
        "reason",
        "message",
        "checks",
        "not_asked",
        "figures",
        "judged",
        "attempts",
        "seconds",
    )
    return {"at": at, **{name: result[name] for name in kept}, "good": good}


def _is_better_founded(figures: dict[str, t.Any], good: t.Any, model: str) -> bool:
    """Whether figures may replace the last good ones: those of a busy machine would let a slow release pass."""
    before = good_figures({"good": good}, model)
    return before is None or slack(figures, before) <= BUSY
