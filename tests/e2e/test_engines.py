"""A host switches from vLLM to SGLang under load, and the fleet then serves with both. In part long the whole fleet
switches and back, both engines run on one host, and SGLang's processes are lost."""

from __future__ import annotations

import json
import re
import threading
import time
import typing as t
from pathlib import Path

import openai
import pytest

from tests.e2e.conftest import HOSTS, SUBNET, Fleet, StartTraffic, status
from tests.e2e.rollouts import Rollout, nothing_was_lost
from tests.e2e.test_fleet import QUESTION, ask, ask_in_a_stream, square
from tests.project import MODEL, Run

SGLANG = "sglang@0.service"
TO_SGLANG = ("site.yml", "-l", "inference-2", "-e", "engine=sglang")
INSTALLED = re.compile(r"Install the engine and what it needs[^\n]*\n(\S*changed)", re.MULTILINE)
BOTH = '{"fleet_instances": [{"engine": "vllm"}, {"engine": "sglang", "port": 8001, "served_name": "fast"}]}'


def at(fleet: Fleet, host: str, port: int = 8000) -> openai.OpenAI:
    """A client of one host and no other."""
    return openai.OpenAI(
        base_url=f"http://{fleet.address(host)}:{port}/v1", api_key=fleet.environment["OPENAI_API_KEY"], max_retries=0
    )


def question_about(colour: str) -> list[dict[str, t.Any]]:
    return [
        {"type": "image_url", "image_url": {"url": square(colour)}},
        {"type": "text", "text": "What colour is the square? Answer with one word."},
    ]


def serves_with_sglang(fleet: Fleet, host: str) -> None:
    assert fleet.process(host, SGLANG) != "0"
    assert fleet.process(host) == "0"
    assert ask(at(fleet, host)) == "Paris"
    assert ask(at(fleet, host), question_about("green")).lower() == "green"
    # Both engines use this model, which was fetched once.
    assert fleet.on(host, "ls /opt/dlami/nvme/models/*/ | grep -c ^content-") == "1"


def become(fleet: Fleet, health: t.Mapping[str, str]) -> None:
    """Wait until these hosts' /health returns this."""
    deadline = time.monotonic() + 300
    while {host: fleet.health(host) for host in health} != dict(health):
        assert time.monotonic() < deadline, f"/health never became {health}"
        time.sleep(0.5)


def stop_core(fleet: Fleet, host: str, unit: str, core: str) -> None:
    """Stop the process that computes: what its HTTP server, another process, sees of an engine that hangs."""
    fleet.on(host, f"kill -STOP $(pgrep --parent {fleet.process(host, unit)} --full '{core}')")


def restarts(fleet: Fleet, host: str) -> int:
    """How often the watchdog has restarted the first instance."""
    shown = fleet.on(host, "cat /var/lib/inference/metrics/watchdog.prom")
    found = re.search(r'^fleet_watchdog_restarts_total\{instance="0"\} (\d+)$', shown, re.MULTILINE)
    assert found, shown
    return int(found[1])


class Stuck(threading.Thread):
    """A client whose request is at an engine that hangs; it waits far longer than the watchdog does."""

    def __init__(self, client: openai.OpenAI) -> None:
        super().__init__(daemon=True)
        self._client = client.with_options(timeout=300)
        self._problem: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            ask(self._client)
        except openai.APIError as error:
            self._problem = error

    def failed_within_its_timeout(self) -> bool:
        self.join(300)
        return self._problem is not None and not isinstance(self._problem, openai.APITimeoutError)


def test_sglang_takes_over_a_host_nothing_is_lost_and_a_second_rollout_is_refused(
    demo: Run, fleet: Fleet, traffic: StartTraffic, tmp_path: Path
) -> None:
    clients = traffic(streams=1, requests_per_second=2)
    switch = Rollout(fleet.environment, tmp_path, *TO_SGLANG)
    switch.wait_for("step", host="inference-2", step="drain")
    second = fleet.playbook("playbooks/rolling_restart.yml")
    assert second.code != 0
    assert "has been changing this fleet since" in second.text
    assert second.recap["inference-1"]["changed"] == 0
    done = switch.wait()
    assert done.code == 0
    assert nothing_was_lost(clients.stop())
    record = json.loads((switch.record / "record.json").read_text())
    assert record["outcome"] == "finished"
    assert {name: host["outcome"] for name, host in record["hosts"].items()} == {"inference-2": "done"}
    assert record["self_test"]["passed"]
    assert (switch.record / "index.html").stat().st_size > 10_000
    assert "inference-2 done in" in done.text
    assert INSTALLED.search(done.output)
    serves_with_sglang(fleet, "inference-2")
    assert fleet.process("inference-1") != "0"
    assert ask(at(fleet, "inference-1")) == "Paris"


