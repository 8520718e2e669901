"""Journals of rollouts, as a rollout writes them, with a clock that the test controls."""

from __future__ import annotations

import json
import typing as t

BEGAN = 1_795_361_400.0

OLD = {
    "release": "vllm-0123456789ab",
    "engine": "vllm",
    "version": "0.31.0",
    "model": "Qwen/Qwen3-VL-8B-Instruct",
    "revision": "0c351dd01ed87e9c1b53cbc748cba10e6187ff3b",
}
NEW = {**OLD, "release": "vllm-ba9876543210", "version": "0.32.0"}
REASON = "vllm 0.31.0 → 0.32.0"
FAILED = """The gate failed on vllm-0 (http://127.0.0.1:8100): 1 of 4 checks.
text: asked POST http://127.0.0.1:8100/v1/chat/completions "What is the capital of France? Answer with one word.", \
of the model Qwen/Qwen3-VL-8B-Instruct.
  Came back: the answer "Berlin"; expected Paris.
  Try: see that weights, revision, quantization and chat template belong together."""

Event = dict[str, t.Any]


class Journal:
    """Events with moments; ``tick`` lets time pass."""

    def __init__(self, verb: str = "site") -> None:
        self.now = BEGAN
        self.verb = verb
        self.events: list[Event] = []

    @property
    def text(self) -> str:
        return "".join(f"{json.dumps(event)}\n" for event in self.events)

    def tick(self, seconds: float) -> Journal:
        self.now += seconds
        return self

    def add(self, event: str, **fields: t.Any) -> Journal:
        self.events.append({"at": round(self.now, 3), "event": event, **fields})
        return self

    def begin(self, waves: list[list[str]], instances: int = 1, event: str = "begin", **fields: t.Any) -> Journal:
        planned: dict[str, t.Any] = {
            "who": "anna@laptop",
            "controller": "laptop:/home/anna/fleet/rollouts/aws",
            "pid": 4242,
            "waves": waves,
            "hosts": {
                host: {
                    "wave": number,
                    "expected_seconds": 75,
                    "instances": [
                        {"name": f"vllm-{index}", "reason": REASON, "from": OLD, "to": NEW}
                        for index in range(instances)
                    ],
                }
                for number, wave in enumerate(waves, 1)
                for host in wave
            },
            "left_out": {},
            "warnings": [],
        }
        if event == "begin":
            planned.update(id=f"20261122T153000Z-{self.verb}", verb=self.verb, variables={})
        return self.add(event, **{**planned, **fields})

    def turn(self, wave: int, waves: int, hosts: list[str], **load: int) -> Journal:
        known = {"running": 12, "waiting": 0, "limit": 64, "left": 32, **load}
        return self.add("turn", wave=wave, waves=waves, hosts=hosts, load=known)

    def step(self, host: str, step: str, seconds: float = 0.0, instance: str = "vllm-0", attempt: int = 1) -> Journal:
        return self.add("step", host=host, instance=instance, step=step, attempt=attempt).tick(seconds)

    def drained(self, host: str, *requests: Event, waited: float = 4.2, instance: str = "vllm-0") -> Journal:
        return self.add(
            "drained",
            host=host,
            instance=instance,
            idle=not requests,
            requests=list(requests),
            engines=[],
            waited=waited,
            lame_duck_seconds=6.0,
        )

    def progress(self, host: str, phase: str, text: str, percent: float | None, seconds: float) -> Journal:
        said = {"phase": phase, "text": text, "percent": percent, "seconds": seconds}
        return self.add("progress", host=host, instance="vllm-0", **said)

    def gate(self, host: str, target: str = "vllm-0", passed: bool = True, first: float = 61.0) -> Journal:
        return self.add(
            "gate",
            host=host,
            target=target,
            passed=passed,
            message=f"{target}: 4 checks passed." if passed else FAILED,
            figures={"ttft_ms": first, "tokens_per_second": 38.0, "total_ms": 1700.0} if passed else None,
            judged=target != "edge",
            good=None if target == "edge" else {"ttft_ms": 60.0, "tokens_per_second": 38.4},
            checks=checks(passed),
        )

    def outcome(self, host: str, outcome: str = "done", message: str = "") -> Journal:
        return self.add("outcome", host=host, outcome=outcome, message=message)

    def end(self, outcome: str = "finished", message: str = "") -> Journal:
        return self.add("end", outcome=outcome, message=message)

    def change(self, host: str, start: float = 42.0) -> Journal:
        """A host's whole turn."""
        self.step(host, "drain", 10.0).drained(host)
        self.step(host, "stop", 4.0).step(host, "start", start / 2)
        self.progress(host, "loading", "loading the weights, 2 of 5 files", 40, start / 2).tick(start / 2)
        self.step(host, "gate", 6.0).gate(host)
        self.step(host, "undrain", 1.0).step(host, "edge_gate", 3.0).gate(host, "edge", first=63.0)
        return self.step(host, "confirm", 2.0).outcome(host, "done", f"{host} runs what it should, and answers.")


