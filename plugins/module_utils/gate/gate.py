# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The gate: its requests, the criteria for right answers, and the verdict.

No file and no clock of its own: the client, the machine, the clock and the sleep are injected.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import secrets
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import share_of_drafts
from ansible_collections.inference.fleet.plugins.module_utils.gate import local_files
from ansible_collections.inference.fleet.plugins.module_utils.gate.capabilities import (
    CAPABILITIES,
    COMPLETIONS_PATH,
    long_prompt,
    tools_are_off,
)
from ansible_collections.inference.fleet.plugins.module_utils.gate.chat import (
    CHAT_PATH,
    MODELS_PATH,
    ChatFailure,
    Completion,
    ask,
    ask_document,
    ask_streamed,
    counters,
    models,
    question,
    said,
    status_of,
)
from ansible_collections.inference.fleet.plugins.module_utils.gate.freshness import (
    PAST_THE_CACHE,
    Freshness,
    nonce,
    with_nonce,
)
from ansible_collections.inference.fleet.plugins.module_utils.gate.golden import (
    FINISHED,
    MINIMUM_TOKENS,
    CheckFailure,
    figures_of,
    judge,
    judge_word,
    require_usage,
    rgb_of,
)
from ansible_collections.inference.fleet.plugins.module_utils.gate.machine import Machine
from ansible_collections.inference.fleet.plugins.module_utils.gate.png import data_url, solid_square
from ansible_collections.inference.fleet.plugins.module_utils.gate.speed import best_of, slowdown
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure, excerpt

CHECKS = (
    *("models", "text", "stream", "image", "schema", *CAPABILITIES),
    *("speed", "drafts", "local_files", "wrong_key", "no_key"),
)
DEFAULT_CHECKS = tuple(name for name in CHECKS if name not in CAPABILITIES and name != "drafts")

HEALTH_TIMEOUT = 5.0

# A rate of drafts is an average: an engine may compute it only every 40 steps.
DRAFT_TOKENS = 512

# The timed answer is longer than speed_tokens by at most this many tokens: its length must belong to its request, too.
SPEED_SPREAD = 16

PROMPT_SCHEMA = "Answer with the only word that the schema allows."

# Without a key there is no wrong key to test.
KEY_CHECKS = ("wrong_key", "no_key")

# After such a failure every further request will fail the same way.
HOPELESS = ("engine_ended", "unreachable", "timeout", "deadline", "unauthorized", "model_missing")

BACKOFF = (1.0, 2.0, 5.0)

# How an engine reports a missing capability, as opposed to a general failure.
UNABLE = ("engine_ended", "not_capable", "status")

# After these the gate checks whether the engine is still alive.
ENDINGS = ("status", "truncated", "unreachable")

HINTS = {
    "engine_ended": "look at the engine's journal at this moment; what it compiles or loads on demand must be on the "
    "host before traffic comes",
    "not_capable": "see the engine's journal",
    "file_opened": "every client can read files of the host: keep it drained until the request guard of role engine is "
    "at work",
    "unreachable": "see whether the unit is active, its journal, and whether this is its port",
    "timeout": "see the engine's journal and its running and waiting requests; where a first answer compiles, raise "
    "timeout",
    "deadline": "raise deadline, or ask fewer checks",
    "status": "see the server's journal at this moment",
    "unauthorized": "see that this key is a live one of a client on this host's edge, or for an engine's own port the "
    "key of its environment file, unchanged since the engine started",
    "key_accepted": "requests pass that must not: see that the edge or engine was started with its keys",
    "model_missing": "set the served model name to one that the server lists, or start the right release",
    "empty": "see that the chat template is the model's own; a model that reasons first needs more max_tokens",
    "wrong_answer": "see that weights, revision, quantization and chat template belong together; for another model set "
    "the prompt and its expected answers",
    "repetition": "the weights or a kernel are wrong: see quantization, kv cache type, driver and the GPU's health",
    "finish_reason": "the engine broke the answer off: see its journal",
    "no_usage": "see that nothing between here and the engine removes usage from the answers",
    "truncated": "see the engine's journal, and time limits of what is between here and the engine",
    "malformed": "see that an OpenAI-compatible server, and nothing else, listens there",
    "slow": "see what else uses the GPU, its clocks and temperature, and what the release changed; set max_slowdown "
    "when slower is meant",
    "drafts_refused": "the draft model does not belong to this model, or the prompts are not its kind: choose another "
    "model_draft, lower num_speculative_tokens, or do without (engine_profile: balanced)",
    "no_drafts": "see that the engine was started with speculative decoding and a draft model, and its journal",
    "stale": "a cache answers, and the engine behind it was not asked: see that the cache between here and the engine "
    "keeps to its rules, or set both clocks",
    "no_schema": "structured output is not at work: see the engine's journal for its grammar backend, and that nothing "
    "between here and the engine drops response_format; leave schema out of checks where no client needs it",
    "no_data": "raise speed_tokens, or leave the check speed out",
}


