# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The figures of one repeat of a scenario, from its requests. Pure."""

from __future__ import annotations

import statistics
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.benchmark.client import MeasuredRequest, Scenario

#: The figures, and whether more of them is better. Times are in seconds.
MORE_IS_BETTER = {
    "first_token": False,
    "first_token_p95": False,
    "between_tokens": False,
    "between_tokens_p95": False,
    "tokens_per_second": True,
    "requests_per_second": True,
    "seconds": False,
    "first_asked": False,
    "asked_again": False,
}


def figures(requests: t.Sequence[MeasuredRequest], scenario: Scenario) -> dict[str, float]:
    """The figures of a repeat; one that the requests do not have is missing.

    ``seconds`` is that of a whole conversation, where there are turns. ``first_asked`` is the first token of the first
    question about a document, which the engine has to read; ``asked_again`` that of the others.
    """
    whole = [request for request in requests if not request.problem]
    if not whole:
        return {}
    found = {
        **_both("first_token", [one.first_token for one in whole]),
        **_both("between_tokens", [one.between_tokens for one in whole]),
    }
    # The failed ones took their time, too.
    took = max(one.ended for one in requests) - min(one.began for one in requests)
    if took > 0:
        found["tokens_per_second"] = sum(one.output_tokens for one in whole) / took
        found["requests_per_second"] = len(whole) / took
    if scenario.turns > 1:
        found["seconds"] = statistics.median(_conversations(whole, scenario.turns) or [took])
    else:
        found["seconds"] = statistics.median(one.seconds for one in whole)
    if scenario.document_tokens:
        first, later = whole[0].first_token, [one.first_token for one in whole[1:] if one.first_token is not None]
        found.update({"first_asked": first} if first is not None else {})
        found.update({"asked_again": statistics.median(later)} if later else {})
    return found


def percentile(values: t.Sequence[float], share: float) -> float:
    """The value that a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _both(name: str, values: t.Sequence[float | None]) -> dict[str, float]:
    known = [value for value in values if value is not None]
    return {name: statistics.median(known), f"{name}_p95": percentile(known, 0.95)} if known else {}


def _conversations(requests: t.Sequence[MeasuredRequest], turns: int) -> list[float]:
    """The seconds of each whole conversation: what its answers took, without the client's own time between them."""
    taken: dict[str, list[float]] = {}
    for request in requests:
        taken.setdefault(request.conversation, []).append(request.seconds)
    return [sum(each) for each in taken.values() if len(each) == turns]