def checks(passed: bool) -> list[Event]:
    """What module chat_smoke returns of its checks."""
    good: list[Event] = [
        {"name": "models", "passed": True, "seconds": 0.004, "evidence": {"models": [NEW["model"]]}},
        {"name": "text", "passed": True, "seconds": 0.3, "evidence": {"answer": "Paris", "finish_reason": "stop"}},
        {"name": "speed", "passed": True, "seconds": 1.7, "evidence": {"answer": "1 2 3 4", "completion_tokens": 64}},
        {"name": "wrong_key", "passed": True, "seconds": 0.002, "evidence": {"status": 401}},
    ]
    if not passed:
        good[1] = {
            "name": "text",
            "passed": False,
            "seconds": 0.3,
            "reason": "wrong_answer",
            "asked": 'POST http://127.0.0.1:8100/v1/chat/completions "What is the capital of France?"',
            "got": 'the answer "Berlin"; expected Paris',
            "try": "see that weights, revision, quantization and chat template belong together",
            "evidence": {"answer": "Berlin"},
        }
    return good


def good_run() -> Journal:
    """Three waves without a failure; 68 seconds a host, 52 of them stop, start and gate."""
    journal = Journal().begin([["inference-1"], ["inference-2"], ["inference-3"]])
    for number in (1, 2, 3):
        host = f"inference-{number}"
        journal.tick(2).turn(number, 3, [host]).change(host)
        if number < 3:
            journal.tick(0.5).add("pause", wave=number, seconds=10).tick(10)
    return journal.tick(1).end()


def rolled_back() -> Journal:
    """The second wave's host answers wrongly, and is rolled back to its last good release."""
    journal = Journal().begin([["inference-1"], ["inference-2"], ["inference-3"]])
    journal.tick(2).turn(1, 3, ["inference-1"]).change("inference-1").tick(1)
    host = "inference-2"
    journal.turn(2, 3, [host]).step(host, "drain", 12)
    journal.drained(host, {"client": "team-a", "instance": "vllm-0", "seconds": 310}, waited=12.0)
    journal.step(host, "stop", 4).step(host, "start", 42).step(host, "gate", 3).gate(host, passed=False)
    for step, seconds in (("drain", 1), ("start", 38), ("gate", 5)):
        journal.step(host, step, seconds, attempt=2)
    journal.gate(host, first=60).step(host, "undrain", 1, attempt=2).step(host, "edge_gate", 2, attempt=2)
    journal.gate(host, "edge").outcome(host, "rolled_back", FAILED)
    return journal.tick(1).end("stopped", "The rollout stops here, 1 of its hosts failed. Not touched: inference-3.")


def unreachable() -> Journal:
    """The first host becomes unreachable while it starts, and no process is left to record the end of the rollout."""
    journal = Journal().begin([["inference-1"], ["inference-2"]]).tick(2).turn(1, 2, ["inference-1"])
    journal.step("inference-1", "drain", 5).drained("inference-1").step("inference-1", "stop", 3)
    journal.step("inference-1", "start", 30)
    return journal.outcome("inference-1", "unreachable", "inference-1 does not answer any more in its step start.")
