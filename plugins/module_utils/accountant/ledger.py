# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What clients with limits on tokens have used, spent and reserved at one gateway. Pure.

A request books what it may use before it is let through, in one step with the look at what is left. Its line in the
access log settles that with what it did use. It is let through while what was used and what is booked are less than the
limit, so no client gets more than its limit and one request; at each gateway, where gateways count for themselves.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.accountant.lines import AnswerUse

#: Seconds in which tokens are counted.
WINDOW = 60
#: Seconds for which a booking from before a restart is expected to be settled.
RESTORED = 120.0
#: Seconds after the end of a process in which its last lines arrive.
LAST_LINES = 5.0
#: The version of the document.
VERSION = 1


class ClientBounds(t.NamedTuple):
    """A client's limits on tokens; 0 for none.

    Attributes:
        tokens: a minute.
        budget: in the unit of the prices.
        period: seconds that the budget is for; 0 for ever.
    """

    tokens: int = 0
    budget: float = 0.0
    period: int = 0

    def began(self, now: float) -> int:
        """When the present period of the budget began, in Unix time."""
        return int(now) // self.period * self.period if self.period else 0


class Shortfall(enum.Enum):
    """Why a request is not let through; the words that HAProxy gets."""

    TOKENS = "tokens"
    SPENT = "budget"
    RESERVED = "reserved"


class Admission(t.NamedTuple):
    """What a request gets.

    Attributes:
        finding: why it is not let through; None where it is.
        wait: seconds after which another try makes sense; 0 where that is not known.
    """

    finding: Shortfall | None = None
    wait: int = 0


@dataclasses.dataclass
class Booking:
    """What a request in flight may use.

    Attributes:
        client: whose it is.
        worker: the process of HAProxy that has it.
        made: when.
        deadline: when it counts as used, because its line is lost.
        tokens: the most that it uses.
        cost: the most that it costs.
        model: that it asks.
        budget: the account of its budget; empty for none.
        kept: seconds after which that account may be forgotten; 0 for never.
        counted: the second in which it was counted as used; 0 before.
        sure: whether the request is let through; before that it counts for no other one.
    """

    client: str
    worker: int
    made: float
    deadline: float
    tokens: int
    cost: float
    model: str
    budget: str = ""
    kept: int = 0
    counted: int = 0
    sure: bool = False


@dataclasses.dataclass
class BudgetAccount:
    """What was spent of one period's budget.

    Attributes:
        known: by all gateways, as Redis last said.
        unreported: here, and not yet said to Redis.
        kept: seconds after which the account may be forgotten; 0 for never.
    """

    known: float = 0.0
    unreported: float = 0.0
    kept: int = 0

    @property
    def spent(self) -> float:
        return self.known + self.unreported


class PriceList(t.NamedTuple):
    """Prices of a token of the prompt and of the answer, by model."""

    prices: t.Mapping[str, tuple[float, float]]

    def cost(self, model: str, prompt: int, completion: int) -> float:
        """What tokens cost; those of a model that is not known as much as the dearest."""
        known = [self.prices[model]] if model in self.prices else list(self.prices.values())
        return max((read * prompt + write * completion for read, write in known), default=0.0)


class Posting(t.NamedTuple):
    """What Redis has to hear of a request's end.

    Attributes:
        request: its name.
        client: whose it is.
        budget: the account of its budget; empty for none.
        tokens: that it used.
        second: in which they count.
    """

    request: str
    client: str
    budget: str
    tokens: int
    second: int


def budget_key(client: str, bounds: ClientBounds, now: float) -> str:
    """The account of a client's budget, as gateways of every kind name it in Redis."""
    return f"fleet:spent:{client}:{bounds.began(now)}"


def wait_for(buckets: t.Mapping[int, float], held: float, limit: float, now: float) -> int:
    """Seconds until enough of a minute's tokens are old enough; at least 1, at most a minute."""
    used = sum(buckets.values())
    for second in sorted(buckets):
        used -= buckets[second]
        if used + held < limit:
            return max(1, min(WINDOW, math.ceil(second + WINDOW - now)))
    # The bookings of requests in flight alone are too much.
    return 1


