"""The command line of the lab."""

from __future__ import annotations

import argparse
import os
import sys

from lab import notices, state, verbs
from lab.errors import LabError


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument(
        "--name",
        dest="lab",
        default=os.environ.get("INFERENCE_FLEET_LAB") or state.DEFAULT_NAME,
        help="the lab (default: $INFERENCE_FLEET_LAB, else %(default)s)",
    )
    top = argparse.ArgumentParser(
        prog="python -m lab",
        description="Hosts to try the fleet on: systemd machines with sshd, an EC2 API, a balancer.",
    )
    actions = top.add_subparsers(dest="verb", required=True)

    verb = actions.add_parser("up", parents=[which], help="make the lab, or put it right")
    verb.add_argument("--hosts", type=int, help=f"inference hosts (a new lab: {verbs.DEFAULT_HOSTS})")
    verb.add_argument("--subnet", help=f"a new lab's network (default {state.DEFAULT_SUBNET})")
    verb.add_argument("--bare", action="store_true", help="a new lab without EC2 API and balancer")
    verb.add_argument("--instance-type", default=state.DEFAULT_INSTANCE_TYPE, help="new hosts' (default %(default)s)")
    verb.add_argument("--balancer", choices=state.BALANCERS, help="who gets requests (a new lab: health)")
    verb.add_argument("--metadata", action="store_true", help="the instances' metadata service on each host")
    verb.add_argument("--health-interval", help="between the balancer's checks (a new lab: 1s)")

    verb = actions.add_parser("down", parents=[which], help="remove all that the lab made")
    verb.add_argument("--cache", action="store_true", help="the root file system and downloads too")

    verb = actions.add_parser("add", parents=[which], help="a further host, or bring one up")
    verb.add_argument("host")
    verb.add_argument("--role", choices=verbs.ROLES, help="register it with EC2; without: a scratch host")
    verb.add_argument("--ring", choices=verbs.RINGS)
    verb.add_argument("--engine")
    verb.add_argument("--instance-type")
    verb.add_argument("--fresh", action="store_true", help="from the root file system, if it is there already")
    verb.add_argument("--image", metavar="HOST", help="a new host with a copy of this one's disk")
    verb.add_argument("--subnet", help="make the lab first, bare and of this network, if there is none")

    verb = actions.add_parser("remove", parents=[which], help="remove a host")
    verb.add_argument("host")
    verb.add_argument("--last", action="store_true", help="and the lab, when it was the last one")

    verb = actions.add_parser("reset", parents=[which], help="hosts as fresh from the root file system")
    verb.add_argument("host", nargs="+")

    verb = actions.add_parser("stop", parents=[which], help="stop a host, as EC2 stops an instance")
    verb.add_argument("host")
    verb.add_argument("--wipe-instance-store", action="store_true", help="empty its local disk, as EC2 does")
    verb.add_argument("--crash", action="store_true", help="kill it, and leave it running for the EC2 API")

    verb = actions.add_parser("start", parents=[which], help="start a stopped host")
    verb.add_argument("host")
    verb.add_argument("--wipe-instance-store", action="store_true", help="with an empty local disk")

    verb = actions.add_parser("announce", parents=[which], help="what EC2 tells an instance of its end")
    verb.add_argument("host")
    verb.add_argument("notice", choices=notices.AHEAD)
    verb.add_argument("--in", dest="seconds", type=float, metavar="SECONDS", help="until then (default: as AWS does)")

    verb = actions.add_parser("scale", parents=[which], help="an Auto Scaling group's number of hosts")
    verb.add_argument("group")
    verb.add_argument("count", type=int)

    actions.add_parser("status", parents=[which], help="hosts and services")

    verb = actions.add_parser("env", parents=[which], help="shell exports for Ansible and OpenAI clients")
    verb.add_argument("--client", default="demo", help="whose key (default %(default)s)")

    verb = actions.add_parser("ssh", parents=[which], help="a shell or a command on a host")
    verb.add_argument("host")
    verb.add_argument("command", nargs=argparse.REMAINDER)
    return top


def run(options: argparse.Namespace) -> int:
    """Run the chosen verb."""
    if options.verb not in ("status", "env") and os.geteuid() != 0:
        raise LabError(f"`python -m lab {options.verb}` makes networks and machines: run it as root (sudo).")
    if options.verb == "up":
        verbs.up(
            options.lab,
            options.hosts,
            options.subnet,
            bare=options.bare,
            health_interval=options.health_interval,
            balanced_by=options.balancer,
            metadata=options.metadata,
            host_type=options.instance_type,
        )
    elif options.verb == "down":
        verbs.down(options.lab, cache=options.cache)
    elif options.verb == "add":
        given = {key: getattr(options, key) for key in ("role", "ring", "engine", "instance_type")}
        verbs.add(
            options.lab,
            options.host,
            {key: value for key, value in given.items() if value},
            fresh=options.fresh,
            subnet=options.subnet,
            image=options.image,
        )
    elif options.verb == "remove":
        verbs.remove(options.lab, options.host, last=options.last)
    elif options.verb == "reset":
        verbs.reset(options.lab, options.host)
    elif options.verb == "stop":
        verbs.stop(options.lab, options.host, wipe=options.wipe_instance_store, crash=options.crash)
    elif options.verb == "start":
        verbs.start(options.lab, options.host, wipe=options.wipe_instance_store)
    elif options.verb == "announce":
        verbs.announce(options.lab, options.host, options.notice, options.seconds)
    elif options.verb == "scale":
        verbs.scale(options.lab, options.group, options.count)
    elif options.verb == "status":
        verbs.status(options.lab)
    elif options.verb == "env":
        verbs.env(options.lab, options.client)
    else:
        return verbs.shell_on(options.lab, options.host, options.command)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; an explained failure is one message and status 1."""
    try:
        return run(parser().parse_args(arguments))
    except BrokenPipeError:
        # The reader closed the pipe (`| head`); nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
