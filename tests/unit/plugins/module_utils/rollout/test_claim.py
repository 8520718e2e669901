from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.rollout.claim import claimed, parse, with_done

from tests.unit.plugins.plugin_utils.rollout.rollouts import claim


def test_a_free_host_is_given() -> None:
    assert claimed(None, claim(), False) == (claim(), None)


def test_another_controller_keeps_its_claim_until_it_releases_it() -> None:
    theirs = claim(id="r0", controller="desk:/records")
    assert claimed(theirs, claim(), False) == (None, theirs)
    assert "rolling_restart r0 by anna@laptop on desk since 2027-01-15T07:00:00Z" in theirs.said
    given, refused = claimed(theirs, claim(), True)
    assert (given, refused) == (claim(), None)
    assert claimed(dataclasses.replace(theirs, held=False), claim(), False)[1] is None


def test_the_same_controller_walks_one_rollout_at_a_time() -> None:
    assert claimed(claim(id="r0"), claim(), False)[1] is None


def test_a_resumed_rollout_keeps_its_start_targets_and_progress() -> None:
    before = claim(held=False, since="then", targets={"vllm-0": "old"}, done={"vllm-1": "t"}, seconds={"vllm-1": 3.0})
    given, _refused = claimed(before, claim(targets={"vllm-0": "new", "vllm-2": "x"}), False)
    assert given is not None
    assert given.held
    assert (given.since, given.done) == ("then", {"vllm-1": "t"})
    assert given.targets == {"vllm-0": "old", "vllm-2": "x"}


def test_another_rollout_keeps_only_how_long_it_took() -> None:
    before = claim(id="r0", done={"vllm-0": "t"}, seconds={"vllm-0": 41.0})
    given, _refused = claimed(before, claim(), False)
    assert given is not None
    assert (given.done, given.seconds) == ({}, {"vllm-0": 41.0})


def test_done_notes_time_and_duration() -> None:
    after = with_done(claim(), "vllm-0", "now", 41.26)
    assert (after.done, after.seconds) == ({"vllm-0": "now"}, {"vllm-0": 41.3})


def test_a_file_of_a_later_version_is_read_and_rubbish_is_not() -> None:
    assert parse(None) is None
    assert parse({**dataclasses.asdict(claim()), "more": 1}) == claim()
    broken: list[t.Any] = [[], "x", {"id": "r1"}]
    for rubbish in broken:
        with pytest.raises(FleetError, match="does not say which rollout"):
            parse(rubbish)


def test_two_controllers_do_not_go_on_with_one_rollout() -> None:
    theirs = claim(controller="desk:/records", done={"vllm-0": "t"})
    assert claimed(theirs, claim(), False) == (None, theirs)
    given, refused = claimed(theirs, claim(), True)
    assert refused is None
    assert given is not None
    assert (given.controller, given.done) == ("laptop:/records", {"vllm-0": "t"})


def test_a_measurement_does_not_change_how_long_a_change_took() -> None:
    before = claim(verb="benchmark", seconds={"vllm-0": 41.0})
    after = with_done(before, "vllm-0", "t", 0)
    assert (after.done, after.seconds) == ({"vllm-0": "t"}, {"vllm-0": 41.0})
