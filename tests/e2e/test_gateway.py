"""Through two gateways to the real engines, with OpenAI's own client. They join the fleet that the other tests have
left, as they would join a serving one."""

from __future__ import annotations

import concurrent.futures
import json
import typing as t

import openai
import pytest

from lab import state
from tests.e2e import clients
from tests.e2e.conftest import Fleet, status
from tests.e2e.test_fleet import ask, ask_in_a_stream, square
from tests.project import MODEL, Run

pytestmark = pytest.mark.long

GATEWAYS = ("gateway-1", "gateway-2")
STORE = "store-1"
#: Limits that the gateways enforce, and prices of tokens, so that a budget can be spent.
VARIABLES = {
    "fleet_clients": [
        {"name": "gate"},
        {"name": "gateway"},
        {"name": "demo"},
        {"name": "monitoring"},
        {"name": "few", "requests_per_minute": 3},
        {"name": "poor", "budget": 0.001, "budget_period": "1d"},
        {"name": "hasty", "budget": 0.001, "budget_period": "1d"},
        {"name": "picky", "models": ["quick"]},
    ],
    "gateway_models": [
        {"name": MODEL, "engines": ["vllm", "sglang"]},
        {"name": "quick", "model": MODEL, "engines": ["vllm", "sglang"]},
    ],
    "litellm_input_cost_per_token": 0.0001,
    "litellm_output_cost_per_token": 0.0001,
}


class Gateways:
    """The gateways of the end-to-end lab."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def url(self, gateway: str) -> str:
        return f"http://{self.fleet.address(gateway)}:4000"

    @property
    def balanced(self) -> str:
        return f"http://{state.require(self.fleet.name).gateway}:4000"

    def client(self, name: str = "demo", url: str = "") -> openai.OpenAI:
        key = self.fleet.keys(name)["current"]
        return openai.OpenAI(base_url=f"{url or self.balanced}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def gateways(demo: Run, fleet: Fleet) -> Gateways:
    for host in GATEWAYS:
        added = fleet.lab("add", "--name", fleet.name, host, "--role", "gateway")
        assert added.code == 0, added.output
    added = fleet.lab("add", "--name", fleet.name, STORE, "--role", "gateway_store")
    assert added.code == 0, added.output
    deployed = site(fleet)
    assert deployed.code == 0, deployed.output[-6000:]
    return Gateways(fleet)


def site(fleet: Fleet, *words: str) -> Run:
    return fleet.playbook("site.yml", "-e", "engine=vllm", "-e", json.dumps(VARIABLES), *words)


def test_a_second_run_changes_nothing(gateways: Gateways) -> None:
    again = site(gateways.fleet)
    assert again.code == 0, again.output
    assert {*GATEWAYS, STORE} <= set(again.recap)
    assert all(counts["changed"] == 0 for counts in again.recap.values()), again.output


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_chat_and_stream_and_picture(gateways: Gateways, gateway: str) -> None:
    client = gateways.client(url=gateways.url(gateway))
    assert ask(client) == "Paris"
    assert ask_in_a_stream(client) == "Paris"
    content: list[dict[str, t.Any]] = [
        {"type": "image_url", "image_url": {"url": square("green")}},
        {"type": "text", "text": "What colour is the square? Answer with one word."},
    ]
    assert ask(client, content).lower() == "green"


def test_the_models_are_listed(gateways: Gateways) -> None:
    assert sorted(model.id for model in gateways.client().models.list()) == sorted([MODEL, "quick"])
    assert [model.id for model in gateways.client("picky").models.list()] == ["quick"]


def test_refusals_have_the_errors_of_openais_api(gateways: Gateways) -> None:
    stranger = openai.OpenAI(base_url=f"{gateways.balanced}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="The API key is not valid"):
        ask(stranger)
    assert ask(gateways.client("picky"), model="quick") == "Paris"
    with pytest.raises(openai.PermissionDeniedError) as refused:
        ask(gateways.client("picky"))
    assert refused.value.code == "model_not_allowed"
    with pytest.raises(openai.APIStatusError) as unknown:
        ask(gateways.client(), model="no-such-model")
    assert unknown.value.status_code == 404


@pytest.mark.parametrize("name", clients.CASES)
def test_a_gateway_answers_as_an_edge_does(gateways: Gateways, name: str) -> None:
    fleet = gateways.fleet
    key = fleet.keys("demo")["current"]
    edge = clients.Service(f"http://{fleet.address('inference-1')}:8000", key, MODEL)
    gateway = clients.Service(gateways.url(GATEWAYS[0]), key, MODEL)
    expected = clients.DIFFERENT[name] if name in clients.DIFFERENT else clients.outcome(edge, name)
    assert clients.outcome(gateway, name) == expected


def asked(gateways: Gateways, name: str, times: int) -> tuple[list[str], list[openai.RateLimitError]]:
    """The results of a client that uses the gateways in turns: answers, and refusals in their place."""
    answers, refusals = [], []
    for number in range(times):
        try:
            answers.append(ask(gateways.client(name, gateways.url(GATEWAYS[number % 2]))))
        except openai.RateLimitError as error:
            answers.append("refused")
            refusals.append(error)
    return answers, refusals


def test_a_limit_holds_for_all_gateways_together(gateways: Gateways) -> None:
    answers, refusals = asked(gateways, "few", 6)
    # A minute may end between two of them.
    assert answers.count("Paris") in (3, 4), answers
    assert answers[-1] == "refused"
    assert all(int(error.response.headers["retry-after"]) > 0 and error.body for error in refusals)


def test_a_budget_holds_for_all_gateways_together(gateways: Gateways) -> None:
    answers, refusals = asked(gateways, "poor", 6)
    assert answers[0] == "Paris"
    assert answers[-2:] == ["refused", "refused"]
    assert {error.code for error in refusals} <= {"budget_reserved", "budget_exceeded"}
    assert refusals[-1].code == "budget_exceeded"


def test_a_budget_holds_for_requests_at_once(gateways: Gateways) -> None:
    with concurrent.futures.ThreadPoolExecutor(15) as pool:
        answers = [one for two in pool.map(lambda _: asked(gateways, "hasty", 2)[0], range(15)) for one in two]
    # Sequentially, as many of them pass as above.
    assert 1 <= answers.count("Paris") <= 4, answers


def test_metrics_are_behind_a_key(gateways: Gateways) -> None:
    fleet = gateways.fleet
    places = [f"{gateways.url(gateway)}{path}" for gateway in GATEWAYS for path in ("/metrics", "/metrics/engine-0")]
    places.append(f"http://{fleet.address('inference-1')}:8000/metrics")
    for place in places:
        assert status(place) == 404, place
        assert status(place, fleet.keys("demo")["current"]) == 404, place
        assert status(place, fleet.keys("monitoring")["current"]) == 200, place


def test_the_table_has_the_gateways(gateways: Gateways) -> None:
    done = gateways.fleet.playbook("playbooks/status.yml")
    assert done.code == 0, done.output
    for gateway in GATEWAYS:
        assert gateway in done.text
    assert "litellm" in done.text
