"""From bare hosts to answers, and failures. The order matters: each test leaves the fleet serving."""

from __future__ import annotations

import base64
import io
import re
import shutil
import time
import typing as t

import openai
import pytest
from PIL import Image, ImageDraw

from tests.e2e.conftest import HOSTS, LAB, Fleet, status
from tests.project import MODEL, ROOT, Run

QUESTION = "What is the capital of France? Answer with one word."
#: The examples, each with words of its output.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "anthropic_client.py": ("whole: paris", "streamed: paris", "a picture: red", "a tool: "),
    "chat.mjs": ("paris",),
    "chat.py": ("paris",),
    "curl.sh": ("paris",),
    "image.py": ("red",),
    "langchain_client.py": ("whole: paris", "streamed: paris", "a picture: red", "a tool: "),
    "stream.py": ("one",),
}


def square(colour: str) -> str:
    """A picture of a square in an OpenAI client's form."""
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).rectangle((16, 16, 47, 47), fill=colour)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def ask(client: openai.OpenAI, content: t.Any = QUESTION, model: str = MODEL) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=16
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    return (answer.choices[0].message.content or "").strip().rstrip(".")


def ask_in_a_stream(client: openai.OpenAI) -> str:
    """The answer to QUESTION in a stream with usage and finish reason."""
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert any(chunk.usage for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    # LiteLLM sends the usage beside a choice without content.
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    return "".join(choice.delta.content or "" for choice in choices).strip().rstrip(".")


def test_the_demo_says_how_to_use_it(demo: Run, fleet: Fleet) -> None:
    assert f"It answers at {fleet.environment['OPENAI_BASE_URL']}" in demo.output
    assert fleet.environment["OPENAI_API_KEY"] not in demo.output


def test_the_printed_curl_lines_work(demo: Run, fleet: Fleet) -> None:
    lines = re.findall(r"^ *curl -sS .*?\}\]\}'$", demo.output, re.MULTILINE | re.DOTALL)
    assert len(lines) == 2
    text, image = (fleet.run("bash", "-c", line) for line in lines)
    assert "Paris" in text.output
    assert "red" in image.output.lower()


def test_a_second_run_changes_nothing(demo: Run, fleet: Fleet) -> None:
    processes = [fleet.process(host) for host in HOSTS]
    again = fleet.run("script/demo")
    assert again.code == 0, again.output
    assert {host: counts["changed"] for host, counts in again.recap.items()} == dict.fromkeys(again.recap, 0)
    assert set(HOSTS) <= set(again.recap)
    assert [fleet.process(host) for host in HOSTS] == processes


def test_the_plain_command_is_the_same(demo: Run, fleet: Fleet) -> None:
    checked = fleet.playbook("site.yml", "-e", "engine=vllm", "--check", "--diff")
    assert checked.code == 0, checked.output
    assert all(counts["changed"] == 0 for counts in checked.recap.values())


def test_chat(demo: Run, fleet: Fleet) -> None:
    assert ask(fleet.client) == "Paris"


def test_every_host_answers(demo: Run, fleet: Fleet) -> None:
    for number in (11, 12):
        url = f"http://10.217.0.{number}:8000/v1"
        assert ask(openai.OpenAI(base_url=url, api_key=fleet.environment["OPENAI_API_KEY"])) == "Paris"


def test_stream(demo: Run, fleet: Fleet) -> None:
    assert ask_in_a_stream(fleet.client) == "Paris"


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_image(demo: Run, fleet: Fleet, colour: str) -> None:
    content = [
        {"type": "image_url", "image_url": {"url": square(colour)}},
        {"type": "text", "text": "What colour is the square? Answer with one word."},
    ]
    assert ask(fleet.client, content).lower() == colour


def test_the_models_are_listed(demo: Run, fleet: Fleet) -> None:
    assert [model.id for model in fleet.client.models.list()] == [MODEL]


@pytest.mark.parametrize("host", [11, 12])
def test_what_the_edge_refuses(demo: Run, fleet: Fleet, host: int) -> None:
    base, key = f"http://10.217.0.{host}:8000", fleet.environment["OPENAI_API_KEY"]
    assert status(f"{base}/v1/models") == 401
    assert status(f"{base}/v1/models", "sk-wrong") == 401
    assert status(f"{base}/v1/models", key) == 200
    for path in ("/invocations", "/tokenize", "/metrics", "/version", "/docs", "/v1/../metrics", "/"):
        assert status(f"{base}{path}", key) == 404, path
        assert status(f"{base}{path}", key, b"{}") == 404, path
    assert status(f"{base}/health") == 200


def test_nothing_but_the_edge_and_sshd_listens(demo: Run, fleet: Fleet) -> None:
    for host in HOSTS:
        listening = fleet.on(host, "ss -H -l -t -n | awk '{print $4}'").split()
        beyond_loopback = {
            address.rsplit(":", 1)[1] for address in listening if not address.startswith(("127.", "[::1]"))
        }
        assert beyond_loopback == {"22", "8000"}


def test_the_engines_key_is_nowhere_to_be_read(demo: Run, fleet: Fleet) -> None:
    for host in HOSTS:
        found = fleet.on(
            host,
            "key=$(sed -n s/^ENGINE_API_KEY=//p /etc/inference/engine_key.env);"
            ' for p in /proc/[0-9]*/cmdline; do grep -alF "$key" $p 2>/dev/null; done;'
            ' journalctl --no-pager | grep -cF "$key";'
            ' grep -rlF "$key" /opt/inference/releases /etc/systemd /var/cache/inference; true',
        )
        assert found == "0"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(demo: Run, fleet: Fleet, example: str) -> None:
    runner = {"py": ROOT / ".venv/bin/python", "sh": "bash", "mjs": "node"}[example.rsplit(".", 1)[1]]
    if shutil.which(str(runner)) is None:
        pytest.skip(f"{runner} is not on this machine")
    done = fleet.run(str(runner), f"examples/{example}")
    assert done.code == 0, done.output
    assert [word for word in EXAMPLES[example] if word not in done.output.lower()] == []


def test_the_day_to_day_playbooks(demo: Run, fleet: Fleet) -> None:
    for playbook, words in {
        "smoke.yml": HOSTS,
        "status.yml": (*HOSTS, "vllm", "0.32.0", MODEL),
        "verify_gpu.yml": HOSTS,
    }.items():
        done = fleet.playbook(f"playbooks/{playbook}")
        assert done.code == 0, done.output
        assert [word for word in words if word not in done.output] == [], playbook
        assert all(counts["changed"] == 0 for counts in done.recap.values())
    shown = fleet.playbook("playbooks/show_key.yml", "-e", "client=demo")
    assert fleet.environment["OPENAI_API_KEY"] in shown.output


def test_an_unknown_engine_touches_no_host(demo: Run, fleet: Fleet) -> None:
    done = fleet.playbook("site.yml", "-e", "engine=tgi")
    assert done.code != 0
    assert "'tgi'" in done.text
    assert "valid are vllm, sglang" in done.text
    assert all(counts["changed"] == 0 for counts in done.recap.values())


def test_an_unknown_option_stops_no_engine(demo: Run, fleet: Fleet) -> None:
    processes = [fleet.process(host) for host in HOSTS]
    done = fleet.playbook("site.yml", "-e", "engine=vllm", "-e", '{"vllm_extra_args": {"max_modle_len": 1}}')
    assert done.code != 0
    assert "does not know the option max-modle-len (did you mean max-model-len" in done.text
    assert [fleet.process(host) for host in HOSTS] == processes


def test_an_inventory_without_hosts_is_an_error(demo: Run, fleet: Fleet) -> None:
    done = fleet.playbook("-i", "localhost,", "site.yml", "-e", "engine=vllm")
    assert done.code != 0
    assert "has no host in the group inference" in done.text


def test_an_engine_that_cannot_start_is_explained_and_the_good_release_comes_back(demo: Run, fleet: Fleet) -> None:
    before = fleet.process("inference-2")
    done = fleet.playbook("site.yml", "-e", "engine=vllm", "-e", "vllm_max_model_len=99999999")
    assert done.code != 0
    assert "max_model_len 99999999 is more than the model was made for" in done.text
    assert "It was rolled back to vllm-" in done.text
    assert "Not touched: inference-2" in done.text
    assert fleet.process("inference-2") == before
    for host in HOSTS:
        assert fleet.health(host) == "200"
    assert ask(fleet.client) == "Paris"


def test_a_host_that_an_operator_drained_is_left_out(demo: Run, fleet: Fleet) -> None:
    before = fleet.process("inference-2")
    assert fleet.playbook("playbooks/drain.yml", "-l", "inference-2").code == 0
    try:
        done = fleet.playbook("site.yml", "-l", "inference-2", "-e", "engine=vllm", "-e", "vllm_max_num_seqs=2")
        assert done.code == 0, done.output
        assert "inference-2 is left out: an operator has drained it" in done.text
        assert fleet.process("inference-2") == before
        assert ask(fleet.client) == "Paris"
    finally:
        assert fleet.playbook("playbooks/undrain.yml", "-l", "inference-2").code == 0


def test_a_host_that_a_broken_run_left_drained_comes_back(demo: Run, fleet: Fleet) -> None:
    drain = ("ansible", "inference-2", "-m", "inference.fleet.edge_drain", "-a", "state=drained by=rollout")
    assert fleet.run(*drain).code == 0
    done = fleet.playbook("site.yml", "-l", "inference-2", "-e", "engine=vllm")
    assert done.code == 0, done.output
    assert fleet.health("inference-2") == "200"


def test_a_killed_engine_comes_back_by_itself(demo: Run, fleet: Fleet) -> None:
    before = fleet.process("inference-2")
    key_file = "/etc/inference/engine_key.env"
    fleet.on(
        "inference-2", f"printf 'ENGINE_API_KEY_NEXT=sk-{'n' * 43}\\nENGINE_API_KEY_NEXT_KNOWN_BY=\\n' >> {key_file}"
    )
    fleet.on("inference-2", f"kill -9 {before}")
    # The edge takes some seconds to notice; only then does its health describe the new process.
    for expected in ("503", "200"):
        deadline = time.monotonic() + 240
        while fleet.health("inference-2") != expected:
            assert time.monotonic() < deadline, f"/health never became {expected}"
            time.sleep(0.5)
    assert fleet.process("inference-2") not in (before, "0")
    # It accepts the edge's key and the next one, so the edge could switch now.
    codes = fleet.on(
        "inference-2",
        f"for key in $(sed -n 's/^ENGINE_API_KEY[A-Z_]*=sk-/sk-/p' {key_file}) sk-wrong; do curl -s -o /dev/null -w "
        "'%{http_code} ' -H \"Authorization: Bearer $key\" http://127.0.0.1:8100/v1/models; done",
    )
    assert codes.split() == ["200", "200", "401"]


def test_an_unreachable_host_stops_the_run_and_the_next_run_repairs_it(demo: Run, fleet: Fleet) -> None:
    assert fleet.lab("stop", "--name", LAB, "inference-2", "--crash").code == 0
    try:
        done = fleet.playbook("site.yml", "-e", "engine=vllm", "-e", "vllm_max_num_seqs=16")
        assert done.code != 0
        assert "Failed or unreachable: inference-2" in done.text
        assert done.recap["inference-1"]["changed"] == 0
        assert ask(fleet.client) == "Paris"
    finally:
        assert fleet.lab("start", "--name", LAB, "inference-2").code == 0
    repaired = fleet.playbook("site.yml", "-e", "engine=vllm")
    assert repaired.code == 0, repaired.output
    # Nothing is left of the releases that failed above.
    assert "The same command goes on" not in fleet.playbook("playbooks/status.yml").text
    assert (
        ask(openai.OpenAI(base_url="http://10.217.0.12:8000/v1", api_key=fleet.environment["OPENAI_API_KEY"]))
        == "Paris"
    )
