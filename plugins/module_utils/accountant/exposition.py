# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the accountant knows, as metrics for a Prometheus text file. Pure."""

from __future__ import annotations

import typing as t

_HELP = {
    "fleet_budget_spent_ratio": (
        "gauge",
        "The share of its budget that a client has spent in this period, as this gateway knows it.",
    ),
    "fleet_budget_left": ("gauge", "What is left of it, in the unit of the prices."),
    "fleet_tokens_last_minute": (
        "gauge",
        "Tokens that a client with a limit on them has used here in the last minute.",
    ),
    "fleet_accountant_bookings": ("gauge", "Requests in flight that have something booked."),
    "fleet_accountant_store_up": ("gauge", "Whether the Redis of the gateways answers; 1 where there is none."),
    "fleet_accountant_last_look_timestamp_seconds": ("gauge", "When these figures were written."),
    "fleet_accountant_skipped_total": ("counter", "Places in the ring's lines that could not be read."),
    "fleet_accountant_expired_total": ("counter", "Requests that count as they were booked, because no line came."),
}


class AccountFigures(t.NamedTuple):
    """The figures.

    Attributes:
        ratio: of the budget that is spent, by client.
        left: of it.
        tokens: of the last minute, by client.
        bookings, store_up, skipped, expired: see above.
        now: when they were so.
    """

    ratio: t.Mapping[str, float]
    left: t.Mapping[str, float]
    tokens: t.Mapping[str, float]
    bookings: int
    store_up: bool
    skipped: int
    expired: int
    now: float


def render(figures: AccountFigures) -> str:
    """The text file."""
    by_client = {
        "fleet_budget_spent_ratio": figures.ratio,
        "fleet_budget_left": figures.left,
        "fleet_tokens_last_minute": figures.tokens,
    }
    plain = {
        "fleet_accountant_bookings": figures.bookings,
        "fleet_accountant_store_up": int(figures.store_up),
        "fleet_accountant_last_look_timestamp_seconds": int(figures.now),
        "fleet_accountant_skipped_total": figures.skipped,
        "fleet_accountant_expired_total": figures.expired,
    }
    lines = []
    for name, (kind, text) in _HELP.items():
        if name in plain:
            samples = [f"{name} {plain[name]}"]
        else:
            samples = [f'{name}{{client="{client}"}} {value:.9g}' for client, value in sorted(by_client[name].items())]
        if samples:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples]
    return "\n".join(lines) + "\n"
