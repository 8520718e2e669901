from __future__ import annotations

import itertools

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.key import EngineKeys, parse, render, renewed

OLD, NEW, NEWER = (f"sk-{letter * 43}" for letter in "abc")


def test_the_file_says_what_it_was_made_of() -> None:
    for keys in (EngineKeys(OLD), EngineKeys(OLD, NEW, frozenset({0, 12}))):
        assert parse(render(keys)) == keys
    assert render(EngineKeys(OLD, NEW, frozenset({2, 0}))).splitlines() == [
        f"ENGINE_API_KEY={OLD}",
        f"ENGINE_API_KEY_NEXT={NEW}",
        "ENGINE_API_KEY_NEXT_KNOWN_BY=0,2",
    ]
    assert NEW not in repr(EngineKeys(OLD, NEW))


@pytest.mark.parametrize("text", ["", "ENGINE_API_KEY=", "ENGINE_API_KEY=short", f"OTHER={OLD}"])
def test_a_file_without_a_key_has_none(text: str) -> None:
    assert parse(text) is None


def test_a_single_instance_changes_over_at_once() -> None:
    assert renewed(EngineKeys(OLD), 0, [], takes_several=True, new=lambda: NEW) == EngineKeys(NEW)
    assert renewed(EngineKeys(OLD), 0, [], takes_several=False, new=lambda: NEW) == EngineKeys(NEW)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_several_change_over_when_the_last_one_has_the_next_key(order: tuple[int, ...]) -> None:
    """In any order, every running instance accepts the key that the edge sends."""
    keys = EngineKeys(OLD)
    known = {index: {OLD} for index in order}
    made = iter((NEW, NEWER))
    for instance in order:
        others = [index for index in order if index != instance]
        keys = renewed(keys, instance, others, takes_several=True, new=lambda: next(made))
        known[instance] = {keys.current, keys.next}
        assert all(keys.current in known[index] for index in order)
    assert keys == EngineKeys(NEW)


def test_an_instance_that_is_restarted_twice_counts_once() -> None:
    keys = EngineKeys(OLD)
    for _ in range(2):
        keys = renewed(keys, 0, [1], takes_several=True, new=lambda: NEW)
        assert keys == EngineKeys(OLD, NEW, frozenset({0}))


def test_an_engine_that_takes_one_key_keeps_it_while_others_run() -> None:
    assert renewed(EngineKeys(OLD), 0, [1], takes_several=False, new=lambda: NEW) == EngineKeys(OLD)
