# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The benchmark client: its configuration for a scenario, and the requests that it reports. Pure.

The client is aiperf, in a runtime of its own. Only this module knows its configuration and its files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing as t

#: The variable from which the client takes the key: an argument would be visible to every user of the host.
KEY_VARIABLE = "OPENAI_API_KEY"
#: What the client writes, one request a line.
REPORT = "profile_export.jsonl"

_PICTURE = re.compile(r"(\d+)x(\d+)")
_MEASURED = "profiling"
#: Its client errors that are no answer of a server have no status.
_NO_ANSWER = 0


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A load.

    Attributes:
        name: as variables and records have it.
        concurrency: how many requests, or conversations, are in flight at once.
        requests: how many are measured; with several turns the number of conversations.
        warmup: how many are sent before, with other prompts, and are not measured.
        prompt_tokens: of each prompt, or of each turn.
        output_tokens: of each answer.
        turns: of each conversation.
        document_tokens: of a document in front of every prompt, the same for all of one repeat.
        picture: width and height of a picture in each prompt, as ``1280x720``; empty for none.
    """

    name: str
    concurrency: int
    requests: int
    warmup: int
    prompt_tokens: int
    output_tokens: int
    turns: int = 1
    document_tokens: int = 0
    picture: str = ""


@dataclasses.dataclass(frozen=True)
class MeasuredEndpoint:
    """What is measured.

    Attributes:
        url: base URL without ``/v1``.
        model: the model's served name.
        tokenizer: the directory of the model, whose tokenizer makes prompts of the wanted length.
    """

    url: str
    model: str
    tokenizer: str


@dataclasses.dataclass(frozen=True)
class MeasuredRequest:
    """One request as the client reports it.

    Attributes:
        conversation: what it belongs to.
        turn: its place there, from 0.
        began: seconds of the client's clock.
        ended: seconds of the client's clock.
        first_token: seconds to the first token; None without one.
        between_tokens: seconds between two tokens, the mean of the request; None with fewer than two.
        prompt_tokens: as the server counted them.
        output_tokens: as the server counted them.
        problem: why it failed; empty where it did not.
    """

    conversation: str
    turn: int
    began: float
    ended: float
    first_token: float | None
    between_tokens: float | None
    prompt_tokens: int
    output_tokens: int
    problem: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def picture_size(text: str) -> tuple[int, int] | None:
    """Width and height of a picture; None where the text has none."""
    found = _PICTURE.fullmatch(text)
    return (int(found[1]), int(found[2])) if found and int(found[1]) and int(found[2]) else None


def command(client: str, path: str) -> list[str]:
    """The client's command line; what it is to do is in a file."""
    return [client, "profile", "--config", path]


def configure(
    scenario: Scenario, endpoint: MeasuredEndpoint, seed: int, directory: str, timeout: float
) -> dict[str, t.Any]:
    """The client's configuration.

    Args:
        scenario: the load.
        endpoint: what is measured.
        seed: decides every prompt; another seed makes other prompts.
        directory: for the client's files.
        timeout: seconds for one request.
    """
    # A conversation is counted as a whole.
    counted = "sessions" if scenario.turns > 1 else "requests"
    phase = {"type": "concurrency", "concurrency": scenario.concurrency}
    warmup = {"name": "warmup", "kind": "warmup", "exclude_from_results": True, counted: scenario.warmup, **phase}
    measured = {"name": _MEASURED, "kind": _MEASURED, counted: scenario.requests, **phase}
    return {
        "schemaVersion": "2.0",
        "randomSeed": seed,
        "benchmark": {
            "models": {"items": [{"name": endpoint.model}]},
            "endpoint": {
                "urls": [endpoint.url],
                "type": "chat",
                "streaming": True,
                "use_server_token_count": True,
                "timeout": timeout,
                # Every answer has the wanted length, whatever the model would say.
                "extra": {"ignore_eos": True},
                # The client reads the environment: no file and no argument has the key.
                "api_key": f"${{{KEY_VARIABLE}}}",
            },
            "datasets": [_dataset(scenario, seed)],
            "phases": [*([warmup] if scenario.warmup else []), measured],
            "artifacts": {"dir": directory, "records": ["jsonl"], "auto_plot": False},
            "tokenizer": {"name": endpoint.tokenizer},
            "gpu_telemetry": {"enabled": False},
            "server_metrics": {"enabled": False},
            "runtime": {"ui": "none"},
        },
    }


