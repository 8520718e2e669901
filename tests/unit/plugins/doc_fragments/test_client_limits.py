"""The documentation of limits, in each module that takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.clients import schema
from ansible_collections.inference.fleet.plugins.modules import api_key, edge_keys

ROOT = Path(__file__).resolve().parents[4]


def test_modules_take_and_document_every_limit() -> None:
    program = Path(sys.executable).with_name("ansible-doc")
    command = [str(program), "--json", "--type", "module", "inference.fleet.api_key", "inference.fleet.edge_keys"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = {row.name for row in schema.LIMITS}
    for name, option, module in (("api_key", "clients", api_key), ("edge_keys", "keys", edge_keys)):
        documented = json.loads(done.stdout)[f"inference.fleet.{name}"]["doc"]["options"][option]["suboptions"]
        taken = module.ARGUMENTS[option]["options"]
        assert set(documented) == set(taken)
        assert names < set(taken)
        for field, spec in taken.items():
            # It is a string for Ansible, but not for a person.
            shown = {key: value for key, value in spec.items() if key != "no_log"}
            assert {key: documented[field].get(key) for key in shown} == shown, field
            assert documented[field]["description"]
