"""The examples whose runtimes only part ``long`` installs, against a stand-in engine behind the real edges."""

from __future__ import annotations

import contextlib
import json
import os
import typing as t
from pathlib import Path

import pytest

from tests.fakes.engine import MODEL, FakeEngine
from tests.integration.edge.conftest import ENGINE_KEY, IS_HAPROXY_2_4, KEY, Edge, eventually
from tests.integration.edge.fleet import EdgeFleet
from tests.programs import load
from tests.project import ROOT, Run, run

#: The examples, each with the commands that build and run it in a directory of its own.
EXAMPLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "Chat.cs": (
        ("mcs", "-r:System.Net.Http.dll", "-r:{json}", "-out:Chat.exe", "{example}"),
        ("env", "MONO_PATH={json_directory}", "mono", "Chat.exe"),
    ),
    "Chat.java": (("java", "-cp", "{gson}", "{example}"),),
    "chat.go": (("go", "run", "{example}"),),
    "llamaindex_client.py": (("{llamaindex}", "{example}"),),
}
#: An answer of 20 tokens, long enough for comments between its pieces.
QUESTION = "Count from one to twenty in words."
#: Each way of asking, with words of the example's answer.
ANSWERS = (
    "whole: one, two, three,",
    "streamed: one, two, three,",
    "nineteen, twenty.",
    "a picture: red",
    "a tool: 1 call(s), then: i do not know",
)
JSON = Path("/usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll")
PLACES = {
    "gson": "/usr/share/java/gson.jar",
    "json": str(JSON),
    "json_directory": str(JSON.parent),
    "llamaindex": str(ROOT / ".cache/llamaindex/bin/python"),
}


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[EdgeFleet]:
    """A gateway, a host and an engine, which reports usage in comments as the roles have it."""
    report = load(ROOT / "roles/engine/files/usage_report.py")
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(
            FakeEngine(engine=request.param, key=ENGINE_KEY, token=0.03, with_cached=True, usage_report=report)
        )
        place = tmp_path_factory.mktemp("fleet")
        # Streams of a client with limits have comments between their pieces.
        limits = {"team-a": {"requests_per_minute": 100_000}}
        yield EdgeFleet(stack, place, {"inference-1": [engine]}, 1, {KEY: "team-a"}, limits)


def ask(edge: Edge, key: str, name: str, place: Path) -> Run:
    """Build and run an example as a client of an edge."""
    environment = {
        **{
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy") and name != "MODEL"
        },
        "OPENAI_BASE_URL": f"http://127.0.0.1:{edge.port}/v1",
        "OPENAI_API_KEY": key,
        "GOCACHE": str(ROOT / ".cache/go"),
        # An example that needs more than Go's own packages fails.
        "GOPROXY": "off",
    }
    for command in EXAMPLES[name]:
        words = [word.format(example=ROOT / "examples" / name, **PLACES) for word in command]
        words += [QUESTION] if command is EXAMPLES[name][-1] else []
        done = run(*words, environment=environment, timeout=300, directory=place)
        assert done.code == 0 or command is EXAMPLES[name][-1], done.output
    return done


@pytest.mark.parametrize(
    "at",
    [
        "host",
        pytest.param("gateway", marks=pytest.mark.skipif(IS_HAPROXY_2_4, reason="gateways of kind edge need 2.5")),
    ],
)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run(fleet: EdgeFleet, tmp_path: Path, name: str, at: str) -> None:
    edge = fleet.hosts["inference-1"] if at == "host" else fleet.gateways[0]
    before = len(edge.access_log())
    done = ask(edge, KEY, name, tmp_path)
    assert done.code == 0, done.output
    assert [answer for answer in ANSWERS if answer not in done.output.lower()] == []
    # Five requests, and each by the client that the edge knows.
    eventually(lambda: len(edge.access_log()) == before + 5)
    assert all("client=team-a " in line and " status=200 " in line for line in edge.access_log()[before:])


def test_streams_have_comments(fleet: EdgeFleet) -> None:
    """What the examples have to pass over: between the pieces at a host, at least before the end at a gateway."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    for edge, before_the_end in ((fleet.hosts["inference-1"], 10), (fleet.gateways[0], 1)):
        data = json.dumps(body).encode()
        answer = edge.ask("/v1/chat/completions", KEY, "POST", data, Content_Type="application/json")[2]
        pieces = answer.split(b"\n\n")
        comments = [number for number, piece in enumerate(pieces) if piece.startswith(b":")]
        assert comments
        assert comments[0] < len(pieces) - before_the_end


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_the_edge_refuses_is_shown(fleet: EdgeFleet, tmp_path: Path, name: str) -> None:
    done = ask(fleet.hosts["inference-1"], "sk-wrong", name, tmp_path)
    assert done.code == 1, done.output
    assert f"{name}: " in done.output
    assert "401" in done.output
    assert "sk-wrong" not in done.output
