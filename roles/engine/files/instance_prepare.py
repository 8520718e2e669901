#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""ExecStartPre of an engine's unit, as the engines' user: what a start needs, written where only that user reads it.

usage: instance_prepare.py ROOT INDEX

Reads the release under ROOT/instances/INDEX/current and writes to the unit's runtime directory
  config.yaml  the release's config with the engine's keys
  release      the release's name, to distinguish what runs from what is configured
"""

from __future__ import annotations

import json
import os
import secrets
import sys


def main() -> None:
    root, index = sys.argv[1:]
    release = os.path.realpath(os.path.join(root, "instances", index, "current"))
    with open(os.path.join(release, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    runtime_directory = os.environ["RUNTIME_DIRECTORY"]
    with open(os.path.join(release, "config.yaml"), encoding="utf-8") as file:
        config = file.read()
    write(os.path.join(runtime_directory, "config.yaml"), config + key_lines(manifest["key_options"]))
    write(os.path.join(runtime_directory, "release"), manifest["release"] + "\n")


def key_lines(options: dict[str, str]) -> str:
    """The engine's key options as lines of its config; the keys' file is a credential of the unit.

    An engine that takes several gets the next key beside the current one, so that the edge can change over while
    instances restart one by one.
    """
    with open(os.path.join(os.environ["CREDENTIALS_DIRECTORY"], "engine_key"), encoding="utf-8") as file:
        values = dict(line.split("=", 1) for line in file.read().split() if "=" in line)
    current = values["ENGINE_API_KEY"]
    keys = {
        "all": [key for key in (current, values.get("ENGINE_API_KEY_NEXT")) if key],
        "current": current,
        "nobodys": f"sk-{secrets.token_urlsafe(32)}",
    }
    return "".join(f"{option}: {json.dumps(keys[which])}\n" for option, which in options.items())


def write(path: str, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)


if __name__ == "__main__":
    main()
