"""The client's command line, and its report: recorded from aiperf 0.13.0."""

from __future__ import annotations

import dataclasses
import json
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.benchmark import client
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.client import MeasuredEndpoint, Scenario

RECORDED = (Path(__file__).parents[3] / "fixtures/aiperf/report.jsonl").read_text()
ENDPOINT = MeasuredEndpoint("http://127.0.0.1:8100", "qwen", "/opt/models/qwen")
LOAD = Scenario("at_8", 8, 32, 8, 1024, 128)


def words_of(**changes: t.Any) -> list[str]:
    load = dataclasses.replace(LOAD, **changes)
    return client.command("/rt/bin/aiperf", load, ENDPOINT, 7, "/tmp/x/out", 600)


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_each_request_has_a_prompt_of_its_own() -> None:
    words = words_of()
    assert words[:2] == ["/rt/bin/aiperf", "profile"]
    assert option(words, "--num-conversations") == "40"
    assert option(words, "--request-count") == "32"
    assert option(words, "--warmup-request-count") == "8"
    assert (option(words, "--isl"), option(words, "--osl"), option(words, "--concurrency")) == ("1024", "128", "8")
    assert option(words, "--random-seed") == "7"
    assert not [word for word in words if word.startswith(("--image", "--session", "--shared"))]


def test_a_conversation_counts_its_turns() -> None:
    words = words_of(turns=10, requests=2, warmup=1, concurrency=1)
    assert option(words, "--session-turns-mean") == "10"
    assert option(words, "--session-turns-stddev") == "0"
    assert option(words, "--request-count") == "20"
    assert option(words, "--warmup-request-count") == "10"
    assert option(words, "--num-conversations") == "3"


def test_a_document_is_the_same_for_all_questions_and_not_warmed_up() -> None:
    words = words_of(document_tokens=10000, requests=5, warmup=0)
    assert option(words, "--shared-system-prompt-length") == "10000"
    assert "--warmup-request-count" not in words


def test_a_picture_has_its_size() -> None:
    words = words_of(picture="1280x720")
    assert (option(words, "--image-width-mean"), option(words, "--image-height-mean")) == ("1280", "720")


@pytest.mark.parametrize("text", ["", "1280", "0x720", "1280x0", "1280x720x3", "axb"])
def test_what_is_no_size_is_none(text: str) -> None:
    assert client.picture_size(text) is None


def test_the_key_is_in_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    found = client.environment("/tmp/x", "sk-secret")
    assert found[client.KEY_VARIABLE] == "sk-secret"
    assert "HTTP_PROXY" not in found
    assert client.KEY_VARIABLE not in client.environment("/tmp/x", None)
    assert "sk-secret" not in " ".join(words_of())


def test_a_recorded_report_has_the_measured_requests_alone() -> None:
    found = client.read_report(RECORDED)
    assert len(found) == 19
    [failed] = [one for one in found if one.problem]
    assert failed.problem.startswith("400: ")
    assert "not a PNG" in failed.problem
    conversation = [one for one in found if len([other for other in found if other.conversation == one.conversation]) > 5]
    assert [one.turn for one in conversation] == list(range(10))
    assert conversation[0].first_token == pytest.approx(0.008312349)
    assert conversation[6].between_tokens == pytest.approx(7.501142857142856e-06)
    assert {one.output_tokens for one in conversation} == {8}
    assert all(one.ended >= one.began > 1.7e9 for one in found)


def test_a_line_that_was_cut_off_is_left_out() -> None:
    assert len(client.read_report(RECORDED[:-200])) == 18
    assert client.read_report("") == []


def test_a_request_without_an_answer_is_a_failure() -> None:
    document = {
        "metadata": {"benchmark_phase": "profiling", "request_start_ns": 5, "was_cancelled": True},
        "metrics": {"time_to_first_token": {"value": None}},
    }
    [one] = client.read_report(json.dumps(document))
    assert (one.problem, one.first_token, one.ended) == ("it was cancelled", None, one.began)
    document["error"] = {"code": None, "type": "ServerDisconnected"}
    assert client.read_report(json.dumps(document))[0].problem == "ServerDisconnected"