@dataclasses.dataclass(frozen=True)
class GatePlan:
    """What a gate sends, where, and what it accepts. The attributes are the options of module chat_smoke."""

    name: str
    url: str
    model: str
    key: str | None
    checks: tuple[str, ...]
    prompt_text: str
    expect_text: tuple[str, ...]
    expect_text_regex: str | None
    prompt_image: str
    expect_image: dict[str, list[str]]
    image_size: int
    prompt_speed: str
    speed_tokens: int
    max_tokens: int
    timeout: float
    deadline: float
    attempts: int
    max_slowdown: float
    slowdown_grace_ms: float
    min_draft_share: float
    judge_speed: bool = False
    no_cache: bool = False
    health_path: str | None = None
    good: dict[str, t.Any] | None = None

    def check(self) -> None:
        """Refuse a gate that cannot run, or cannot fail.

        Raises:
            FleetError: with the option and what is valid.
        """
        if not self.checks:
            raise FleetError(
                f"checks is empty: a gate that asks nothing proves nothing. Valid are: {', '.join(CHECKS)}."
            )
        unknown = [name for name in self.checks if name not in CHECKS]
        if unknown:
            raise FleetError(f"checks names {', '.join(unknown)}. Valid are: {', '.join(CHECKS)}.")
        if not self.model:
            raise FleetError("model is empty. Give the served model name, as /v1/models lists it.")
        if self.expect_text_regex is not None:
            try:
                re.compile(self.expect_text_regex)
            except re.error as error:
                raise FleetError(f"expect_text_regex is {self.expect_text_regex!r}: {error}.") from error
        if "image" in self.checks and not self.expect_image:
            raise FleetError("expect_image is empty. Name a colour, or leave image out of checks for a text model.")
        for colour in self.expect_image:
            rgb_of(colour)
        bounds = (
            ("timeout", self.timeout, 0.1),
            ("deadline", self.deadline, 0.1),
            ("attempts", self.attempts, 1),
            ("max_tokens", self.max_tokens, 1),
            ("image_size", self.image_size, 1),
            ("speed_tokens", self.speed_tokens, MINIMUM_TOKENS),
            ("max_slowdown", self.max_slowdown, 0),
            ("slowdown_grace_ms", self.slowdown_grace_ms, 0),
            ("min_draft_share", self.min_draft_share, 0),
        )
        for option, value, least in bounds:
            if value < least:
                raise FleetError(f"{option} is {value}; it must be at least {least}.")
        if 0 < self.max_slowdown < 1:
            raise FleetError(f"max_slowdown is {self.max_slowdown}; it must be 0 (no limit) or at least 1.")


