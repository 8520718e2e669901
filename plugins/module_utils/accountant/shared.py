# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What clients have used and booked at all gateways together, in their Redis.

A budget is the hash that gateways with a process keep, too: what was spent, and each booking by its request, as its
amount and its end. So a client's spending goes on when the kind of its gateways changes, and where both kinds are
mixed. The tokens of a minute are a hash of the same form, with a field for each second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.accountant.ledger import WINDOW
from ansible_collections.inference.fleet.plugins.module_utils.gateway.redis import RedisAddress

#: Seconds for an answer. HAProxy waits longer for the accountant's.
PATIENCE = 0.3
#: Seconds for which a Redis that did not answer is not asked.
SILENCE = 5.0
#: Seconds after which a booking ends by itself there: its gateway is gone.
HELD = 120
#: Seconds after which the accountant says again which bookings it has.
RENEWAL = 30.0
#: Seconds after which a client's tokens of a minute are forgotten: the last booking has ended, and a minute is over.
TOKENS_KEPT = HELD + WINDOW

#: KEYS: the account. ARGV: limit, amount, request, now, end, seconds to keep, seconds of the window (0 for a budget).
#: Returns whether it was booked, what was used, what others have booked, and the seconds of the window.
BOOK = """
local used, held, window, seconds = 0, 0, tonumber(ARGV[7]), {}
local now = tonumber(ARGV[4])
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local second = string.match(entries[i], '^s(%d+)$')
  if entries[i] == 'spent' then
    used = used + tonumber(entries[i + 1])
  elseif second then
    if tonumber(second) <= now - window or tonumber(second) > now + window then
      redis.call('HDEL', KEYS[1], entries[i])
    else
      used = used + tonumber(entries[i + 1])
      seconds[#seconds + 1] = second .. ':' .. entries[i + 1]
    end
  else
    local amount, ends = string.match(entries[i + 1], '^(%S+) (%S+)$')
    if tonumber(ends) <= now then
      redis.call('HDEL', KEYS[1], entries[i])
    elseif entries[i] ~= ARGV[3] then
      held = held + tonumber(amount)
    end
  end
end
local taken = 0
if used + held < tonumber(ARGV[1]) then
  taken = 1
  redis.call('HSET', KEYS[1], ARGV[3], ARGV[2] .. ' ' .. ARGV[5])
  if tonumber(ARGV[6]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
end
return {taken, tostring(used), tostring(held), table.concat(seconds, ' ')}
"""

#: KEYS: the account. ARGV: field, amount, seconds to keep, requests that have ended. Returns what the field has.
POST = """
for i = 4, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
local used = redis.call('HINCRBYFLOAT', KEYS[1], ARGV[1], ARGV[2])
if tonumber(ARGV[3]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return used
"""

#: KEYS: the account. ARGV: request, amount, end, seconds to keep.
RENEW = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
if tonumber(ARGV[4]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return 1
"""

SPENT = "spent"


class SharedAnswer(t.NamedTuple):
    """What Redis says of an account.

    Attributes:
        booked: whether the request was let through.
        used: in the account.
        held: by other requests.
        seconds: of tokens, what was used in each.
    """

    booked: bool
    used: float
    held: float
    seconds: dict[int, float]


class StoreRefusal(Exception):
    """Redis answers with an error."""


def tokens_key(client: str) -> str:
    """The account of a client's tokens."""
    return f"fleet:tokens:{client}"


class SharedAccounts:
    """A connection to Redis. One that does not answer is left alone for a while.

    Args:
        address: where it is.
        clock: seconds that only grow.
        say: prints a line for people.
    """

    def __init__(self, address: RedisAddress, clock: t.Callable[[], float], say: t.Callable[[str], None]) -> None:
        self._address = address
        self._clock = clock
        self._say = say
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._silent_until = 0.0
        self._failed = False

    @property
    def asks(self) -> bool:
        """Whether it is worth asking."""
        return self._clock() >= self._silent_until

    @property
    def answers(self) -> bool:
        """Whether it answered when it was asked last."""
        return not self._failed

    async def book(
        self, key: str, limit: float, amount: float, request: str, now: float, kept: int, window: int = 0
    ) -> SharedAnswer | None:
        """Book an amount where the limit allows it; None where Redis does not answer."""
        answer = await self._eval(BOOK, key, limit, amount, request, now, now + HELD, kept, window)
        if not isinstance(answer, list):
            return None
        booked, used, held, seconds = answer
        pairs = (one.partition(":") for one in str(seconds).split())
        return SharedAnswer(
            bool(booked), float(used), float(held), {int(second): float(tokens) for second, _colon, tokens in pairs}
        )

    async def post(self, key: str, field: str, amount: float, kept: int, requests: t.Sequence[str]) -> float | None:
        """Add to a field, and end bookings; what the field has then, or None where Redis does not answer."""
        answer = await self._eval(POST, key, field, f"{amount:.12f}", kept, *requests)
        return None if answer is None else float(answer)

    async def renew(self, key: str, request: str, amount: float, now: float, kept: int) -> None:
        """Keep a booking."""
        await self._eval(RENEW, key, request, amount, now + HELD, kept)

    async def close(self) -> None:
        async with self._lock:
            self._drop()

    async def _eval(self, script: str, key: str, *arguments: t.Any) -> t.Any:
        if not self.asks:
            return None
        async with self._lock:
            # Others may have found out meanwhile.
            if self._clock() < self._silent_until:
                return None
            try:
                answer = await asyncio.wait_for(self._ask("EVAL", script, "1", key, *map(str, arguments)), PATIENCE)
            except (OSError, StoreRefusal, ValueError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
                self._drop()
                self._silent_until = self._clock() + SILENCE
                if not self._failed:
                    self._say(
                        f"Redis at {self._address.place} does not answer, so limits on tokens are counted here alone "
                        f"for now: {error or type(error).__name__}"
                    )
                self._failed = True
                return None
            if self._failed:
                self._say(f"Redis at {self._address.place} answers again.")
            self._failed = False
            return answer

    async def _ask(self, *words: str) -> t.Any:
        if self._streams is None:
            self._streams = await self._connect()
            address = self._address
            if address.password:
                await self._send("AUTH", *([address.user] if address.user else []), address.password)
            if address.database:
                await self._send("SELECT", str(address.database))
        return await self._send(*words)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = None
        if self._address.tls:
            context = ssl.create_default_context(cafile=self._address.ca_file or None)
            if not self._address.verified:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        return await asyncio.open_connection(self._address.host, self._address.port, ssl=context)

    async def _send(self, *words: str) -> t.Any:
        assert self._streams
        reader, writer = self._streams
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
        writer.write(b"*%d\r\n%s" % (len(words), parts))
        await writer.drain()
        return await self._read(reader)

    async def _read(self, reader: asyncio.StreamReader) -> t.Any:
        line = (await reader.readuntil(b"\r\n"))[:-2].decode("utf-8", "replace")
        kind, rest = line[:1], line[1:]
        if kind == "-":
            raise StoreRefusal(rest[:200])
        if kind == "+":
            return rest
        if kind == ":":
            return int(rest)
        if kind == "$":
            return "" if rest == "-1" else (await reader.readexactly(int(rest) + 2))[:-2].decode("utf-8", "replace")
        if kind == "*":
            return [await self._read(reader) for _ in range(int(rest))]
        raise StoreRefusal(f"it does not speak Redis' protocol (it said {line[:40]!r})")

    def _drop(self) -> None:
        if self._streams:
            with contextlib.suppress(OSError, RuntimeError):
                self._streams[1].close()
        self._streams = None
