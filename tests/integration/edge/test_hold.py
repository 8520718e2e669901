"""A host that was away serves no request until its keys are confirmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from ansible_collections.inference.fleet.plugins.module_utils.edge.hold import Hold

from tests.integration.edge.conftest import KEY, Edge, error_of, eventually

OLD = "sk-a-key-that-was-retired-meanwhile-0000000000"


def come_back(edge: Edge, away: float) -> None:
    """Boot the host after some seconds: what systemd runs before HAProxy."""
    presence = edge.directory / "presence.json"
    presence.write_text(json.dumps({**json.loads(presence.read_text()), "boot": "the one before"}))
    moment = time.time() - away
    os.utime(presence, (moment, moment))
    program = [sys.executable, "-I", str(edge.programs / "edge_presence.py"), "start", "--limit", "900"]
    places = ["--file", str(presence), "--hold", str(edge.maps / "hold.map"), "--metadata", "http://127.0.0.1:9"]
    places += ["--decided", str(presence.parent / "decided")]
    subprocess.run([*program, *places], check=True)
    edge.start_and_wait()


def test_a_dead_key_does_not_open_a_host_that_was_away(unstarted: Edge) -> None:
    edge = unstarted
    edge.set_keys({KEY: "team-a", OLD: "team-a"})
    come_back(edge, away=3600)
    # Every instance is up, and the host's map still has the key that was retired.
    for key in (KEY, OLD):
        assert edge.status("/health", key) == 503
        answer = edge.ask("/v1/models", key)
        assert (answer[0], answer[1]["retry-after"]) == (503, "5")
        assert error_of(answer)["code"] == "keys_not_confirmed"
        assert edge.status("/metrics", key) == 503
    assert edge.status("/health") == 503
    # Neither an operator nor a reload confirms keys.
    edge.drain(state="undrained")
    edge.reload()
    assert edge.status("/v1/models", OLD) == 503
    held = Hold(str(edge.maps / "hold.map"), str(edge.directory / "presence.json"), []).held()
    assert held
    assert held.why == "it was away for 60 minutes"
    done = edge.set_keys({KEY: "team-a"})
    assert done["changed"]
    assert done["held"] is None
    assert done["actions"][-1].startswith("end the hold since ")
    assert edge.healthy()
    assert edge.status("/v1/models", KEY) == 200
    assert edge.status("/v1/models", OLD) == 401
    assert not edge.set_keys({KEY: "team-a"})["changed"]


def test_a_host_that_only_rebooted_serves_by_itself(unstarted: Edge) -> None:
    come_back(unstarted, away=240)
    eventually(unstarted.healthy)
    assert unstarted.status("/v1/models", KEY) == 200
