# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether the hosts of a wave serve as well as those that the rollout has not touched, by what both have counted over
the same minutes. Pure: two readings a host in, a judgement out.

Three figures: the share of errors, the median time between tokens, and the share of slow first tokens. Too few requests
prove nothing, and are neither good nor bad.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import Buckets
from ansible_collections.inference.fleet.plugins.module_utils.rollout.counters import load_buckets

VARIABLE = "rollout_max_regression"

WORSE = "worse"
FINE = "fine"
INCONCLUSIVE = "inconclusive"

#: The requests that each side needs.
LEAST_REQUESTS = 50
#: A first token later than this is slow; every engine has the bound.
SLOW_FIRST_TOKEN = 1.0
#: Beyond what is allowed, a share must be this many standard deviations above: a few of 50 are chance.
_SIGMAS = 3.0
#: Shares below this are taken for it: from nothing, any error would be infinitely worse.
_LEAST_ERRORS = 0.005
_LEAST_SLOW = 0.02
#: Medians that differ by less, in seconds, are the same for a reader.
_LEAST_GAP = 0.002

Reading = t.Mapping[str, t.Any]


class HostCounters(t.NamedTuple):
    """A host's readings.

    Attributes:
        host: its name.
        kind: what it has in common with those that it is compared with, such as its model and instance type.
        before, after: results of module serving_counters; None or a failure where it was not read.
    """

    host: str
    kind: str
    before: Reading | None
    after: Reading | None


@dataclasses.dataclass
class Served:
    """What hosts served between their readings, together.

    Attributes:
        hosts: their names.
        missing: those without two readings.
        restarted: those where a process restarted in between, so that only what followed is known.
        answers, errors: of the edges.
        ttft, itl: histograms of the engines, with the bounds that all of them have.
    """

    hosts: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    restarted: list[str] = dataclasses.field(default_factory=list)
    answers: float = 0.0
    errors: float = 0.0
    ttft: list[Buckets] = dataclasses.field(default_factory=list)
    itl: list[Buckets] = dataclasses.field(default_factory=list)


def check_limit(value: t.Any) -> float | None:
    """The greatest factor by which a wave's hosts may be worse; None compares nothing.

    Raises:
        FleetError: it is no such factor.
    """
    if value is None or value == "" or value is False:
        return None
    try:
        limit = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        limit = math.nan
    if limit == 0:
        return None
    if not (math.isfinite(limit) and limit >= 1):
        raise FleetError(
            f"{VARIABLE} is {value!r}; it is how many times as bad as the untouched hosts those of a wave may be, a "
            "number from 1, such as 1.3. 0 compares nothing."
        )
    return limit


def compare(wave: t.Sequence[HostCounters], untouched: t.Sequence[HostCounters], limit: float) -> dict[str, t.Any]:
    """Compare a wave's hosts with untouched ones, kind by kind.

    Args:
        wave: the hosts of the wave.
        untouched: those that the rollout has not changed.
        limit: from check_limit().

    Returns:
        ``verdict`` (the worst of its comparisons), ``text`` for a person, and ``comparisons``, each with ``kind``,
        ``hosts``, ``untouched``, ``verdict``, ``text``, ``requests`` of both, and ``figures``: rows of name, the wave's
        hosts, the untouched ones, what was allowed, and a verdict.
    """
    kinds = list(dict.fromkeys(one.kind for one in wave))
    made = [
        _compare_kind(
            kind,
            _sum([one for one in wave if one.kind == kind]),
            _sum([one for one in untouched if one.kind == kind]),
            limit,
        )
        for kind in kinds
    ]
    verdicts = {one["verdict"] for one in made}
    verdict = next((one for one in (WORSE, FINE) if one in verdicts), INCONCLUSIVE)
    shown = [one for one in made if one["verdict"] == WORSE] or made
    return {"verdict": verdict, "text": " ".join(one["text"] for one in shown), "comparisons": made}


def _compare_kind(kind: str, wave: Served, rest: Served, limit: float) -> dict[str, t.Any]:
    why = _find_obstacle(wave, rest, kind)
    figures = [] if why else [figure for figure in _list_figures(wave, rest, limit) if figure]
    verdicts = [figure["verdict"] for figure in figures]
    verdict = WORSE if WORSE in verdicts else FINE if FINE in verdicts else INCONCLUSIVE
    names = ", ".join(wave.hosts or wave.missing)
    if why:
        text = f"{names}: not compared with untouched hosts, {why}."
    else:
        rows = [figure for figure in figures if verdict != WORSE or figure["verdict"] == WORSE]
        said = "; ".join(_say(figure) for figure in rows)
        how = "worse than" if verdict == WORSE else "no worse than"
        text = f"{names}: {how} {len(rest.hosts)} untouched host{'s' if len(rest.hosts) > 1 else ''}: {said}."
    return {
        "kind": kind,
        "hosts": wave.hosts,
        "untouched": rest.hosts,
        "verdict": verdict,
        "text": text + _note(wave, rest),
        "requests": [int(wave.answers), int(rest.answers)],
        "figures": figures,
    }


def _find_obstacle(wave: Served, rest: Served, kind: str) -> str:
    """Why nothing can be compared; empty for no reason."""
    if not wave.hosts:
        return "their counters were not read before and after"
    if not rest.hosts:
        missing = f" ({', '.join(rest.missing)} could not be read)" if rest.missing else ""
        return f"none is left with {kind}{missing}" if kind else f"none is left{missing}"
    if min(wave.answers, rest.answers) < LEAST_REQUESTS:
        return (
            f"inconclusive: {wave.answers:.0f} requests there and {rest.answers:.0f} on {len(rest.hosts)} untouched, "
            f"and each side needs {LEAST_REQUESTS}"
        )
    return ""


