from __future__ import annotations

from ansible_collections.inference.fleet.plugins.module_utils.facts.answers import OTHER, AnswerCounters, parse


def answered(counters: AnswerCounters, client: str, model: str) -> None:
    used = "prompt=3 cached=- completion=2 first_token_ms=- tokens_ms=-"
    found = parse(f"client={client} answer=whole model={model} {used}", client, "--")
    assert found is not None
    counters.add(found)


def test_a_client_that_invents_names_of_models_spoils_its_own_figures_alone() -> None:
    """SGLang answers with the name that its client gave."""
    counters = AnswerCounters()
    for number in range(200):
        answered(counters, "team-a", f"invented-{number}")
    answered(counters, "team-b", "Qwen/Qwen3-VL-8B-Instruct")
    assert counters.tokens["team-b", "Qwen/Qwen3-VL-8B-Instruct"] == (3, 0, 2)
    own = {model: counts for (client, model), counts in counters.tokens.items() if client == "team-a"}
    assert len(own) < 50
    assert sum(prompt for prompt, _cached, _completion in own.values()) == 600
    assert own[OTHER][0] > 500


def test_clients_are_bounded_too() -> None:
    counters = AnswerCounters()
    for number in range(1100):
        answered(counters, f"team-{number}", "m")
    assert len(counters.tokens) == len(counters.answers) == 1001
    assert counters.tokens[OTHER, "m"][0] >= 297