class Ledger:
    """The accounts of one gateway.

    Args:
        gateways: how many count for themselves where they share no Redis: each has its part of what is left.
        tariff: the prices.
        patience: seconds after which a request has surely ended.
    """

    def __init__(self, gateways: int, tariff: PriceList, patience: float = 3600.0) -> None:
        self._gateways = max(1, gateways)
        self._tariff = tariff
        self._patience = patience
        self.bookings: dict[str, Booking] = {}
        self.windows: dict[str, dict[int, float]] = {}
        self.budgets: dict[str, BudgetAccount] = {}
        # When a process was first seen to be gone.
        self._gone: dict[int, float] = {}

    def book(
        self,
        request: str,
        client: str,
        bounds: ClientBounds,
        model: str,
        prompt: int,
        completion: int,
        worker: int,
        now: float,
    ) -> Booking:
        """Book what a request may use."""
        budget = budget_key(client, bounds, now) if bounds.budget else ""
        booking = Booking(
            client,
            worker,
            now,
            now + self._patience,
            prompt + completion,
            self._tariff.cost(model, prompt, completion),
            model,
            budget,
            2 * bounds.period,
        )
        self.bookings[request] = booking
        if budget:
            self.budgets.setdefault(budget, BudgetAccount()).kept = booking.kept
        return booking

    def cancel(self, request: str) -> None:
        """Forget a booking whose request is not let through."""
        self.bookings.pop(request, None)

    def decide_tokens(self, request: str, bounds: ClientBounds, now: float) -> Admission:
        """Whether the client's tokens of the minute are enough for a request, by what is known here."""
        own = self.bookings.get(request)
        if own is None:
            # HAProxy has not waited, and the request has ended.
            return Admission()
        limit = bounds.tokens / self._gateways
        window = self._window(own.client, now)
        held = sum(one.tokens for name, one in self._others(request) if one.client == own.client)
        if sum(window.values()) + held < limit:
            return Admission()
        return Admission(Shortfall.TOKENS, wait_for(window, held, limit, now))

    def decide_budget(self, request: str, bounds: ClientBounds, now: float) -> Admission:
        """Whether the client's budget is enough for a request, by what is known here."""
        own = self.bookings.get(request)
        if own is None:
            return Admission()
        account = self.budgets[own.budget]
        held = sum(one.cost for name, one in self._others(request) if one.budget == own.budget)
        # What other gateways spend meanwhile is not known, so each takes its part of the rest.
        left = (bounds.budget - account.known) / self._gateways
        if account.unreported >= left:
            return self.refuse_budget(Shortfall.SPENT, bounds, now)
        return Admission() if account.unreported + held < left else Admission(Shortfall.RESERVED)

    @staticmethod
    def refuse_budget(finding: Shortfall, bounds: ClientBounds, now: float) -> Admission:
        """The refusal of a request whose budget is not enough."""
        if finding is Shortfall.SPENT and bounds.period:
            return Admission(finding, max(1, math.ceil(bounds.began(now) + bounds.period - now)))
        return Admission(finding)

    def reached(self, client: str, bounds: ClientBounds, now: float) -> list[Admission]:
        """The refusals of a client's next request, as far as they follow from what was used."""
        found = []
        limit, window = bounds.tokens / self._gateways, self._window(client, now)
        if bounds.tokens and sum(window.values()) >= limit:
            found.append(Admission(Shortfall.TOKENS, wait_for(window, 0.0, limit, now)))
        account = self.budgets.get(budget_key(client, bounds, now), BudgetAccount())
        if bounds.budget and account.unreported >= (bounds.budget - account.known) / self._gateways:
            found.append(self.refuse_budget(Shortfall.SPENT, bounds, now))
        return found

    def settle(self, use: AnswerUse, bounds: ClientBounds, now: float) -> Posting | None:
        """Count what a request has used, when its line says so.

        Args:
            use: what the line says.
            bounds: of its client, for a request that has booked nothing because the accountant was away.
            now: this moment.
        """
        booking = self.bookings.pop(use.request, None)
        if booking is None:
            booking = Booking(use.client, 0, now, now, 0, 0.0, "", kept=2 * bounds.period)
            booking.budget = budget_key(use.client, bounds, now) if bounds.budget else ""
            if not use.begun:
                return None
        if not use.begun:
            tokens, cost = 0, 0.0
        elif use.known:
            tokens = use.prompt + use.completion
            cost = self._tariff.cost(booking.model, use.prompt, use.completion)
        else:
            # It has answered, and nothing says how much.
            tokens, cost = booking.tokens, booking.cost
        return self._count(use.request, booking, tokens, cost, now)

    def expire(self, now: float, runs: t.Callable[[int], bool]) -> list[Posting]:
        """Count the bookings as used whose lines do not come: their process is gone, or it is too late.

        Args:
            now: this moment.
            runs: whether a process runs.
        """
        for worker in self.workers():
            if runs(worker):
                self._gone.pop(worker, None)
            else:
                self._gone.setdefault(worker, now)
        found = []
        for request, booking in list(self.bookings.items()):
            gone = now - self._gone.get(booking.worker, now) >= LAST_LINES
            if booking.counted:
                # A line that comes after all corrects what was counted, for as long as it can come.
                if now - booking.made > self._patience + RESTORED:
                    del self.bookings[request]
            elif booking.sure and (now >= booking.deadline or gone):
                found.append(self._count(request, booking, booking.tokens, booking.cost, now))
                booking.counted = int(now)
                self.bookings[request] = booking
        self._gone = {pid: since for pid, since in self._gone.items() if now - since < self._patience}
        return found

    def forget(self, now: float) -> None:
        """Forget what no limit needs any more."""
        for client in list(self.windows):
            if not self._window(client, now):
                del self.windows[client]
        used = {one.budget for one in self.bookings.values()}
        for key, account in list(self.budgets.items()):
            began = int(key.rpartition(":")[2])
            if account.kept and began + account.kept < now and key not in used:
                del self.budgets[key]

    def spent(self, client: str, bounds: ClientBounds, now: float) -> float:
        """What a client has spent of its present budget, as far as it is known here."""
        return self.budgets.get(budget_key(client, bounds, now), BudgetAccount()).spent

    def used(self, client: str, now: float) -> float:
        """The tokens that a client has used here in the last minute."""
        return sum(self._window(client, now).values())

    def open_bookings(self) -> t.Iterator[tuple[str, Booking]]:
        """The requests in flight, and what they have booked."""
        return ((name, one) for name, one in self.bookings.items() if one.sure and not one.counted)

    def workers(self) -> set[int]:
        """The processes of HAProxy whose lines are still expected."""
        return {one.worker for _name, one in self.open_bookings()}

    def document(self) -> dict[str, t.Any]:
        """All of it, for a file."""
        return {
            "version": VERSION,
            "bookings": {name: dataclasses.asdict(one) for name, one in self.bookings.items() if one.sure},
            "windows": {
                client: {str(second): tokens for second, tokens in window.items()}
                for client, window in self.windows.items()
            },
            "budgets": {key: dataclasses.asdict(one) for key, one in self.budgets.items()},
        }

    def restore(self, document: t.Mapping[str, t.Any], now: float) -> None:
        """Take what document() returned, after a restart.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        if document["version"] != VERSION:
            raise ValueError(f"it has version {document['version']!r}, and {VERSION} is known")
        bookings = {str(name): Booking(**one) for name, one in document["bookings"].items()}
        windows = {
            str(client): {int(second): float(tokens) for second, tokens in window.items()}
            for client, window in document["windows"].items()
        }
        budgets = {str(key): BudgetAccount(**one) for key, one in document["budgets"].items()}
        for key, account in budgets.items():
            int(key.rpartition(":")[2])
            float(account.known + account.unreported + account.kept)
        for booking in bookings.values():
            # A line may have been lost with the former process.
            booking.deadline = min(float(booking.deadline), now + RESTORED)
            float(booking.tokens + booking.cost + booking.made)
        self.bookings, self.windows, self.budgets = bookings, windows, budgets

    def _others(self, request: str) -> t.Iterator[tuple[str, Booking]]:
        return ((name, one) for name, one in self.open_bookings() if name != request)

    def _window(self, client: str, now: float) -> dict[int, float]:
        """The client's tokens of the last minute, by second. A clock that was set back counts none twice as long."""
        window = self.windows.get(client, {})
        for second in [one for one in window if one <= now - WINDOW or one > now]:
            tokens = window.pop(second)
            if second > now:
                window[int(now)] = window.get(int(now), 0.0) + tokens
        return window

    def _count(self, request: str, booking: Booking, tokens: int, cost: float, now: float) -> Posting:
        """Count tokens and cost, less what was counted of this booking before."""
        second = booking.counted or int(now)
        tokens -= booking.tokens if booking.counted else 0
        cost -= booking.cost if booking.counted else 0.0
        if tokens:
            window = self.windows.setdefault(booking.client, {})
            window[second] = window.get(second, 0.0) + tokens
        if booking.budget:
            account = self.budgets.setdefault(booking.budget, BudgetAccount(kept=booking.kept))
            account.unreported += cost
        return Posting(request, booking.client, booking.budget, tokens, second)
