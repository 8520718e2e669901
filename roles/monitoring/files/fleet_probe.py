#!/usr/bin/python3
"""Asks the fleet for a short completion, as a client does, and writes whether it came for node exporter.

Standard library only. A failure is a line in the journal and a figure, never an exit status: the alert is Prometheus'.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
import time
import typing as t
import urllib.parse

SECONDS = 15
#: The most bytes of an answer that are read.
_MOST = 1 << 20


class ProbeSettings(t.NamedTuple):
    """What the role writes: addresses, or the file of targets with those of the front tier; and where the rest is."""

    urls: list[str]
    targets: str
    key_file: str
    ca_file: str
    model: str
    output: str


class Probed(t.NamedTuple):
    """What came of one address: the reason of a failure, or nothing, and how long it took."""

    url: str
    reason: str
    seconds: float


def read_settings(path: str) -> ProbeSettings:
    """The settings from their file."""
    with open(path, encoding="utf-8") as file:
        return ProbeSettings(**json.load(file))


def addresses(settings: ProbeSettings) -> list[str]:
    """The addresses to ask: those that were set, else the edges of the front tier."""
    if settings.urls:
        return [url.rstrip("/") for url in settings.urls]
    with open(settings.targets, encoding="utf-8") as file:
        found = [one for one in json.load(file) if one["labels"].get("tier") == "front"]
    return [f"{one['labels']['__scheme__']}://{name}" for one in found for name in one["targets"]]


def probe(url: str, key: str, settings: ProbeSettings) -> Probed:
    """Ask one address."""
    began = time.monotonic()
    try:
        model = settings.model or _ask(url, "/v1/models", key, settings, None)["data"][0]["id"]
        body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1}
        answer = _ask(url, "/v1/chat/completions", key, settings, body)
        reason = "" if answer.get("choices") else f"the answer has no choices: {str(answer)[:200]}"
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    return Probed(url, reason, time.monotonic() - began)


def _ask(url: str, path: str, key: str, settings: ProbeSettings, body: dict[str, t.Any] | None) -> t.Any:
    connection = _connect(urllib.parse.urlsplit(url), settings)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        prefix = urllib.parse.urlsplit(url).path
        connection.request("POST" if body else "GET", prefix + path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read(_MOST).decode(errors="replace")
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"{path} answered {answer.status}: {text[:200]}")
    return json.loads(text)


def _connect(parts: urllib.parse.SplitResult, settings: ProbeSettings) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme != "https":
        return http.client.HTTPConnection(host, parts.port, timeout=SECONDS)
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    if not settings.urls and not settings.ca_file:
        # Edges by their addresses, whose certificates nothing here can verify.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, parts.port, timeout=SECONDS, context=context)


def exposition(found: list[Probed], now: float) -> str:
    """The figures as node exporter reads them."""
    lines = ["# TYPE fleet_probe_success gauge"]
    lines += [f"fleet_probe_success{_target(one)} {int(not one.reason)}" for one in found]
    lines += ["# TYPE fleet_probe_seconds gauge"]
    lines += [f"fleet_probe_seconds{_target(one)} {one.seconds:.3f}" for one in found]
    lines += [
        "# TYPE fleet_probe_last_look_timestamp_seconds gauge",
        f"fleet_probe_last_look_timestamp_seconds {now:.0f}",
    ]
    return "\n".join([*lines, ""])


def _target(one: Probed) -> str:
    escaped = one.url.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{target="{escaped}"}}'


def write(path: str, text: str) -> None:
    """Put the file in its place at once: node exporter must never read half of it."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def main(words: list[str] | None = None) -> int:
    """Ask every address once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True)
    settings = read_settings(parser.parse_args(words).settings)
    with open(settings.key_file, encoding="utf-8") as file:
        key = file.read().strip()
    found = [probe(url, key, settings) for url in addresses(settings)]
    for one in found:
        if one.reason:
            print(f"{one.url}: {one.reason}", file=sys.stderr)
    write(settings.output, exposition(found, time.time()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
