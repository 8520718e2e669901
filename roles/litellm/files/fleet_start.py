# SPDX-License-Identifier: GPL-3.0-or-later
"""Start LiteLLM, with its database where that answers. Part of a gateway's release.

usage: fleet_start.py PROGRAM WORDS...

LiteLLM does not start while its database is away, or Prisma's query engine, through which it asks it, or when it finds
something there that it does not like. It needs it for nothing but a history: who may call and how much is decided by
fleet_gateway. So it starts without it then, and says so.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import typing as t
import urllib.parse

import proxies

#: Seconds for the database to answer, and for the query engine.
PATIENCE = 5
#: Starts with the database, one after the other, that answered no request, before one without it.
TRIES = 2


def environment(given: t.Mapping[str, str], problem: str | None) -> dict[str, str]:
    """LiteLLM's environment.

    Args:
        given: this program's; with FLEET_PRISMA where there is a database.
        problem: why that cannot be used; None where it can.
    """
    # The edge, which LiteLLM asks, is on this host.
    made = proxies.exempt_own(given)
    client = made.pop("FLEET_PRISMA", "")
    if not client:
        return made
    if problem is not None:
        made.pop("DATABASE_URL", None)
        made["FLEET_DATABASE"] = "0"
        return made
    made["DATABASE_URL"] = prismas_url(made["DATABASE_URL"])
    made["PYTHONPATH"] = os.pathsep.join(filter(None, (made.get("PYTHONPATH"), client)))
    # There is a program "prisma" in it that does nothing: the real one would fetch itself and Node at each start.
    made["PATH"] = os.pathsep.join((f"{client}/bin", made.get("PATH") or os.defpath))
    made["FLEET_DATABASE"] = "1"
    return made


def prismas_url(url: str) -> str:
    """The address in Prisma's words, which does not know libpq's modes that verify, and verifies nothing then."""
    parts = urllib.parse.urlsplit(url)
    options = dict(urllib.parse.parse_qsl(parts.query))
    if options.get("sslmode") not in ("verify-ca", "verify-full"):
        return url
    file = options.pop("sslrootcert", "system")
    options |= {"sslmode": "require", "sslaccept": "strict", **({"sslcert": file} if file != "system" else {})}
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(options)))


def database_problem(url: str) -> str | None:
    """Why the database cannot be used, without its password; None where it can."""
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=PATIENCE) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        password = urllib.parse.unquote(urllib.parse.urlsplit(url).password or "")
        return f"the database of litellm_database_url: {said.replace(password, '...') if password else said}"
    return None


def prisma_problem(client: str, engine: str) -> str | None:
    """Why Prisma cannot be used; None where it can.

    Args:
        client: the directory of its client.
        engine: the file of its query engine.
    """
    if not os.path.isdir(client):
        return f"Prisma's client: there is no {client}"
    try:
        answer = subprocess.run([engine, "--version"], capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Prisma's query engine: {error}"
    if answer.returncode:
        said = " ".join(answer.stderr.split())[-500:]
        return f"Prisma's query engine: {engine} ends with {answer.returncode}{said and ': '}{said}"
    return None


def tries_problem(file: pathlib.Path) -> str | None:
    """Why another start with the database would be one too many; None where it is not, and counts it.

    Args:
        file: how many there were; fleet_history removes it when somebody is answered, the unit when LiteLLM is stopped.
    """
    try:
        tried = int(file.read_text())
    except (OSError, ValueError):
        tried = 0
    # A disk that is full does not keep LiteLLM from its start.
    with contextlib.suppress(OSError):
        # After the one without it there is a single try more.
        file.write_text(str(tried + 1 if tried < TRIES else TRIES - 1))
    return f"LiteLLM ended {tried} times with it before anybody was answered" if tried >= TRIES else None


def problem_of(given: t.Mapping[str, str]) -> str | None:
    """Why LiteLLM starts without its database; None where it starts with it."""
    return (
        prisma_problem(given["FLEET_PRISMA"], given["PRISMA_QUERY_ENGINE_BINARY"])
        or database_problem(given["DATABASE_URL"])
        or tries_problem(pathlib.Path(given["FLEET_TRIES"]))
    )


def main() -> None:
    problem = problem_of(os.environ) if os.environ.get("FLEET_PRISMA") else None
    if problem:
        print(
            f"What is spent cannot be written down: {problem}. LiteLLM starts without its database: clients, limits "
            "and budgets hold; it tries again at its next start.",
            file=sys.stderr,
            flush=True,
        )
    program, *words = sys.argv[1:]
    os.execve(program, [program, *words], environment(os.environ, problem))  # noqa: S606 - there is no shell


if __name__ == "__main__":
    main()
