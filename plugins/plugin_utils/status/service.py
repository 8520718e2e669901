# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The program of a monitoring host: writes the fleet's status page from Prometheus, and serves it.

Lookup status_program packs it, role monitoring installs it. It runs on the host with python3-jinja2, and has neither a
way to other hosts nor a key. Prometheus that does not answer is on the page and in the journal, never an exit status.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
import typing as t
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.status import answers, history, metrics
from ansible_collections.inference.fleet.plugins.plugin_utils.status.keys import ShownKeys, show_expiries
from ansible_collections.inference.fleet.plugins.plugin_utils.status.page import FleetReading, render_status
from ansible_collections.inference.fleet.plugins.plugin_utils.status.server import StatusServer

#: Seconds from one page to the next.
PERIOD = 30
#: What role monitoring writes for Prometheus: a target for each host's edge.
TARGETS = "edge.json"
#: Seconds that the charts show.
HISTORY = 21600
#: Seconds for all questions: a page must be there before the next one is due.
_PATIENCE = 20.0
_MODE = 0o644
_LEFT_OUT = (
    "This page is what metrics know. The reasons of drains, the progress of rollouts, what AWS says and keys that are "
    "due for rotation are on the page of the controller: playbooks/status.yml -e page=status.html."
)


class PrometheusReader:
    """Asks a Prometheus; all answers together have a deadline.

    Args:
        url: its address.
        patience: seconds until then.
    """

    def __init__(self, url: str, patience: float = _PATIENCE) -> None:
        self._client = HttpClient(url)
        self._url = url
        self._deadline = time.monotonic() + patience

    def ask(self, path: str, **parameters: str) -> t.Any:
        """The JSON document of an answer.

        Raises:
            FleetError: there is none.
        """
        try:
            left = max(self._deadline - time.monotonic(), 0.1)
            return self._client.get(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=left).json()
        except HttpFailure as failure:
            raise FleetError(f"it does not answer ({failure.said})") from failure


def read_page(url: str, targets: str, host: str, now: float) -> FleetReading:
    """All that a page is made from. What fails is on it, and never an error.

    Args:
        url: of Prometheus.
        targets: the directory of the files that say what it scrapes.
        host: the name of this host.
        now: Unix time.
    """
    hosts: dict[str, str] = {}
    try:
        hosts = _read_hosts(os.path.join(targets, TARGETS))
        found = _read_fleet(PrometheusReader(url), url, hosts, now)
    except FleetError as error:
        found = FleetReading(
            now,
            [],
            beyond=[(name, "not known") for name in hosts],
            trouble=[f"{error.message.rstrip('.')}. Nothing is known of the hosts now."],
            keys=ShownKeys([], problem="Nothing is known of the clients' keys."),
        )
    return dataclasses.replace(
        found,
        maker=f"Made by {host} from its Prometheus, every {PERIOD} seconds.",
        notes=[*found.notes, _LEFT_OUT],
        renewed=PERIOD,
    )


def _read_hosts(path: str) -> dict[str, str]:
    """The tier of each host, by its name.

    Raises:
        FleetError: the file is not what role monitoring writes.
    """
    try:
        return {str(one["labels"]["host"]): str(one["labels"]["kind"]) for one in read_json(path)}
    except (KeyError, OSError, TypeError) as error:
        raise FleetError(f"{path} does not say what the hosts are; run site.yml -l monitoring") from error


def _read_fleet(reader: PrometheusReader, url: str, hosts: t.Mapping[str, str], now: float) -> FleetReading:
    span = history.span_of(now, HISTORY)
    try:
        targets = answers.parse_targets(reader.ask("targets", state="active"))
        found = {
            name: answers.parse_vector(reader.ask("query", query=expression, time=f"{now:.3f}"))
            for name, expression in answers.list_questions().items()
        }
        asked = {"start": f"{span.start:.3f}", "end": f"{span.end:.3f}", "step": f"{span.step:g}"}
        lines = {
            query: history.parse_answer(reader.ask("query_range", query=query.expression, **asked))
            for query in history.list_queries(span)
        }
    except FleetError as error:
        raise FleetError(f"Prometheus at {url}: {error.message}: systemctl status prometheus") from error
    fleet = metrics.read_fleet(hosts, targets, found, now)
    empty = "" if any(lines.values()) else f"Prometheus at {url} has no metric of the fleet yet."
    return FleetReading(
        now,
        fleet.hosts,
        keys=show_expiries(fleet.expiries, now),
        notes=fleet.notes,
        history=history.History(url, span, lines, empty),
        trouble=fleet.trouble,
    )


def parse_arguments(arguments: t.Sequence[str] | None = None) -> argparse.Namespace:
    """The program's verb and options."""
    parser = argparse.ArgumentParser(description="The fleet on one page.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    write = verbs.add_parser("write", help="write the page from Prometheus")
    write.add_argument("--prometheus", required=True, metavar="URL")
    write.add_argument("--targets", required=True, metavar="DIRECTORY")
    write.add_argument("--host", required=True, metavar="NAME")
    serve = verbs.add_parser("serve", help="serve it on the loopback interface")
    serve.add_argument("--port", required=True, type=int)
    for verb in (write, serve):
        verb.add_argument("--page", required=True, metavar="FILE")
    return parser.parse_args(arguments)


def main() -> None:
    """Write the page once, or serve it until the end."""
    options = parse_arguments()
    if options.verb == "serve":
        StatusServer(options.page, options.port, 3 * PERIOD).serve_forever()
        return
    fleet = read_page(options.prometheus, options.targets, options.host, time.time())
    write_atomically(options.page, render_status(fleet).text, _MODE)
    for text in fleet.trouble if not fleet.hosts else ():
        print(words.line(text, 600), file=sys.stderr)
