"""The input of LiteLLM's Prisma client: writes NAME.prisma.json beside a lock of role litellm.

usage: python prisma_model.py RUNTIME OUTPUT      RUNTIME: an environment that has the lock's packages

Prisma's own program parses LiteLLM's schema here, once a version, so that gateways need neither that program nor Node.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# The replacement for the generator: it saves the request of Prisma's program.
RECORDER = """#!/bin/sh
while read -r line; do
  case $line in
    *'"getManifest"'*) echo '{"jsonrpc":"2.0","id":1,"result":{"manifest":{"defaultOutput":"nowhere"}}}' >&2 ;;
    *) printf '%s' "$line" > "$RECORDED"; echo '{"jsonrpc":"2.0","id":2,"result":null}' >&2 ;;
  esac
done
"""


def main() -> None:
    runtime, output = Path(sys.argv[1]), Path(sys.argv[2])
    [schema] = runtime.glob("lib/python*/site-packages/litellm/proxy/schema.prisma")
    [config] = runtime.glob("lib/python*/site-packages/prisma/_config.py")
    version = re.search(r"prisma_version: str = .*?'([\d.]+)'", config.read_text(), re.DOTALL)
    assert version, config
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            ["npm", "install", "--silent", "--ignore-scripts", "--no-save", f"prisma@{version[1]}"],
            cwd=folder,
            check=True,
        )
        recorder, engine, recorded = folder / "prisma-client-py", folder / "engine.so.node", folder / "recorded"
        recorder.write_text(RECORDER)
        recorder.chmod(0o755)
        # The engines' files must exist; none of them is run.
        engine.touch()
        environment = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "RECORDED": str(recorded),
            "PRISMA_ENGINES_CHECKSUM_IGNORE_MISSING": "1",
            **{f"PRISMA_{kind}": str(engine) for kind in ("QUERY_ENGINE_LIBRARY", "SCHEMA_ENGINE_BINARY")},
        }
        program = folder / "node_modules/prisma/build/index.js"
        subprocess.run(["node", program, "generate", "--schema", schema], env=environment, check=True)
        asked = json.loads(recorded.read_text())["params"]
    model = {
        "engine": asked["version"],
        "config": asked["generator"]["config"],
        "datasources": [{**source, "sourceFilePath": ""} for source in asked["datasources"]],
        "enumTypes": asked["dmmf"]["schema"]["enumTypes"],
        "datamodel": without_comments(asked["dmmf"]["datamodel"]),
    }
    output.write_text(json.dumps(model, separators=(",", ":")) + "\n")


def without_comments(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_comments(item) for key, item in value.items() if key != "documentation"}
    return [without_comments(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
