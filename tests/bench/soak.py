"""Whether the watchdog takes a busy engine for one that hangs: both real engines under everything that clients do.

A suspicion is allowed, a restart is not: nothing hangs here. The seed is fixed, so that two runs ask the same.
"""

from __future__ import annotations

import collections
import dataclasses
import random
import re
import threading
import time
import typing as t

import openai

from tests.bench.fleet import Fleet
from tests.e2e.clients import SCHEMA, SQUARE, Service

Report = t.Callable[[str, str], None]

ENGINES = {"inference-1": "vllm", "inference-2": "sglang"}
MINUTES = 20
CLIENTS = 4
#: Seconds without any request, once in PHASE: longer than the watchdog waits before its own question.
PAUSE = 75
PHASE = 300
_WORDS = ("the", "fleet", "keeps", "its", "promise", "while", "hosts", "come", "and", "go", "all", "is", "well")
_COUNTERS = ("hangs_total", "restarts_total")


def soak(fleet: Fleet, report: Report) -> None:
    """Twenty minutes of traffic on an engine of each kind, then what their watchdogs found."""
    fleet.grow(len(ENGINES))
    for host, engine in ENGINES.items():
        fleet.site([host], engine=engine)
    began = time.time()
    before = {host: _counts(fleet, host) for host in ENGINES}
    ends = time.monotonic() + MINUTES * 60
    results = {host: collections.Counter[str]() for host in ENGINES}
    clients = []
    for host in ENGINES:
        service = Service(fleet.url(host), fleet.key("demo"), "")
        service = dataclasses.replace(service, model=service.openai.models.list().data[0].id)
        for number in range(CLIENTS):
            arguments = (service, random.Random(f"{host} {number}"), ends, results[host])  # noqa: S311
            clients.append(threading.Thread(target=_ask_until, args=arguments, daemon=True))
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    for host, engine in ENGINES.items():
        after = _counts(fleet, host)
        found = {name: after[name] - before[host][name] for name in _COUNTERS}
        journal = fleet.on(host, f"journalctl --unit inference-watchdog --since @{int(began)} --output cat; true")
        suspicions = len(re.findall(r"made no progress for \d+ s: it is asked", journal))
        asked = ", ".join(f"{count} {kind}" for kind, count in sorted(results[host].items()))
        report("soak", f"{engine}, {MINUTES} minutes: {suspicions} suspicions, {found['hangs_total']:.0f} hangs,")
        report("", f"{found['restarts_total']:.0f} restarts; asked: {asked}")


def _counts(fleet: Fleet, host: str) -> dict[str, float]:
    text = fleet.on(host, "cat /var/lib/inference/metrics/watchdog.prom")
    return {
        name: sum(float(value) for value in re.findall(rf"^fleet_watchdog_{name}\{{.*\}} (\S+)$", text, re.MULTILINE))
        for name in _COUNTERS
    }


def _ask_until(service: Service, chance: random.Random, ends: float, results: collections.Counter[str]) -> None:
    began = time.monotonic()
    while time.monotonic() < ends:
        if (time.monotonic() - began) % PHASE > PHASE - PAUSE:
            # All clients of an engine are quiet at the same time.
            time.sleep(1)
            continue
        kind = chance.choice(sorted(_KINDS))
        try:
            _KINDS[kind](service, chance)
            results[kind] += 1
        except (openai.OpenAIError, OSError) as error:
            results[f"failed {kind} ({type(error).__name__})"] += 1
        time.sleep(chance.uniform(0, 3))


def _short(service: Service, chance: random.Random) -> None:
    service.chat(f"{chance.random()} What is the capital of France?", max_tokens=16)


def _stream(service: Service, chance: random.Random) -> None:
    for _chunk in service.chat(f"Count. {chance.random()}", stream=True, max_tokens=chance.randint(50, 400)):
        continue


def _long(service: Service, chance: random.Random) -> None:
    """A prompt of most of the context; one that is too long is a 400, which is an answer."""
    words = " ".join(chance.choices(_WORDS, k=chance.choice((800, 1500, 2500))))
    try:
        service.chat(f"{chance.random()} {words}", max_tokens=4)
    except openai.BadRequestError:
        return


def _picture(service: Service, chance: random.Random) -> None:
    image = {"type": "image_url", "image_url": {"url": SQUARE}}
    service.chat([image, {"type": "text", "text": f"{chance.random()} What colour is it?"}])


def _burst(service: Service, chance: random.Random) -> None:
    threads = [threading.Thread(target=_quietly, args=(_short, service, chance), daemon=True) for _each in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _aborted(service: Service, chance: random.Random) -> None:
    stream = service.chat(f"Count. {chance.random()}", stream=True, max_tokens=400)
    for number, _chunk in enumerate(stream):
        if number > chance.randint(0, 6):
            break
    stream.close()


def _grammar(service: Service, chance: random.Random) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "capital", "strict": True, "schema": SCHEMA}}
    service.chat(f"{chance.random()} The capital of France, as JSON.", response_format=wanted, max_tokens=40)


def _quietly(kind: t.Callable[[Service, random.Random], None], service: Service, chance: random.Random) -> None:
    try:
        kind(service, chance)
    except (openai.OpenAIError, OSError):
        return


_KINDS: dict[str, t.Callable[[Service, random.Random], None]] = {
    "short": _short,
    "stream": _stream,
    "long": _long,
    "picture": _picture,
    "burst": _burst,
    "aborted": _aborted,
    "grammar": _grammar,
}