def _note(wave: Served, rest: Served) -> str:
    notes = []
    restarted = [*wave.restarted, *rest.restarted]
    if restarted:
        notes.append(f"Restarted meanwhile, and counted from there: {', '.join(restarted)}.")
    missing = [name for side in (wave, rest) if side.hosts for name in side.missing]
    if missing:
        notes.append(f"Not read: {', '.join(missing)}.")
    return "".join(f" {note}" for note in notes)


def _sum(hosts: t.Sequence[HostCounters]) -> Served:
    served = Served()
    for one in hosts:
        before, after = one.before or {}, one.after or {}
        if not (before.get("edge") and after.get("edge")):
            served.missing.append(one.host)
            continue
        served.hosts.append(one.host)
        restarted = _add_edge(served, before["edge"], after["edge"])
        old, new = before.get("instances") or {}, after.get("instances") or {}
        for name in new.keys() & old.keys():
            for figure, into in (("ttft", served.ttft), ("itl", served.itl)):
                gained, again = _gain(load_buckets(old[name].get(figure)), load_buckets(new[name].get(figure)))
                restarted |= again
                if gained:
                    into.append(gained)
        if restarted:
            served.restarted.append(one.host)
    return served


def _add_edge(served: Served, before: Reading, after: Reading) -> bool:
    """Add an edge's answers; whether its process restarted in between."""
    restarted = any(float(after[name]) < float(before[name]) for name in ("answers", "errors"))
    since = {name: 0.0 if restarted else float(before[name]) for name in ("answers", "errors")}
    served.answers += float(after["answers"]) - since["answers"]
    served.errors += float(after["errors"]) - since["errors"]
    return restarted


def _gain(before: Buckets, after: Buckets) -> tuple[Buckets, bool]:
    """What was added to a histogram, and whether its process restarted in between."""
    restarted = bool(before) and (before.keys() != after.keys() or any(after[one] < before[one] for one in before))
    since: Buckets = {} if restarted else before
    return {bound: count - since.get(bound, 0.0) for bound, count in after.items()}, restarted


def _merge(histograms: t.Sequence[Buckets], bounds: t.Collection[float]) -> Buckets:
    return {bound: sum(one[bound] for one in histograms) for bound in sorted(bounds)}


def _list_figures(wave: Served, rest: Served, limit: float) -> list[dict[str, t.Any] | None]:
    return [
        _judge_share("share of errors", wave.errors, wave.answers, rest.errors, rest.answers, _LEAST_ERRORS, limit),
        _judge_gap(wave, rest, limit),
        _judge_first_tokens(wave, rest, limit),
    ]


def _judge_share(
    name: str, bad: float, of: float, rest_bad: float, rest_of: float, least: float, limit: float
) -> dict[str, t.Any]:
    """Judge a share: worse if there are clearly more than the untouched hosts' share, times the limit, lets expect."""
    # Of few requests, none that failed does not mean that none would.
    share = max((rest_bad + 1) / (rest_of + 2), least)
    expected = min(share * limit, 1.0) * of
    allowed = expected + _SIGMAS * math.sqrt(expected)
    return {
        "name": name,
        "wave": f"{_percent(bad / of)} of {of:.0f}",
        "untouched": f"{_percent(rest_bad / rest_of)} of {rest_of:.0f}",
        "allowed": _percent(min(allowed / of, 1.0)),
        "verdict": WORSE if bad > allowed else FINE,
    }


def _judge_gap(wave: Served, rest: Served, limit: float) -> dict[str, t.Any] | None:
    """Judge the median time between tokens; None where the engines do not say it."""
    both = _common(wave.itl, rest.itl)
    if both is None:
        return None
    name = "median time between tokens"
    if min(both[0][math.inf], both[1][math.inf]) < LEAST_REQUESTS:
        return None
    new, old = _median(both[0]), _median(both[1])
    allowed = max(old * limit, old + _LEAST_GAP)
    return {
        "name": name,
        "wave": _milliseconds(new),
        "untouched": _milliseconds(old),
        "allowed": _milliseconds(allowed),
        "verdict": WORSE if new > allowed else FINE,
    }


def _judge_first_tokens(wave: Served, rest: Served, limit: float) -> dict[str, t.Any] | None:
    """Judge the share of slow first tokens; None where the engines do not say it, or of too few."""
    both = _common(wave.ttft, rest.ttft)
    if both is None:
        return None
    slow = min((bound for bound in both[0] if SLOW_FIRST_TOKEN <= bound < math.inf), default=None)
    counts = [one[math.inf] for one in both]
    if slow is None or min(counts) < LEAST_REQUESTS:
        return None
    bad = [one[math.inf] - one[slow] for one in both]
    name = f"share of first tokens after {slow:g} s"
    return _judge_share(name, bad[0], counts[0], bad[1], counts[1], _LEAST_SLOW, limit)


def _common(wave: t.Sequence[Buckets], rest: t.Sequence[Buckets]) -> tuple[Buckets, Buckets] | None:
    """Both sides' histograms over the bounds that all have, so that engines with other bounds compare."""
    if not wave or not rest:
        return None
    bounds = set.intersection(*(set(one) for one in (*wave, *rest)))
    if math.inf not in bounds or len(bounds) < 2:
        return None
    return _merge(wave, bounds), _merge(rest, bounds)


def _median(buckets: Buckets) -> float:
    """The median of a histogram, by linear interpolation; beyond its last bound it is that bound."""
    half = buckets[math.inf] / 2
    lower, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= half:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * ((half - below) / (count - below) if count > below else 0.0)
        lower, below = bound, count
    return lower


def _say(figure: dict[str, t.Any]) -> str:
    return f"{figure['name']} {figure['wave']} against {figure['untouched']} (up to {figure['allowed']} is allowed)"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
