from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.outcome import HostTurn, judge

UNHEALTHY = "gpu-1 serves at its edge, but after 120 seconds it is unhealthy."


@pytest.mark.parametrize(
    ("fields", "outcome", "message"),
    [
        ({}, "done", "gpu-1 runs what it should, and answers."),
        ({"outcome": "done"}, "done", "gpu-1 runs what it should, and answers."),
        (
            {"outcome": "rolled_back", "message": "gpu-1: it was rolled back."},
            "rolled_back",
            "gpu-1: it was rolled back.",
        ),
        (
            {"problem": UNHEALTHY},
            "unregistered",
            f"gpu-1 passed its gate, but no client of the balancer reaches it. {UNHEALTHY}",
        ),
        (
            {"missing": ["fleet", "fleet"]},
            "unregistered",
            "gpu-1 passed its gate, but no client of the balancer reaches it. It is not registered in target group "
            "fleet: no instance serves there whose gate passed.",
        ),
        (
            {"outcome": "rolled_back", "message": "gpu-1: it was rolled back.", "problem": UNHEALTHY},
            "rolled_back",
            f"gpu-1: it was rolled back. {UNHEALTHY}",
        ),
        (
            {"outcome": "stopped", "message": "gpu-1: it is stopped.", "missing": ["a", "b"], "problem": UNHEALTHY},
            "stopped",
            "gpu-1: it is stopped. It stays out of target group a and b.",
        ),
        ({"outcome": "stopped", "message": "gpu-1: it is stopped."}, "stopped", "gpu-1: it is stopped."),
        # It got a notice in its turn.
        ({"missing": ["fleet"], "held_by": "aws"}, "done", "gpu-1 runs what it should, and answers."),
    ],
)
def test_a_turn_ends_with_the_change_and_the_return_to_the_groups(
    fields: dict[str, t.Any], outcome: str, message: str
) -> None:
    assert judge(HostTurn(**{"host": "gpu-1", "outcome": "", "message": "", **fields})) == (outcome, message)