class Gate:
    """Runs the checks of one plan, in order, each with bounded retries, all within the deadline.

    Args:
        plan: the checks.
        client_for: returns a client that sends a key, or none.
        machine: on which the figures are taken.
        clock: monotonic seconds.
        sleep: waits.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        plan: GatePlan,
        client_for: t.Callable[[str | None], HttpClient],
        machine: Machine | None = None,
        clock: t.Callable[[], float] = time.monotonic,
        sleep: t.Callable[[float], None] = time.sleep,
        wall_clock: t.Callable[[], float] = time.time,
    ) -> None:
        self._plan = plan
        self._client_for = client_for
        self._machine = machine or Machine()
        self._clock = clock
        self._sleep = sleep
        self._wall_clock = wall_clock
        self._ends = 0.0
        self._figures: dict[str, t.Any] | None = None
        self._measured: list[dict[str, t.Any]] = []
        self._freshness = Freshness()
        self._length: int | None = None
        self._has_answered = False
        self._evidence: dict[str, t.Any] = {}
        self._asks: dict[str, t.Callable[[], None]] = {
            "models": self._ask_models,
            "text": self._ask_text,
            "stream": self._ask_stream,
            "image": self._ask_image,
            "schema": self._ask_schema,
            **{name: functools.partial(self._ask_capability, name) for name in CAPABILITIES},
            "speed": self._ask_speed,
            "drafts": self._ask_drafts,
            "local_files": self._ask_local_files,
            "wrong_key": self._ask_wrong_key,
            "no_key": self._ask_no_key,
        }

    def run(self) -> dict[str, t.Any]:
        """The verdict with its evidence. A check that could not run counts as failed."""
        started = self._clock()
        self._ends = started + self._plan.deadline
        wanted = [name for name in self._plan.checks if self._plan.key is not None or name not in KEY_CHECKS]
        checks: list[dict[str, t.Any]] = []
        for name in wanted:
            checks.append(self._check(name))
            if checks[-1].get("reason") in HOPELESS:
                break
        reasons = [check["reason"] for check in checks if not check["passed"]] if checks else ["no_data"]
        result = {
            "name": self._plan.name,
            "url": self._plan.url,
            "model": self._plan.model,
            "passed": not reasons,
            "reason": reasons[0] if reasons else None,
            "checks": checks,
            "skipped": [name for name in self._plan.checks if name not in wanted],
            "not_asked": wanted[len(checks) :],
            "figures": self._figures,
            "judged": self._plan.judge_speed and bool(self._measured),
            "good": self._plan.good,
            "attempts": sum(len(check.get("attempts", [check])) for check in checks),
            "seconds": round(self._clock() - started, 3),
        }
        return {**result, "message": _message(result)}

    def _check(self, name: str) -> dict[str, t.Any]:
        attempts: list[dict[str, t.Any]] = []
        while True:
            self._evidence = {}
            began = self._clock()
            refusal = self._attempt(name)
            attempts.append(
                {
                    "reason": refusal.reason if refusal else None,
                    "got": refusal.got if refusal else None,
                    "seconds": round(self._clock() - began, 3),
                }
            )
            wait = self._wait(refusal, len(attempts))
            if wait is None:
                break
            self._sleep(wait)
        return _result(name, attempts, self._asked(name), self._evidence)

    def _attempt(self, name: str) -> CheckFailure | None:
        limit = f"the deadline of {self._plan.deadline:g} s"
        if self._left() <= 0:
            return CheckFailure("deadline", f"nothing, {limit} was reached before")
        try:
            self._asks[name]()
        except CheckFailure as refusal:
            return refusal
        except ChatFailure as failure:
            if failure.reason in ENDINGS and self._has_ended():
                return CheckFailure("engine_ended", f"{failure.came_back.rstrip('.')}. The engine ended on {name}")
            if failure.reason == "timeout" and self._left() <= 0:
                return CheckFailure("deadline", f"{failure.came_back}, which {limit} left")
            if failure.reason == "unauthorized":
                key = self._plan.key
                failure.came_back += f", to the key {fingerprint(key)}" if key else ", to a request without a key"
            return CheckFailure(failure.reason, failure.came_back, failure.transient, failure.wait)
        self._has_answered = True
        return None

    def _has_ended(self) -> bool:
        """Whether an engine that has answered in this gate is no longer alive."""
        if self._plan.health_path is None or not self._has_answered:
            return False
        try:
            reply = self._client().get(self._plan.health_path, min(HEALTH_TIMEOUT, self._timeout()))
        except HttpFailure as failure:
            return failure.kind != "timeout"
        return reply.status != 200

    def _wait(self, refusal: CheckFailure | None, made: int) -> float | None:
        """Seconds until the next attempt; None where there is none."""
        if refusal is None or not refusal.transient or made >= self._plan.attempts:
            return None
        wait = BACKOFF[min(made, len(BACKOFF)) - 1] if refusal.wait is None else refusal.wait
        return wait if wait < self._left() else None

    def _left(self) -> float:
        return self._ends - self._clock()

    def _timeout(self) -> float:
        return min(self._plan.timeout, max(self._left(), 0.001))

    def _client(self) -> HttpClient:
        return self._client_for(self._plan.key)

    def _ask_models(self) -> None:
        listed = models(self._client(), self._timeout())
        ids = list(listed)
        self._evidence = {"models": ids}
        self._length = listed.get(self._plan.model)
        if self._plan.model not in ids:
            # An engine may answer to any model name: only this list shows what it really serves.
            raise CheckFailure("model_missing", f"200 with the models {', '.join(ids) or '(none)'}")

    def _ask_text(self) -> None:
        plan = self._plan
        judge(self._answer(self._question(plan.prompt_text)), plan.expect_text, plan.expect_text_regex)

    def _ask_stream(self) -> None:
        plan = self._plan
        answer = self._answer(self._question(plan.prompt_text), streamed=True)
        judge(answer, plan.expect_text, plan.expect_text_regex)
        self._figures = figures_of(answer) if self._figures is None else self._figures

    def _ask_image(self) -> None:
        plan = self._plan
        squares = []
        for colour, expect in plan.expect_image.items():
            url = data_url(solid_square(rgb_of(colour), plan.image_size))
            answer = self._answer(self._question(plan.prompt_image, url))
            squares.append({"colour": colour, **self._evidence})
            try:
                judge(answer, expect)
            except CheckFailure as refusal:
                raise CheckFailure(refusal.reason, f"for the {colour} square {refusal.got}") from None
        self._evidence = {"squares": squares}

    def _ask_schema(self) -> None:
        word = nonce()
        schema = {"name": "word", "strict": True, "schema": {"type": "string", "enum": [word]}}
        wanted = self._question(PROMPT_SCHEMA, response_format={"type": "json_schema", "json_schema": schema})
        judge_word(self._answer(wanted), word)

    def _ask_capability(self, name: str) -> None:
        capability = CAPABILITIES[name]
        prompt = long_prompt(self._length) if name == "long_prompt" else capability.prompt
        wanted = self._question(prompt, **capability.options)
        if capability.path == COMPLETIONS_PATH:
            wanted["prompt"] = wanted.pop("messages")[0]["content"]
        asked_at = self._wall_clock()
        try:
            if capability.streamed:
                answer = self._answer(wanted, streamed=True)
                document: dict[str, t.Any] = {"choices": [{"finish_reason": answer.finish_reason}]}
            else:
                document, answer = ask_document(self._client(), capability.path, wanted, self._timeout())
                self._evidence = {"prompt_tokens": answer.prompt_tokens, "total_ms": round(answer.total * 1000, 1)}
                self._freshness.judge(answer, asked_at)
        except ChatFailure as failure:
            if tools_are_off(failure.came_back):
                self._evidence = {"tools": "off"}
                return
            raise
        capability.judge(document)
        require_usage(answer)

    def _ask_local_files(self) -> None:
        for wanted in local_files.QUESTIONS:
            existing: list[str] = []
            missing: list[str] = []
            difference = None
            for _round in range(local_files.ROUNDS):
                existing.append(self._refusal(wanted, local_files.EXISTING))
                missing.append(self._refusal(wanted, local_files.MISSING))
                difference = local_files.difference(wanted, existing, missing)
                if difference is None:
                    break
            if difference is not None:
                raise difference

    def _refusal(self, wanted: local_files.Question, path: str) -> str:
        document = self._question("")
        document["messages"][0]["content"] = wanted.content(path)
        reply = status_of(self._client(), document, self._timeout())
        self._evidence = {"status": reply.status}
        if reply.status == 401:
            raise ChatFailure("unauthorized", said(reply))
        return local_files.refusal(wanted, path, reply)

    def _ask_speed(self) -> None:
        plan = self._plan
        tokens = plan.speed_tokens + secrets.randbelow(SPEED_SPREAD)
        load, before = self._machine.load(), self._machine.work_ms()
        answer = self._answer(self._question(plan.prompt_speed, max_tokens=tokens, ignore_eos=True), streamed=True)
        work = max(before, self._machine.work_ms())
        if answer.finish_reason not in FINISHED:
            raise CheckFailure("finish_reason", f"an answer with finish_reason {answer.finish_reason}")
        require_usage(answer)
        if answer.finish_reason == "length" and answer.completion_tokens != tokens:
            raise CheckFailure(
                "stale", f"{answer.completion_tokens} tokens up to a limit, where {tokens} were asked for"
            )
        figures = {**figures_of(answer), "work_ms": work, **load}
        self._evidence.update(figures)
        if figures["ttft_ms"] is None or figures["tokens_per_second"] is None:
            raise CheckFailure("no_data", f"{answer.completion_tokens} tokens, too few to measure a rate")
        self._measured.append(figures)
        self._figures = best_of(self._measured)
        if not plan.judge_speed or plan.good is None or plan.max_slowdown == 0:
            return
        complaints = slowdown(self._measured, plan.good, plan.max_slowdown, plan.slowdown_grace_ms)
        if complaints:
            # A single measurement proves nothing: an engine is slow when all of them are.
            raise CheckFailure("slow", "; ".join(complaints), transient=True)

    def _ask_drafts(self) -> None:
        plan = self._plan
        before = counters(self._client(), self._timeout())
        wanted = self._question(plan.prompt_speed, max_tokens=DRAFT_TOKENS, ignore_eos=True)
        answer = self._answer(wanted, streamed=True)
        share = share_of_drafts(before, counters(self._client(), self._timeout()))
        if share is None:
            raise CheckFailure(
                "no_drafts", f"{answer.completion_tokens} tokens, none of which a draft model had proposed"
            )
        self._evidence["draft_share"] = round(share, 3)
        if share < plan.min_draft_share:
            got = f"{share:.0%} of the proposed tokens taken; wanted are {plan.min_draft_share:.0%}"
            raise CheckFailure("drafts_refused", got)

    def _ask_wrong_key(self) -> None:
        self._expect_401(f"sk-wrong-{secrets.token_hex(16)}", "a key that was never made")

    def _ask_no_key(self) -> None:
        self._expect_401(None, "no key")

    def _expect_401(self, key: str | None, how: str) -> None:
        reply = status_of(self._client_for(key), self._question(self._plan.prompt_text), self._timeout())
        self._evidence = {"status": reply.status}
        if 200 <= reply.status < 300:
            raise CheckFailure("key_accepted", f"{reply.status} with {how}; expected 401")
        if reply.status != 401:
            raise CheckFailure("status", f"{said(reply)} with {how}; expected 401")

    def _question(self, prompt: str, image_url: str | None = None, **options: t.Any) -> dict[str, t.Any]:
        """A new request; its beginning also keeps it out of the engine's prefix cache."""
        wanted = {"max_tokens": self._plan.max_tokens, **(PAST_THE_CACHE if self._plan.no_cache else {}), **options}
        return question(self._plan.model, with_nonce(prompt), image_url=image_url, **wanted)

    def _answer(self, wanted: dict[str, t.Any], streamed: bool = False) -> Completion:
        """The answer to a request, recorded and checked to belong to it."""
        asked_at = self._wall_clock()
        answer = (ask_streamed if streamed else ask)(self._client(), wanted, self._timeout())
        self._keep(answer)
        self._freshness.judge(answer, asked_at)
        return answer

    def _keep(self, answer: Completion) -> None:
        self._evidence = {
            "answer": excerpt(answer.text, 80),
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            **figures_of(answer),
        }

    def _asked(self, name: str) -> str:
        plan = self._plan
        base = plan.url.rstrip("/")
        base = base[: -len("/v1")] if base.endswith("/v1") else base
        if name == "local_files":
            return f"POST {base}{CHAT_PATH} for pictures, videos and sounds of {local_files.EXISTING}"
        if name in CAPABILITIES:
            path, prompt = CAPABILITIES[name].path, "one one …" if name == "long_prompt" else CAPABILITIES[name].prompt
            return f'POST {base}{path} "{prompt}" {CAPABILITIES[name].asked}, of the model {plan.model}'
        if name == "models":
            return f"GET {base}{MODELS_PATH} for the model {plan.model}"
        prompts = {
            "image": plan.prompt_image,
            "schema": PROMPT_SCHEMA,
            "speed": plan.prompt_speed,
            "drafts": plan.prompt_speed,
        }
        prompt = prompts.get(name, plan.prompt_text)
        how = {
            "stream": ", streamed",
            "schema": " with a JSON schema of one made-up word",
            "speed": f", streamed, {plan.speed_tokens} tokens",
            "drafts": f", streamed, {DRAFT_TOKENS} tokens, and for its counters",
            "image": f" with a square of {' and of '.join(plan.expect_image)}",
            "wrong_key": " with a wrong key",
            "no_key": " without a key",
        }.get(name, "")
        return f'POST {base}{CHAT_PATH} "{excerpt(prompt, 120)}"{how}, of the model {plan.model}'


