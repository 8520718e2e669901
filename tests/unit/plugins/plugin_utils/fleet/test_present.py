from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.present import instance_now

HOST = {"state": "drained", "by": "rollout", "instances": {}}
OWN = {"instances": {"engine-1": {"state": "drained", "by": "rollout"}}}


@pytest.mark.parametrize(
    ("drain", "running", "health", "outcome", "said"),
    [
        (None, "vllm-a", 200, "failed", "It runs vllm-a and gets requests."),
        (HOST, "vllm-a", 503, "drained", "It runs vllm-a and is drained: it gets no requests."),
        (OWN, "vllm-a", 200, "drained", "It runs vllm-a and is drained: it gets no requests."),
        (
            {"instances": {"engine-0": {"state": "drained"}}},
            "vllm-a",
            200,
            "failed",
            "It runs vllm-a and gets requests.",
        ),
        ({"state": "lame_duck"}, "vllm-a", 503, "failed", "It runs vllm-a and is a lame duck: it still gets requests."),
        (HOST, "", 503, "drained", "It does not run and is drained: it gets no requests."),
        (None, "", 200, "failed", "It does not run and is not drained; the host's /health answers 200."),
        (None, "vllm-a", None, "failed", "It runs vllm-a and is not drained; the host's /health answers None."),
    ],
)
def test_a_failure_ends_with_what_was_seen(
    drain: dict[str, t.Any] | None, running: str, health: int | None, outcome: str, said: str
) -> None:
    status: dict[str, t.Any] = {"drain": drain, "edge": {"health": health}, "problems": []}
    assert instance_now(status, 1, running) == {"said": said, "outcome": outcome}


def test_what_could_not_be_seen_is_not_claimed() -> None:
    status: dict[str, t.Any] = {
        "drain": None,
        "edge": {"health": 200},
        "problems": ["/var/lib/inference/drain.json is not valid JSON."],
    }
    found = instance_now(status, 0, "vllm-a")
    assert found["outcome"] == "failed"
    assert "gets requests" not in found["said"]
    assert "is not certain: /var/lib/inference/drain.json is not valid JSON." in found["said"]
