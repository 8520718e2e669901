# SPDX-License-Identifier: GPL-3.0-or-later
"""Start LiteLLM, with its database where that answers. Part of a gateway's release.

usage: fleet_start.py PROGRAM WORDS...

LiteLLM does not start while its database is away, or Prisma's query engine, through which it asks it; and it needs it
for nothing but a history: who may call and how much is decided by fleet_gateway. So it starts without it then, and says
so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t

#: Seconds for the database to answer, and for the query engine.
PATIENCE = 5


def environment(given: t.Mapping[str, str], problem: str | None) -> dict[str, str]:
    """LiteLLM's environment.

    Args:
        given: this program's.
        problem: why the database cannot be used; None where it can.
    """
    made = dict(given)
    client = made.pop("FLEET_PRISMA", "")
    if not client or problem is not None:
        made.pop("DATABASE_URL", None)
        return made
    made["PYTHONPATH"] = os.pathsep.join(filter(None, (made.get("PYTHONPATH"), client)))
    # There is a program "prisma" in it that does nothing: the real one would fetch itself and Node at each start.
    made["PATH"] = os.pathsep.join((f"{client}/bin", made.get("PATH") or os.defpath))
    made["FLEET_DATABASE"] = "1"
    return made


def database_problem(url: str) -> str | None:
    """Why the database cannot be used, without its password; None where it can."""
    import urllib.parse

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


def problem_of(given: t.Mapping[str, str]) -> str | None:
    """Why LiteLLM starts without a database; None where it starts with it."""
    if not given.get("DATABASE_URL"):
        return "there is none"
    client, engine = given.get("FLEET_PRISMA", ""), given.get("PRISMA_QUERY_ENGINE_BINARY", "")
    return prisma_problem(client, engine) or database_problem(given["DATABASE_URL"])


def main() -> None:
    problem = problem_of(os.environ)
    if os.environ.get("DATABASE_URL") and problem:
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