def _dataset(scenario: Scenario, seed: int) -> dict[str, t.Any]:
    made: dict[str, t.Any] = {
        "name": "main",
        "type": "synthetic",
        # With fewer prompts than requests the client repeats prompts, and the engine answers from its cache.
        "entries": scenario.requests + scenario.warmup,
        "random_seed": seed,
        "prompts": {"isl": {"mean": scenario.prompt_tokens}, "osl": {"mean": scenario.output_tokens}},
    }
    if scenario.turns > 1:
        made["turns"] = {"mean": scenario.turns, "stddev": 0}
        made["turn_delay"] = {"mean": 0, "stddev": 0}
    if scenario.document_tokens:
        made["prefix_prompts"] = {"shared_system_length": scenario.document_tokens}
    size = picture_size(scenario.picture)
    if size:
        made["images"] = {"batch_size": 1, "width": {"mean": size[0]}, "height": {"mean": size[1]}, "format": "png"}
    return made


def environment(home: str, key: str) -> dict[str, str]:
    """The client's environment: nothing of the host's configuration, its caches in ``home``."""
    kept = {name: os.environ[name] for name in ("LANG", "PATH") if name in os.environ}
    # Without the proxy: the client is on the host that it measures.
    own = {"HOME": home, "TMPDIR": home, "HF_HOME": home, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
    # The host's own address, which no certificate names.
    own["AIPERF_HTTP_SSL_VERIFY"] = "false"
    return {**kept, **own, KEY_VARIABLE: key}


def read_report(text: str) -> list[MeasuredRequest]:
    """The measured requests of a report, without those of the warm-up; a line that was cut off is left out."""
    found = []
    for line in text.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue
        metadata = document.get("metadata") or {}
        if metadata.get("benchmark_phase") == _MEASURED:
            found.append(_request(document, metadata))
    return sorted(found, key=lambda request: request.began)


def _request(document: dict[str, t.Any], metadata: dict[str, t.Any]) -> MeasuredRequest:
    metrics = document.get("metrics") or {}
    began, ended = (float(metadata.get(f"request_{name}_ns") or 0) / 1e9 for name in ("start", "end"))
    return MeasuredRequest(
        # A conversation may be held twice, but then it has another id of its own.
        conversation=str(metadata.get("x_correlation_id") or metadata.get("conversation_id")),
        turn=int(metadata.get("turn_index") or 0),
        began=began,
        ended=max(began, ended),
        first_token=_seconds(metrics, "time_to_first_token"),
        between_tokens=_seconds(metrics, "inter_token_latency"),
        prompt_tokens=_count(metrics, "usage_prompt_tokens", "input_sequence_length"),
        output_tokens=_count(metrics, "usage_completion_tokens", "output_sequence_length"),
        problem=_problem(document),
    )


def _seconds(metrics: dict[str, t.Any], name: str) -> float | None:
    value = (metrics.get(name) or {}).get("value")
    return float(value) / 1000 if isinstance(value, (int, float)) else None


def _count(metrics: dict[str, t.Any], *names: str) -> int:
    values = ((metrics.get(name) or {}).get("value") for name in names)
    return next((int(value) for value in values if isinstance(value, (int, float))), 0)


def _problem(document: dict[str, t.Any]) -> str:
    error = document.get("error")
    if error:
        code = error.get("code") or _NO_ANSWER
        said = " ".join(str(error.get("message") or error.get("type") or "no reason given").split())
        return f"{code}: {said}" if code else said
    return "it was cancelled" if (document.get("metadata") or {}).get("was_cancelled") else ""
