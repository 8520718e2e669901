from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys import rotation
from ansible_collections.inference.fleet.plugins.module_utils.keys import tags as key_tags
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import ClientKeys, RetiredKey

from tests.unit.plugins.module_utils.keys.key_stores import NOW, client, content, later, request

DEAD = (
    RetiredKey("a", "1" * 64, NOW, later(1), NOW, True, True),
    RetiredKey("a", "2" * 64, NOW, later(2)),
)


def round_trip(whole: ClientKeys) -> ClientKeys:
    """What is left of a client when its tags and its versions' values are all there is."""
    keys = {
        slot: key_tags.key({"key": key.key, "created": key.created, "rotation": key.rotation}, key.id)
        for slot, key in whole.slots()
    }
    return key_tags.client("a", key_tags.of("a", whole), keys["current"], keys.get("pending"), keys.get("previous"))


def test_tags_hold_all_that_is_not_secret() -> None:
    plain = dataclasses.replace(client(), retired=DEAD)
    pending = rotation.pending(content("a"), request("a"))
    finished = rotation.finished(pending.after, request(overlap=86400)).after
    dead = rotation.retired(finished, request("a", compromised=True)).after
    limited = client(models=("m1", "m2"), requests_per_minute=60, max_concurrent=4, expires=later(9))
    at_gateways = client(tokens_per_minute=1000, budget=2.5, budget_period="30d")
    for whole in (plain, limited, at_gateways, *(one.clients["a"] for one in (pending.after, finished, dead))):
        assert round_trip(whole) == whole
        key_tags.check(key_tags.of("a", whole), "a")


def test_tags_are_those_that_earlier_collections_write_and_read() -> None:
    whole = client(
        models=("m1", "m2"),
        requests_per_minute=60,
        max_concurrent=4,
        expires=later(9),
        tokens_per_minute=1000,
        budget=2.5,
        budget_period="30d",
    )
    assert {tag: value for tag, value in key_tags.of("a", whole).items() if "activated" not in tag} == {
        "inference-fleet:client": "a",
        "inference-fleet:models": "m1 m2",
        "inference-fleet:requests_per_minute": "60",
        "inference-fleet:max_concurrent": "4",
        "inference-fleet:expires": later(9),
        "inference-fleet:tokens_per_minute": "1000",
        "inference-fleet:budget": "2.5",
        "inference-fleet:budget_period": "30d",
    }


def test_a_key_is_in_no_tag() -> None:
    whole = rotation.finished(rotation.pending(content("a"), request("a")).after, request(overlap=0)).after
    assert all(key.key not in str(key_tags.of("a", whole.clients["a"])) for _slot, key in whole.clients["a"].slots())


def test_many_models_are_in_several_tags() -> None:
    models = tuple(sorted(f"organisation/model-with-a-long-name-{number}" for number in range(60)))
    tags = key_tags.of("a", client(models=models))
    assert max(len(value) for value in tags.values()) <= 256
    assert sum(tag.startswith("inference-fleet:models") for tag in tags) == 10
    assert round_trip(client(models=models)).limits == Limits({"models": models})
    key_tags.check(tags, "a")


def test_too_many_are_an_error_before_they_are_sent() -> None:
    models = tuple(sorted(f"{number}-{'x' * 120}" for number in range(110)))
    with pytest.raises(FleetError, match=r"client a would have \d+ tags; AWS allows 50"):
        key_tags.check(key_tags.of("a", client(models=models)), "a")


@pytest.mark.parametrize(
    "tags", [{"": "x"}, {"x" * 129: "x"}, {"a": "x" * 257}, {"a,b": "x"}, {"aws:x": "y"}, {"inference-fleet:x": "y"}]
)
def test_tags_that_a_person_cannot_give(tags: dict[str, str]) -> None:
    with pytest.raises(FleetError, match="cannot be a tag of a secret"):
        key_tags.check(tags)


def test_tags_of_a_step_that_was_cut_off_mean_nothing_yet() -> None:
    step = rotation.pending(content("a"), request("a"))
    before = step.after.clients["a"]
    after = rotation.finished(step.after, request(overlap=0)).after.clients["a"]
    tags = {**key_tags.of("a", before), **key_tags.of("a", after)}
    assert key_tags.client("a", tags, before.current, before.pending, None) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"inference-fleet:requests_per_minute": "many"},
        {"inference-fleet:expires": "later"},
        {"inference-fleet:models.x": "m"},
        {f"inference-fleet:retired:{'1' * 64}": "then"},
        {f"inference-fleet:retired:{'1' * 64}": f"{NOW} - {NOW} buried"},
    ],
)
def test_invalid_tags_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        key_tags.client("a", {**key_tags.of("a", client()), **wrong}, client().current, None, None)
