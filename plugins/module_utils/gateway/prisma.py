# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The Prisma client that LiteLLM uses for its database, generated without Node from what a lock installs.

LiteLLM needs two things that no package index has: Python code that is generated from its schema, and Prisma's query
engine, a program. The code is generated on the gateway by the generator in the Python package ``prisma``;
the schema description that Prisma's own program would pass to that generator is stored beside the lock.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import readable_by_all

#: In the client's directory: the Python package, the query engine, and the replacement for Prisma's program.
PACKAGE, ENGINE, PROGRAM = "prisma", "bin/query-engine", "bin/prisma"

_GENERATOR = "bin/prisma-client-py"
_PARTIAL = ".part"


def schema_of(runtime: str) -> Path:
    """LiteLLM's schema in a runtime.

    Raises:
        FleetError: the runtime has no LiteLLM.
    """
    found = sorted(Path(runtime).glob("lib/python*/site-packages/litellm/proxy/schema.prisma"))
    if not found:
        raise FleetError(f"{runtime} has no LiteLLM with a database's schema.")
    return found[0]


def request(model: t.Mapping[str, t.Any], schema_path: str, schema: str, output: str, engine: str) -> dict[str, t.Any]:
    """The request to the generator.

    Args:
        model: the schema's, from the lock's ``prisma.json``.
        schema_path: the schema's file.
        schema: its text.
        output: the directory of the package.
        engine: the query engine's file.
    """
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "generate",
        "params": {
            "generator": {
                "name": "client",
                "provider": {"value": "prisma-client-py", "fromEnvVar": None},
                "output": {"value": output, "fromEnvVar": None},
                "config": model["config"],
                "binaryTargets": [],
                "previewFeatures": [],
            },
            "otherGenerators": [],
            "datasources": model["datasources"],
            "datamodel": schema,
            "dmmf": {"datamodel": model["datamodel"], "schema": {"enumTypes": model["enumTypes"]}},
            "schemaPath": schema_path,
            "version": model["engine"],
            "binaryPaths": {"queryEngine": {"native": engine}},
        },
    }


@readable_by_all()
def generate(runtime: str, client: str, model: t.Mapping[str, t.Any]) -> None:
    """Create the client's directory, atomically.

    Args:
        runtime: the environment with LiteLLM and prisma.
        client: the directory.
        model: the schema's, from the lock's ``prisma.json``.

    Raises:
        FleetError: the generator failed, with its reason.
    """
    partial = Path(client + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "bin").mkdir(parents=True)
    schema = schema_of(runtime)
    asked = request(
        model, str(schema), schema.read_text(encoding="utf-8"), f"{partial}/{PACKAGE}", os.path.join(client, ENGINE)
    )
    answer = subprocess.run(
        [os.path.join(runtime, _GENERATOR)],
        input=json.dumps(asked) + "\n",
        env={**os.environ, "PRISMA_GENERATOR_INVOCATION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode or not _succeeded(answer.stderr):
        raise FleetError(f"Prisma's generator fails in {runtime}: {answer.stderr.strip()[-2000:]}")
    # 16 MB of Python, which each start would compile again.
    python = os.path.join(runtime, "bin/python")
    subprocess.run([python, "-m", "compileall", "-q", f"{partial}/{PACKAGE}"], check=False, capture_output=True)
    # LiteLLM runs Prisma's program at each start to compare the database, and that would first download itself and
    # Node. Role litellm has migrated the database already.
    (partial / PROGRAM).symlink_to("/bin/true")
    os.replace(partial, client)


def _succeeded(answers: str) -> bool:
    """Whether the generator's answer is no error; it uses standard error, as Python's warnings do."""
    for line in answers.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and answer.get("id") == 1:
            return "error" not in answer
    return False


def engine_problem(engine: str, wanted: str) -> str | None:
    """What is wrong with a query engine; None where nothing is.

    Args:
        engine: its file.
        wanted: the version that the client was generated for, a commit of Prisma's.
    """
    try:
        answer = subprocess.run([engine, "--version"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not run on this host: {error}"
    said = (answer.stdout or answer.stderr).strip()
    if answer.returncode:
        return f"it does not run on this host: {said[-500:] or f'status {answer.returncode}'}"
    if wanted not in said:
        return f"it is {said[-200:]!r}, and LiteLLM's client needs {wanted}"
    return None