def test_a_second_run_with_sglang_changes_nothing(fleet: Fleet) -> None:
    before = fleet.process("inference-2", SGLANG)
    again = fleet.playbook(*TO_SGLANG)
    assert again.code == 0
    assert {host: counts["changed"] for host, counts in again.recap.items()} == dict.fromkeys(again.recap, 0)
    assert fleet.process("inference-2", SGLANG) == before


def test_sglang_streams_and_says_why_it_stopped(fleet: Fleet) -> None:
    assert ask_in_a_stream(at(fleet, "inference-2")) == "Paris"


def test_sglang_shows_nothing_but_its_answers(fleet: Fleet) -> None:
    base, key = f"http://{fleet.address('inference-2')}:8000", fleet.environment["OPENAI_API_KEY"]
    for path in (
        "/server_info",
        "/get_server_info",
        "/flush_cache",
        "/update_weights_from_disk",
        "/metrics",
        "/v1/loads",
    ):
        assert status(f"{base}{path}", key) == 404, path
        assert status(f"{base}{path}", key, b"{}") == 404, path
    listening = fleet.on("inference-2", "ss -H -l -t -n | awk '{print $4}'").split()
    assert {one.rsplit(":", 1)[1] for one in listening if not one.startswith(("127.", "[::1]"))} == {"22", "8000"}
    leaks = fleet.on(
        "inference-2",
        "key=$(sed -n s/^ENGINE_API_KEY=//p /etc/inference/engine_key.env);"
        ' for p in /proc/[0-9]*/cmdline; do grep -alF "$key" $p 2>/dev/null; done;'
        ' journalctl --no-pager | grep -cF "$key";'
        ' grep -rlF "$key" /opt/inference/releases /etc/systemd /var/cache/inference; true',
    )
    assert leaks == "0"


def test_an_option_of_vllm_is_refused_for_sglang_before_anything_stops(fleet: Fleet) -> None:
    before = fleet.process("inference-2", SGLANG)
    done = fleet.playbook(*TO_SGLANG, "-e", '{"sglang_extra_args": {"max-num-seqs": 4}}')
    assert done.code != 0
    assert "sets max-num-seqs, which is an option of vLLM" in done.text
    assert "max-running-requests" in done.text
    assert fleet.process("inference-2", SGLANG) == before


#: Little of each load: the engines compute on two cores.
FEW_TOKENS = {
    "benchmark_scenarios": ["at_1", "at_2", "picture", "conversation", "document"],
    "benchmark_repeats": 1,
    "benchmark_requests": 1,
    "benchmark_prompt_tokens": 64,
    "benchmark_output_tokens": 8,
    "benchmark_turns": 3,
    "benchmark_document_tokens": 300,
    "benchmark_document_questions": 2,
    "benchmark_picture": "64x64",
}


