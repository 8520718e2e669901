"""The lab's AWS: moto's server with the stand-ins of this folder. ``python -m lab.aws.server --port 5570``."""

from __future__ import annotations

import argparse
import functools
import http
import json
import os
import re
import sys
import threading
import time
import traceback
import typing as t
from pathlib import Path

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

from lab.aws import routes, scaling, scheduled_events, target_groups
from lab.aws.clock import LabClock
from lab.aws.scaling import LabAutoScaling
from lab.aws.target_groups import LabTargetGroups

#: The lab's own calls, beside AWS's.
EVENTS = re.compile(r"/lab/events/(i-[0-9a-f]+)")


class LabCalls:
    """The lab's own calls before moto's application."""

    def __init__(self, application: t.Callable[..., t.Any]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, t.Any], start: t.Callable[..., t.Any]) -> t.Iterable[bytes]:
        found = EVENTS.fullmatch(environ["PATH_INFO"])
        if found is None:
            answer: t.Iterable[bytes] = self._application(environ, start)
            return answer
        length = int(environ.get("CONTENT_LENGTH") or 0)
        events = json.loads(environ["wsgi.input"].read(length) or b"[]")
        known = scheduled_events.announce(found[1], events)
        status = http.HTTPStatus.NO_CONTENT if known else http.HTTPStatus.NOT_FOUND
        start(f"{status.value} {status.phrase}", [])
        return []


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m lab.aws.server", description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--balancer", type=Path, help="the socket of the HAProxy that follows the target groups")
    options.add_argument("--settle", type=float, default=0.0, help="seconds for which a deregistered target gets more")
    options.add_argument("--speed", type=float, default=1.0, help="seconds of intervals and delays in a real second")
    return options


def keep(name: str, work: t.Callable[[], None]) -> None:
    """Run ``work`` in the background for ever; one that fails is reported and starts again."""

    def run() -> None:
        while True:
            try:
                work()
            except Exception:
                traceback.print_exc()
                time.sleep(1)

    threading.Thread(target=run, name=name, daemon=True).start()


def main(arguments: list[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    # Its list of all Amazon images is large and never used here.
    os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    os.environ.setdefault("MOTO_PORT", str(given.port))
    clock = LabClock(given.speed)
    groups = LabTargetGroups(clock)
    lifecycles = LabAutoScaling(clock, groups)
    target_groups.install(groups)
    scheduled_events.install()
    scaling.install(lifecycles)
    keep("health checks", groups.run)
    keep("auto scaling", lifecycles.run)
    if given.balancer:
        keep("balancer", functools.partial(routes.follow, groups, given.balancer, given.settle))
    application = LabCalls(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", given.port, application, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main(sys.argv[1:])
