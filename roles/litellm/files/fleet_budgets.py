# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients with a budget have spent, together at all gateways that share a Redis. Knows nothing of LiteLLM.

A request reserves what it costs at most before it is let through, in one step with the look at what is left, and
settles with what it did cost. It is let through while what was spent and what is reserved are less than the budget; so
no client spends more than its budget and the cost of one request.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import logging
import time
import typing as t

from fleet_clients import Client

LOGGER = logging.getLogger("fleet")

#: Seconds for which a Redis that did not answer is not asked.
PATIENCE = 5.0

#: Seconds after which a reservation ends by itself: its process was killed.
HELD = 120

#: Seconds after which a process says again which reservations it has.
RENEWAL = 30.0

#: A budget is a hash: what was spent, and each reservation by the request that has it, as its amount and its end.
RESERVE = """
local spent, held = 0, 0
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  if entries[i] == 'spent' then
    spent = tonumber(entries[i + 1])
  else
    local amount, ends = string.match(entries[i + 1], '^(%S+) (%S+)$')
    if tonumber(ends) <= tonumber(ARGV[4]) then
      redis.call('HDEL', KEYS[1], entries[i])
    elseif entries[i] ~= ARGV[3] then
      held = held + tonumber(amount)
    end
  end
end
local budget, taken = tonumber(ARGV[1]), 0
if spent + held < budget then
  taken = 1
  redis.call('HSET', KEYS[1], ARGV[3], ARGV[2] .. ' ' .. ARGV[5])
  if tonumber(ARGV[6]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
end
return {taken, tostring(spent)}
"""

RENEW = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
if tonumber(ARGV[4]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return 1
"""

SETTLE = """
for i = 3, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
local spent = redis.call('HINCRBYFLOAT', KEYS[1], 'spent', ARGV[1])
if tonumber(ARGV[2]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return spent
"""


class Store(t.Protocol):
    """Where all gateways count; what the client of Redis has."""

    async def eval(self, script: str, numkeys: int, *keys_and_args: t.Any) -> t.Any: ...


@dataclasses.dataclass(frozen=True)
class Reservation:
    """What a request in flight may cost.

    Attributes:
        budget: the key of the budget in Redis.
        kept: seconds after which Redis may forget that budget; 0 for never.
        amount: the most that it costs.
    """

    budget: str
    kept: int
    amount: float


class Refusal(enum.Enum):
    """Why a request is not let through."""

    SPENT = "The client has spent its budget."
    RESERVED = "What is left of the client's budget is reserved by its requests in flight. Try again."


class Budgets:
    """The budgets of all clients.

    While Redis does not answer, each process goes on with what it last knew, what it has spent since and what it has
    reserved, and reports it later. LiteLLM has one thread: nothing comes between two steps without an ``await``.

    Args:
        store: Redis; None where there is none.
        now: the clock.
    """

    def __init__(self, store: Store | None, now: t.Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        # By budget.
        self._known: dict[str, float] = {}
        self._unreported: dict[str, float] = {}
        self._kept: dict[str, int] = {}
        # By name; those that have asked here.
        self._clients: dict[str, Client] = {}
        # By request.
        self._open: dict[str, Reservation] = {}
        self._silent_until = 0.0
        self._renewing: asyncio.Task[None] | None = None

    @property
    def reserved(self) -> t.Collection[str]:
        """The requests that have something reserved."""
        return self._open.keys()

    def shares(self) -> dict[str, float]:
        """The share of its budget that each client has spent in its present period, as far as this process knows.

        A client that has not asked here is not in it. What it spends at other gateways is known since it last asked.
        """
        return {
            client.name: self._spent(self._reservation(client, 0.0).budget) / client.budget
            for client in self._clients.values()
            if client.budget
        }

    async def reserve(self, client: Client, request: str, amount: float) -> Refusal | None:
        """Let a request through, or say why not.

        Args:
            client: whose it is.
            request: a name for it that no other one has.
            amount: the most that it costs.
        """
        if client.budget is None:
            self._clients.pop(client.name, None)
            return None
        self._clients[client.name] = client
        await self.release(request)
        made = self._reservation(client, amount)
        if self._asks():
            try:
                taken, spent = await self._store.eval(  # type: ignore[union-attr]
                    *(RESERVE, 1, made.budget, client.budget - self._unreported.get(made.budget, 0.0)),
                    *(amount, request, self._now(), self._now() + HELD, made.kept),
                )
            except Exception as error:
                self._fails(error)
            else:
                self._known[made.budget] = float(spent)
                if not int(taken):
                    return self._reason(client, made.budget)
                self._open[request] = made
                self._renew()
                return None
        held = sum(other.amount for other in self._open.values() if other.budget == made.budget)
        if self._spent(made.budget) + held >= client.budget:
            return self._reason(client, made.budget)
        self._open[request] = made
        if self._store is not None:
            self._renew()
        return None

    async def spend(self, client: Client, request: str, cost: float) -> None:
        """Settle what a request has cost, in the period in which it was let through."""
        if client.budget is None:
            return
        made = self._open.pop(request, None)
        budget = made or self._reservation(client, 0.0)
        self._unreported[budget.budget] = self._unreported.get(budget.budget, 0.0) + max(cost, 0.0)
        self._kept[budget.budget] = budget.kept
        await self._report(budget.budget, [request] if made else [])
        for other in [name for name, amount in self._unreported.items() if amount > 0]:
            await self._report(other, [])

    async def release(self, request: str) -> None:
        """Give back what a request has reserved and not spent."""
        made = self._open.pop(request, None)
        if made is not None:
            self._kept[made.budget] = made.kept
            await self._report(made.budget, [request])

    async def _report(self, budget: str, requests: t.Sequence[str]) -> None:
        """Report what was spent of a budget, and which requests have ended."""
        if not self._asks():
            # What Redis still has reserved for them ends by itself.
            return
        amount = self._unreported.pop(budget, 0.0)
        if not amount and not requests:
            # Another request has reported it meanwhile.
            return
        try:
            spent = await self._store.eval(SETTLE, 1, budget, amount, self._kept[budget], *requests)  # type: ignore[union-attr]
        except Exception as error:
            self._unreported[budget] = self._unreported.get(budget, 0.0) + amount
            self._fails(error)
        else:
            self._known[budget] = float(spent)

    def _renew(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._keep_reservations())

    async def _keep_reservations(self) -> None:
        while self._open:
            await asyncio.sleep(RENEWAL)
            for request in list(self._open):
                made = self._open.get(request)
                if made is None or not self._asks():
                    continue
                ends = self._now() + HELD
                try:
                    await self._store.eval(RENEW, 1, made.budget, request, made.amount, ends, made.kept)  # type: ignore[union-attr]
                except Exception as error:
                    self._fails(error)

    def _reservation(self, client: Client, amount: float) -> Reservation:
        budget = f"fleet:spent:{client.name}:{client.period(self._now())}"
        return Reservation(budget, 2 * (client.budget_seconds or 0), amount)

    def _spent(self, budget: str) -> float:
        return self._known.get(budget, 0.0) + self._unreported.get(budget, 0.0)

    def _reason(self, client: Client, budget: str) -> Refusal:
        return Refusal.SPENT if self._spent(budget) >= (client.budget or 0.0) else Refusal.RESERVED

    def _asks(self) -> bool:
        return self._store is not None and self._now() >= self._silent_until

    def _fails(self, error: Exception) -> None:
        self._silent_until = self._now() + PATIENCE
        LOGGER.warning("Redis does not answer, so budgets are counted here alone for now: %r", error)
