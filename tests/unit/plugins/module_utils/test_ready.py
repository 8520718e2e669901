from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils._ready import wait_until_ready
from ansible_collections.inference.fleet.plugins.module_utils._systemd import UnitState

UP = UnitState("loaded", "active", "running", "success", 0, 7, "a", "0")


@dataclasses.dataclass
class Host:
    """A host on which time passes with each look: the states and health answers come one after the other."""

    states: list[UnitState]
    health: list[int | None]
    lines: list[str] = dataclasses.field(default_factory=list)
    clock: float = 0.0

    def run(self, timeout: float = 60) -> float:
        return wait_until_ready(
            "vllm@0.service",
            8100,
            timeout,
            state_of=lambda unit: self.states.pop(0) if len(self.states) > 1 else self.states[0],
            health_of=lambda port: self.health.pop(0) if len(self.health) > 1 else self.health[0],
            journal_of=lambda unit, since: self.lines,
            now=lambda: self.clock,
            wait=self.pass_time,
        )

    def pass_time(self, seconds: float) -> None:
        self.clock += seconds


def test_it_waits_until_health_is_200() -> None:
    assert Host([UP], [None, 503, 200]).run() == pytest.approx(1.0)


def test_a_restart_is_a_failure_at_once_and_is_explained() -> None:
    host = Host(
        [UP, dataclasses.replace(UP, restarts=1, result="exit-code", status="1")],
        [None],
        ["ValueError: No available memory for the cache blocks."],
    )
    with pytest.raises(FleetError, match="The weights leave no memory for the KV cache") as failure:
        host.run()
    assert failure.value.details["reason"] == "kv_cache_memory"
    assert host.clock == 0


def test_a_dead_unit_is_a_failure_although_the_port_answers() -> None:
    with pytest.raises(FleetError, match="ended while it started"):
        Host([UP, dataclasses.replace(UP, active="failed")], [200]).run()


def test_another_process_on_the_port_does_not_count() -> None:
    starting = dataclasses.replace(UP, active="activating")
    with pytest.raises(FleetError, match="has not served within 5 s"):
        Host([starting], [200]).run(timeout=5)


def test_silence_is_a_failure_with_the_last_words() -> None:
    with pytest.raises(FleetError, match="Its last words: Loading weights") as failure:
        Host([UP], [None], ["Loading weights"]).run(timeout=5)
    assert failure.value.details["reason"] == "timeout"


def test_a_missing_unit_is_named() -> None:
    with pytest.raises(FleetError, match=r"no unit vllm@0\.service"):
        Host([dataclasses.replace(UP, load="not-found")], [None]).run()
