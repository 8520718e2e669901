# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Reads a fleet's last hours from a Prometheus, through its HTTP API."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.status import history

try:
    import aiohttp
except ImportError:
    _MISSING = "aiohttp is missing on this controller: pip install -r requirements/controller.txt"
else:
    _MISSING = ""

_PATH = "/api/v1/query_range"
_TIMEOUT = 10.0
#: A line of a chart is a few kilobytes.
_MOST_BYTES = 4 * 1024 * 1024


def read_history(url: str, now: float, seconds: float) -> history.History:
    """The last ``seconds`` before ``now``. What fails is a problem, and never an error."""
    span = history.span_of(now, seconds)
    source = shown(url)
    found: dict[history.Query, list[history.Point]] = {}
    try:
        if _MISSING:
            raise FleetError(_MISSING)
        _check(url)
        found = asyncio.run(_read(url, span, time.monotonic() + _TIMEOUT))
    except FleetError as error:
        return history.History(source, span, {}, f"Prometheus at {source}: {error.message}.")
    empty = "" if any(found.values()) else f"Prometheus at {source} has no metric of the fleet."
    return history.History(source, span, found, empty)


def shown(url: str) -> str:
    """A URL without user, password and parameters."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "an address that is none"
    return words.line(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/"), 120)


def _check(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise FleetError("this is no address; status_prometheus_url is one such as http://127.0.0.1:9090")


async def _read(url: str, span: history.ChartSpan, deadline: float) -> dict[history.Query, list[history.Point]]:
    timeout = aiohttp.ClientTimeout(total=max(deadline - time.monotonic(), 0.1))
    queries = history.list_queries(span)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            answers = await asyncio.gather(*(_ask(session, url, query, span) for query in queries))
    except asyncio.TimeoutError as error:
        raise FleetError(f"it did not answer within {_TIMEOUT:.0f} s") from error
    except (aiohttp.ClientError, OSError) as error:
        # A message of aiohttp may repeat the URL with its password.
        said = getattr(getattr(error, "os_error", error), "strerror", None) or type(error).__name__
        raise FleetError(f"it does not answer ({said})") from error
    return dict(zip(queries, answers))


async def _ask(
    session: aiohttp.ClientSession, url: str, query: history.Query, span: history.ChartSpan
) -> list[history.Point]:
    asked = {
        "query": query.expression,
        "start": f"{span.start:.3f}",
        "end": f"{span.end:.3f}",
        "step": f"{span.step:g}",
    }
    async with session.get(url.rstrip("/") + _PATH, params=asked) as response:
        body = bytearray()
        async for part in response.content.iter_chunked(65536):
            body += part
            if len(body) > _MOST_BYTES:
                raise FleetError("its answer is too large for Prometheus' API")
        try:
            document = json.loads(body)
        except ValueError as error:
            raise FleetError(
                f"it answers {response.status} with {words.line(response.content_type, 60)}, which is not Prometheus' "
                "API"
            ) from error
    return history.parse_answer(document)
