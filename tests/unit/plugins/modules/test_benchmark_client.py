"""Module benchmark_client: what it finds on a host, against the stand-in for an engine."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import pytest

from tests.fakes.engine import FakeEngine
from tests.unit.conftest import RunModule

KEY = "sk-engine-0123456789abcdef0123456789abcdef"


class Place:
    """The files of a host with one release."""

    def __init__(self, path: Path) -> None:
        self.path = path
        release = path / "releases" / "vllm-1"
        release.mkdir(parents=True)
        manifest = {"engine": "vllm", "version": "0.32.0", "model": "Qwen/x", "revision": "main", "model_path": "/m"}
        (release / "manifest.json").write_text(json.dumps(manifest))
        (path / "instances" / "0").mkdir(parents=True)
        (path / "instances" / "0" / "current").symlink_to("../../releases/vllm-1")
        (path / "key.env").write_text(f"ENGINE_API_KEY={KEY}\n")

    def arguments(self, engine: FakeEngine | None, **more: t.Any) -> dict[str, t.Any]:
        port = engine.port if engine else 1
        return {
            "state": "checked",
            "root": str(self.path),
            "key_file": str(self.path / "key.env"),
            "drain_path": str(self.path / "drain.json"),
            "path": str(self.path / "benchmark.json"),
            "instances": [{"name": "vllm-0", "index": 0, "engine_port": port, "serves": True}],
            **more,
        }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_an_instance_says_what_it_serves(place: Place, run_module: RunModule) -> None:
    with FakeEngine(key=KEY, model="Qwen/x") as engine:
        found = run_module("benchmark_client", place.arguments(engine), check=True)
    assert not found["changed"]
    assert found["problems"] == []
    served = found["instances"]["vllm-0"]
    assert served["context"] == 2048
    assert (served["served_name"], served["tokenizer"], served["release"]) == ("Qwen/x", "/m", "vllm-1")


def test_the_other_nodes_of_an_instance_are_passed_over(place: Place, run_module: RunModule) -> None:
    instances = [{"name": "vllm-0", "index": 0, "engine_port": 1, "serves": False}]
    found = run_module("benchmark_client", place.arguments(None, instances=instances))
    assert (found["instances"], found["problems"]) == ({}, [])


def test_one_that_does_not_answer_is_named(place: Place, run_module: RunModule) -> None:
    found = run_module("benchmark_client", place.arguments(None))
    assert "vllm-0 does not answer at its own port 1: " in found["problems"][0]
    with FakeEngine(key="sk-another-0123456789abcdef0123456789") as engine:
        refused = run_module("benchmark_client", place.arguments(engine))
    assert "401 for its models" in refused["problems"][0]
    assert KEY not in json.dumps(refused)


def test_one_without_a_release_is_named(place: Place, run_module: RunModule) -> None:
    instances = [{"name": "vllm-1", "index": 1, "engine_port": 1, "serves": True}]
    found = run_module("benchmark_client", place.arguments(None, instances=instances))
    assert found["problems"] == ["vllm-1 has no release: site.yml deploys one."]


@pytest.mark.parametrize("drained", [True, False])
def test_a_host_that_an_operator_drained_is_named(place: Place, run_module: RunModule, drained: bool) -> None:
    mark = {"state": "drained", "by": "operator", "reason": "fan", "since": "2026-11-30T10:00:00Z"}
    (place.path / "drain.json").write_text(json.dumps(mark))
    with FakeEngine(key=KEY) as engine:
        found = run_module("benchmark_client", place.arguments(engine, drained=drained))
    expected = ["an operator has drained it (fan); playbooks/undrain.yml puts it back."]
    assert found["problems"] == (expected if drained else [])


def test_what_a_rollout_left_drained_may_be_measured(place: Place, run_module: RunModule) -> None:
    mark = {"state": "drained", "by": "rollout", "reason": "", "since": "2026-11-30T10:00:00Z"}
    (place.path / "drain.json").write_text(json.dumps({"instances": {"engine-0": mark}}))
    with FakeEngine(key=KEY) as engine:
        assert run_module("benchmark_client", place.arguments(engine))["problems"] == []


SCENARIO = {"name": "at_1", "concurrency": 1, "requests": 2, "warmup": 1, "prompt_tokens": 10, "output_tokens": 4}


def measured_arguments(place: Place, client: str) -> dict[str, t.Any]:
    return place.arguments(
        None,
        state="measured",
        client=client,
        url="http://127.0.0.1:1",
        model="m",
        tokenizer="/m",
        scenario=SCENARIO,
        run="r1",
        repeats=1,
    )


def test_a_client_that_is_missing_is_an_error(place: Place, run_module: RunModule) -> None:
    found = run_module("benchmark_client", measured_arguments(place, str(place.path / "none")))
    assert found["failed"]
    assert "role benchmark installs it" in found["msg"]


def test_check_mode_sends_nothing(place: Place, run_module: RunModule) -> None:
    found = run_module("benchmark_client", measured_arguments(place, str(place.path / "none")), check=True)
    assert found["measured"] == {}


def test_the_client_gets_the_key_of_the_host(place: Place, run_module: RunModule) -> None:
    client = place.path / "client"
    client.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"open({str(place.path / 'seen')!r}, 'w').write(os.environ['OPENAI_API_KEY'])\n"
        "sys.exit('ERROR no server')\n"
    )
    client.chmod(0o755)
    found = run_module("benchmark_client", measured_arguments(place, str(client)))
    assert (place.path / "seen").read_text() == KEY
    assert not found.get("failed")
    assert "the client ended with 1" in found["measured"]["problem"]
    assert KEY not in json.dumps(found)


def test_what_is_only_tried_is_no_benchmark_and_a_search_counts_from_the_good_release(
    place: Place, run_module: RunModule
) -> None:
    tried = place.path / "releases" / "vllm-2"
    tried.mkdir()
    manifest = json.loads((place.path / "releases" / "vllm-1" / "manifest.json").read_text())
    (tried / "manifest.json").write_text(json.dumps({**manifest, "version": "0.33.0"}))
    good = {**manifest, "served_name": "qwen", "options": {"max-model-len": 32768}}
    (place.path / "releases" / "vllm-1" / "manifest.json").write_text(json.dumps(good))
    instance = place.path / "instances" / "0"
    (instance / "good").symlink_to("../../releases/vllm-1")
    (instance / "current").unlink()
    (instance / "current").symlink_to("../../releases/vllm-2")
    (instance / "trial").write_text("vllm-2\n")
    refused = run_module("benchmark_client", place.arguments(None))
    assert refused["problems"] == [
        "vllm-0 has vllm-2, which a search of settings was only trying when it was broken off. playbooks/tune.yml, "
        "site.yml or playbooks/rolling_restart.yml puts its settings back."
    ]
    # It may be down: it is put back before it is measured.
    found = run_module("benchmark_client", place.arguments(None, trials=True))
    assert found["problems"] == []
    served = found["instances"]["vllm-0"]
    assert (served["release"], served["version"]) == ("vllm-1", "0.32.0")
    assert (served["served_name"], served["context"]) == ("qwen", 32768)