def _result(name: str, attempts: list[dict[str, t.Any]], asked: str, evidence: dict[str, t.Any]) -> dict[str, t.Any]:
    """One check's result; in detail where it failed, brief where it passed."""
    last = attempts[-1]
    result: dict[str, t.Any] = {"name": name, "passed": last["reason"] is None, "seconds": last["seconds"]}
    if last["reason"] is not None:
        result.update(reason=last["reason"], asked=asked, got=last["got"])
        result["try"] = (
            CAPABILITIES[name].hint if name in CAPABILITIES and last["reason"] in UNABLE else HINTS[last["reason"]]
        )
    if len(attempts) > 1:
        result["attempts"] = attempts
    return {**result, "evidence": evidence}


def described(figures: dict[str, t.Any] | None, judged: bool) -> str:
    """Figures in words, with the load beside them where they were only recorded; nothing where there are none."""
    if figures is None or figures.get("ttft_ms") is None:
        return ""
    words = f"First token {figures['ttft_ms']:.0f} ms"
    if figures.get("tokens_per_second") is not None:
        words += f", {figures['tokens_per_second']:.1f} tokens/s"
    if not judged and figures.get("load") is not None:
        words += f", at a load of {figures['load']:.1f} on {figures['processors']} processors"
        if figures["requests"] is not None:
            words += f" with {figures['requests']} other requests"
    return f"{words}."


def _message(result: dict[str, t.Any]) -> str:
    where = f"{result['name']} ({result['url']})"
    failed = [check for check in result["checks"] if not check["passed"]]
    count = len(result["checks"])
    if not count:
        return f"The gate failed on {where}: none of its checks can be made without a key. Try: give api_key."
    if not failed:
        skipped = f", {' and '.join(result['skipped'])} skipped without a key" if result["skipped"] else ""
        return f"{where}: {count} checks passed{skipped}. {described(result['figures'], result['judged'])}".strip()
    lines = [f"The gate failed on {where}: {len(failed)} of {count} checks."]
    for check in failed:
        times = f" ({len(check['attempts'])} attempts)" if "attempts" in check else ""
        lines.append(f"{check['name']}: asked {check['asked']}.")
        lines.append(f"  Came back{times}: {check['got'].rstrip('.')}.")
        lines.append(f"  Try: {check['try']}.")
    if result["not_asked"]:
        lines.append(f"Not asked after that: {', '.join(result['not_asked'])}.")
    return "\n".join(lines)
