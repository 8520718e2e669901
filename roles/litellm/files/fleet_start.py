# SPDX-License-Identifier: GPL-3.0-or-later
"""Start LiteLLM, with its database where that answers. Part of a gateway's release.

usage: fleet_start.py PROGRAM WORDS...

LiteLLM does not start while its database is away, and needs it for nothing but a history: who may call and how much is
decided by fleet_gateway. So it starts without it then, and says so.
"""

from __future__ import annotations

import os
import sys
import typing as t

#: Seconds for the database to answer.
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
        return said.replace(password, "...") if password else said
    return None


def main() -> None:
    url = os.environ.get("DATABASE_URL", "")
    problem = database_problem(url) if url else "there is none"
    if url and problem:
        print(
            f"The database of litellm_database_url cannot be used: {problem}. LiteLLM starts without it: clients, "
            "limits and budgets hold; what is spent is not written down until its next start.",
            file=sys.stderr,
            flush=True,
        )
    program, *words = sys.argv[1:]
    os.execve(program, [program, *words], environment(os.environ, problem))  # noqa: S606 - there is no shell


if __name__ == "__main__":
    main()
