"""The client's configuration, and its report: recorded from aiperf 0.13.0."""

from __future__ import annotations

import collections
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


def made(**changes: t.Any) -> dict[str, t.Any]:
    load = dataclasses.replace(LOAD, **changes)
    found: dict[str, t.Any] = client.configure(load, ENDPOINT, 7, "/tmp/x/out", 600)["benchmark"]
    return found


def test_each_request_has_a_prompt_of_its_own() -> None:
    config = made()
    [dataset] = config["datasets"]
    assert (dataset["entries"], dataset["random_seed"]) == (40, 7)
    assert dataset["prompts"] == {"isl": {"mean": 1024}, "osl": {"mean": 128}}
    warmup, measured = config["phases"]
    assert (warmup["requests"], warmup["exclude_from_results"], warmup["concurrency"]) == (8, True, 8)
    assert (measured["requests"], measured["concurrency"]) == (32, 8)
    assert not {"images", "turns", "prefix_prompts"} & set(dataset)
    assert config["endpoint"]["urls"] == ["http://127.0.0.1:8100"]


def test_a_conversation_is_counted_as_a_whole() -> None:
    config = made(turns=10, requests=2, warmup=1, concurrency=1)
    assert config["datasets"][0]["turns"] == {"mean": 10, "stddev": 0}
    assert [phase["sessions"] for phase in config["phases"]] == [1, 2]
    assert config["datasets"][0]["entries"] == 3


def test_a_document_is_the_same_for_all_questions_and_not_warmed_up() -> None:
    config = made(document_tokens=10000, requests=5, warmup=0)
    assert config["datasets"][0]["prefix_prompts"] == {"shared_system_length": 10000}
    assert [phase["kind"] for phase in config["phases"]] == ["profiling"]


def test_a_picture_has_its_size() -> None:
    images = made(picture="1280x720")["datasets"][0]["images"]
    assert (images["width"], images["height"], images["batch_size"]) == ({"mean": 1280}, {"mean": 720}, 1)


@pytest.mark.parametrize("text", ["", "1280", "0x720", "1280x0", "1280x720x3", "axb"])
def test_what_is_no_size_is_none(text: str) -> None:
    assert client.picture_size(text) is None


def test_the_key_is_in_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    found = client.environment("/tmp/x", "sk-secret")
    assert found[client.KEY_VARIABLE] == "sk-secret"
    assert "HTTP_PROXY" not in found
    # The client replaces it when it reads the file.
    assert made()["endpoint"]["api_key"] == "${OPENAI_API_KEY}"
    assert client.command("/rt/bin/aiperf", "/tmp/x/c") == ["/rt/bin/aiperf", "profile", "--config", "/tmp/x/c"]


def test_a_recorded_report_has_the_measured_requests_alone() -> None:
    found = client.read_report(RECORDED)
    assert len(found) == 19
    [failed] = [one for one in found if one.problem]
    assert failed.problem.startswith("400: ")
    assert "not a PNG" in failed.problem
    turns = collections.Counter(one.conversation for one in found)
    conversation = [one for one in found if turns[one.conversation] > 5]
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