@pytest.mark.parametrize("host", HOSTS)
def test_no_request_ends_an_engine_for_want_of_a_compiler(fleet: Fleet, host: str) -> None:
    """One host has each engine, and neither host has a compiler."""
    assert fleet.on(host, "ls /usr/bin/gcc /usr/bin/g++ 2>/dev/null; true") == ""
    unit = {"inference-1": "vllm@0.service", "inference-2": SGLANG}[host]
    before = fleet.process(host, unit)
    client = at(fleet, host)
    question: list[t.Any] = [{"role": "user", "content": QUESTION}]
    answer = client.chat.completions.create(
        model=MODEL, messages=question, temperature=0, max_tokens=16, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert logprobs.content[0].token == "Paris"
    tool: t.Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    answer = client.chat.completions.create(
        model=MODEL, messages=question, temperature=0, max_tokens=16, tools=[tool], tool_choice="auto"
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert fleet.process(host, unit) == before


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("place", ["file:///etc/hostname", "/dev/zero", "http://127.0.0.1:1/cat.png"])
@pytest.mark.parametrize("before", ["", "word " * 8000], ids=["seen by the edge", "seen by the engine alone"])
def test_no_request_makes_an_engine_open_anything(fleet: Fleet, host: str, place: str, before: str) -> None:
    for kind in ("image_url", "video_url"):
        parts: list[t.Any] = [{"type": "text", "text": before + "?"}, {"type": kind, kind: {"url": place}}]
        with pytest.raises(openai.BadRequestError) as refused:
            ask(at(fleet, host), parts)
        assert refused.value.code == "media_not_allowed"


def stream_and_stop(fleet: Fleet, client: openai.OpenAI) -> None:
    """Stop the core of inference-1's vLLM in the middle of an answer, and read on."""
    question: list[t.Any] = [{"role": "user", "content": "Count without end."}]
    with client.chat.completions.create(model=MODEL, messages=question, stream=True, max_tokens=1000) as stream:
        for number, _event in enumerate(stream):
            if number == 5:
                stop_core(fleet, "inference-1", "vllm@0.service", "VLLM::EngineCore")


@pytest.mark.long
def test_a_vllm_core_that_hangs_in_a_stream_and_in_its_first_request_is_restarted(demo: Run, fleet: Fleet) -> None:
    words = ("site.yml", "-l", "inference-1", "-e", "engine=vllm")
    often = fleet.playbook(*words, "-e", "watchdog_pause=0")
    assert often.code == 0, often.output[-6000:]
    before = restarts(fleet, "inference-1")
    client = at(fleet, "inference-1")
    with pytest.raises(openai.APIError) as failed:
        stream_and_stop(fleet, client)
    assert not isinstance(failed.value, (openai.APITimeoutError, openai.BadRequestError))
    become(fleet, {"inference-1": "503"})
    become(fleet, {"inference-1": "200"})
    assert restarts(fleet, "inference-1") == before + 1
    assert ask(client) == "Paris"
    # Nothing asks: the watchdog's own question finds it.
    stop_core(fleet, "inference-1", "vllm@0.service", "VLLM::EngineCore")
    become(fleet, {"inference-1": "503"})
    become(fleet, {"inference-1": "200"})
    assert restarts(fleet, "inference-1") == before + 2
    assert ask(client) == "Paris"
    assert "VLLM::EngineCore" in fleet.on("inference-1", "cat /var/lib/inference/hangs/*-engine-0/stack-*.txt")
    assert fleet.playbook(*words).code == 0


@pytest.mark.long
def test_the_whole_fleet_changes_its_engine_and_back_and_nothing_is_lost(
    demo: Run, fleet: Fleet, traffic: StartTraffic, tmp_path: Path
) -> None:
    assert fleet.playbook("site.yml", "-e", "engine=vllm").code == 0
    clients = traffic(streams=1, requests_per_second=2)
    switch = Rollout(fleet.environment, tmp_path, "site.yml", "-e", "engine=sglang")
    done = switch.wait()
    assert done.code == 0
    assert nothing_was_lost(clients.stop())
    record = json.loads((switch.record / "record.json").read_text())
    assert {name: host["outcome"] for name, host in record["hosts"].items()} == dict.fromkeys(HOSTS, "done")
    assert "2 hosts in 2 waves" in done.text
    for host in HOSTS:
        serves_with_sglang(fleet, host)
    clients = traffic(streams=1, requests_per_second=2)
    done = Rollout(fleet.environment, tmp_path, "site.yml", "-l", "inference-1", "-e", "engine=vllm").wait()
    assert done.code == 0
    assert nothing_was_lost(clients.stop())
    assert fleet.process("inference-1") != "0"
    assert not INSTALLED.search(done.output)
    assert ask(at(fleet, "inference-1")) == "Paris"


@pytest.mark.long
def test_both_engines_are_measured_side_by_side_under_traffic(fleet: Fleet, traffic: StartTraffic) -> None:
    """Each host is drained in its turn while the other one has the clients."""
    clients = traffic(streams=1, requests_per_second=1)
    done = fleet.playbook("playbooks/benchmark.yml", "-l", ",".join(HOSTS), "-e", json.dumps(FEW_TOKENS))
    assert done.code == 0, done.output
    assert nothing_was_lost(clients.stop())
    assert re.search(r"inference-1 vllm-0 0\.32\.0 +inference-2 sglang-0 0\.5\.23 +second against first", done.output)
    for load in ("1 at once", "2 at once", "one picture", "a conversation", "a document, asked again"):
        assert re.search(rf"^{load}.*  [0-9.]+ +[0-9.]+  ", done.output, re.MULTILINE), load
    assert "requests failed" not in done.text
    assert [fleet.health(host) for host in HOSTS] == ["200", "200"]


@pytest.mark.long
def test_sglangs_killed_and_hanging_processes_come_back_by_themselves(demo: Run, fleet: Fleet) -> None:
    """The scheduler is a child, holds the model, and is killed by the watchdog: nothing else would end the hang."""
    assert fleet.playbook("site.yml", "-e", "engine=sglang").code == 0
    before = {host: fleet.process(host, SGLANG) for host in HOSTS}
    fleet.on("inference-1", f"kill -9 {before['inference-1']}")
    stop_core(fleet, "inference-2", SGLANG, "sglang::scheduler")
    assert fleet.health("inference-2") == "200"
    stuck = Stuck(at(fleet, "inference-2"))
    become(fleet, dict.fromkeys(HOSTS, "503"))
    become(fleet, dict.fromkeys(HOSTS, "200"))
    for host in HOSTS:
        assert fleet.process(host, SGLANG) not in (before[host], "0")
        assert ask(at(fleet, host)) == "Paris"
    assert stuck.failed_within_its_timeout()
    assert restarts(fleet, "inference-2") == 1
    stacks = fleet.on("inference-2", "cat /var/lib/inference/hangs/*-engine-0/stack-*.txt")
    assert "sglang::scheduler" in stacks
    assert "event_loop" in stacks
    assert '"client": "demo"' in fleet.on("inference-2", "cat /var/lib/inference/hangs/*-engine-0/requests.json")


@pytest.mark.long
def test_both_engines_answer_on_one_host(demo: Run, fleet: Fleet) -> None:
    both = fleet.playbook("site.yml", "-l", "inference-2", "-e", "engine=vllm", "-e", BOTH)
    assert both.code == 0, both.output[-6000:]
    for port, name in ((8000, MODEL), (8001, "fast")):
        client = at(fleet, "inference-2", port)
        assert [model.id for model in client.models.list()] == [name]
        assert ask(client, model=name) == "Paris"
    shown = fleet.playbook("playbooks/status.yml").output
    assert re.search(rf"inference-2 +in service +0 +vllm .*{re.escape(MODEL)}", shown)
    assert re.search(r"inference-2 +in service +1 +sglang .* fast", shown)
    one = fleet.playbook("site.yml", "-l", "inference-2", "-e", "engine=vllm")
    assert one.code == 0, one.output
    assert re.search(r"inference-2 +sglang-1 +stop +it is no longer wanted", one.output)
    assert fleet.process("inference-2", "sglang@1.service") == "0"


@pytest.mark.long
def test_two_hosts_are_one_instance_that_fails_and_comes_back_as_one(demo: Run, fleet: Fleet) -> None:
    """Each layer is split over both hosts, which vLLM's CPU build can do: its pipeline stages fail at a request."""
    over_both = {
        "fleet_instances": [{"nodes": list(HOSTS)}],
        "fleet_node_network": SUBNET,
        "vllm_tensor_parallel_size": 2,
        "vllm_extra_args": {"pipeline-parallel-size": 1},
        "rollout_accept_downtime": True,
    }
    done = fleet.playbook("site.yml", "-e", "engine=vllm", "-e", json.dumps(over_both))
    assert done.code == 0, done.output[-6000:]
    assert "2 hosts in 1 waves" in done.text
    assert [fleet.health(host) for host in HOSTS] == ["200", "503"]
    assert ask(at(fleet, "inference-1")) == "Paris"
    assert ask(at(fleet, "inference-1"), question_about("red")).lower() == "red"

    fleet.on("inference-2", "systemctl kill --kill-whom=all --signal=SIGKILL vllm@0")
    become(fleet, {"inference-1": "503"})
    become(fleet, {"inference-1": "200"})
    assert ask(at(fleet, "inference-1")) == "Paris"

    back = fleet.playbook("site.yml", "-e", "engine=vllm", "-e", "rollout_accept_downtime=true")
    assert back.code == 0, back.output[-6000:]
    for host in HOSTS:
        assert ask(at(fleet, host)) == "Paris"
