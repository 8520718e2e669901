from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys import clients, view
from ansible_collections.inference.fleet.plugins.module_utils.keys import rotation as key_rotation
from ansible_collections.inference.fleet.plugins.module_utils.keys.holder import RotationHolder
from ansible_collections.inference.fleet.plugins.module_utils.keys.rotation import RotationRequest, RotationStep
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import (
    RETIRED_OF_REMOVED,
    RETIRED_PER_CLIENT,
    Content,
    RetiredKey,
)

from tests.unit.plugins.module_utils.keys.key_stores import (
    ELSEWHERE,
    GONE,
    ME,
    NOW,
    client,
    content,
    later,
    request,
    slots,
)

DAY = 86400
StepOf = t.Callable[[Content, RotationRequest], RotationStep]


def hashes(whole: Content) -> dict[tuple[str, str], str]:
    return {(item["name"], item["slot"]): item["sha256"] for item in view.hashes(whole)}


def rotating(*names: str, **more: t.Any) -> Content:
    return key_rotation.pending(content(*names), request(*names, rotation_id="r1", **more)).after


def overlapping(*names: str, overlap: int = DAY) -> Content:
    return key_rotation.finished(rotating(*names), request(overlap=overlap)).after


def done(whole: Content) -> Content:
    return key_rotation.completed(whole, request()).after


def test_a_pending_key_is_beside_the_current_one() -> None:
    before = content("a", "b")
    step = key_rotation.pending(before, request("a"))
    assert step.names == ["a"]
    assert step.after.clients["b"] == before.clients["b"]
    assert step.after.clients["a"].current == before.clients["a"].current
    assert sorted(hashes(step.after)) == [("a", "current"), ("a", "pending"), ("b", "current")]
    rotation = step.after.rotation
    assert rotation
    assert (rotation.step, rotation.clients, rotation.holder, rotation.started) == ("pending", ("a",), ME, NOW)


def test_repeated_it_is_the_same_step_and_the_same_key() -> None:
    once = key_rotation.pending(content("a"), request("a"))
    assert key_rotation.pending(once.after, request("a", now=later(60))) == once
    assert once.after.rotation
    assert key_rotation.pending(once.after, request("a", rotation_id=once.after.rotation.id)) == once


def test_a_run_that_was_cut_off_is_continued_with_the_keys_that_it_made() -> None:
    cut = key_rotation.pending(content("a", "b", "c"), request("a", "b", me=GONE)).after
    # It reached a, but not b.
    cut = cut.with_clients({"b": dataclasses.replace(cut.clients["b"], pending=None)})
    step = key_rotation.pending(cut, request(max_age=DAY, now=later(100)))
    assert step.names == ["a", "b"]
    assert step.after.clients["a"] == cut.clients["a"]
    assert step.after.clients["b"].pending
    assert step.after.clients["c"].pending is None
    assert step.after.rotation
    assert cut.rotation
    assert (step.after.rotation.holder, step.after.rotation.resumed) == (ME, later(100))
    assert (step.after.rotation.id, step.after.rotation.started) == (cut.rotation.id, NOW)


def test_the_same_rotation_makes_the_same_ids() -> None:
    keys = [key_rotation.pending(content("a"), request("a", rotation_id="r")).after.clients["a"].pending for _ in "12"]
    assert keys[0]
    assert keys[1]
    assert keys[0].id == keys[1].id
    assert keys[0].key != keys[1].key
    # As Secrets Manager requires of a ClientRequestToken.
    assert 32 <= len(keys[0].id) <= 64


def test_due_is_who_has_an_old_key() -> None:
    whole = Content(
        {"old": client(later(-31 * DAY)), "new": client(later(-29 * DAY)), "exact": client(later(-30 * DAY))}
    )
    assert key_rotation.pending(whole, request(max_age=30 * DAY)).names == ["exact", "old"]
    assert key_rotation.pending(whole, request("new", "old", max_age=30 * DAY)).names == ["old"]
    assert key_rotation.pending(whole, request("new")).names == ["new"]
    assert key_rotation.pending(whole, request(max_age=0)).names == ["exact", "new", "old"]


def test_who_expired_is_not_due() -> None:
    whole = Content({"a": client(later(-99 * DAY), expires=NOW), "b": client(later(-99 * DAY), expires=later(1))})
    assert key_rotation.pending(whole, request(max_age=DAY)).names == ["b"]


def test_no_client_due_begins_no_rotation() -> None:
    whole = content("a")
    assert key_rotation.pending(whole, request(max_age=DAY)) == RotationStep(whole, [])


def test_a_rotation_needs_clients_or_a_maximum_age() -> None:
    with pytest.raises(FleetError, match="give clients, max_age, or both"):
        key_rotation.pending(content("a"), request())


@pytest.mark.parametrize("step", [key_rotation.pending, key_rotation.retired])
def test_an_unknown_client_is_named_with_those_there_are(step: StepOf) -> None:
    with pytest.raises(FleetError, match=r"no client z\. It has: a, b\. .*playbooks/keys\.yml"):
        step(content("a", "b"), request("a", "z"))


def test_finished_changes_the_keys_places() -> None:
    before = rotating("a")
    after = key_rotation.finished(before, request(overlap=DAY, now=later(90))).after
    was, now = slots(before.clients["a"]), slots(after.clients["a"])
    assert sorted(now) == ["current", "previous"]
    assert now["current"].key == was["pending"].key
    assert now["current"].activated == later(90)
    assert now["previous"].key == was["current"].key
    assert now["previous"].retire_at == later(90 + DAY)
    assert now["previous"].retired == ""
    assert sorted(hashes(after)) == [("a", "current"), ("a", "previous")]
    assert after.retired() == []


def test_finished_again_neither_changes_nor_prolongs_anything() -> None:
    after = overlapping("a")
    assert key_rotation.finished(after, request(overlap=3 * DAY, now=later(500))).after == after
    # The run after a crash begins with pending.
    assert key_rotation.pending(after, request("a")).after == after


@pytest.mark.parametrize("how", [{"overlap": 0}, {"compromised": True}, {"compromised": True, "overlap": 0}])
def test_without_an_overlap_the_old_key_is_dead_at_once_but_can_be_proven_so(how: dict[str, t.Any]) -> None:
    before = rotating("a")
    after = key_rotation.finished(before, request(**how)).after
    assert sorted(hashes(after)) == [("a", "current")]
    dead = after.retired()
    assert [key.sha256 for key in dead] == [before.clients["a"].current.sha256]
    assert (dead[0].compromised, dead[0].proven, dead[0].retired) == (how.get("compromised", False), False, NOW)
    assert slots(after.clients["a"])["previous"].key == before.clients["a"].current.key
    assert [key["revealable"] for key in view.retired(after)] == [True]
    over = done(after)
    assert sorted(slots(over.clients["a"])) == ["current"]
    assert [(key["proven"], key["revealable"]) for key in view.retired(over)] == [(True, False)]
    assert over.rotation is None


def test_a_finish_that_was_cut_off_goes_on_with_the_rest() -> None:
    whole = rotating("a", "b")
    half = key_rotation.finished(whole, request(overlap=DAY)).after
    cut = dataclasses.replace(half, clients={**half.clients, "b": whole.clients["b"]})
    assert key_rotation.finished(cut, request(overlap=DAY)).after == half


def test_finished_requires_an_overlap_unless_keys_are_compromised() -> None:
    with pytest.raises(FleetError, match="give overlap"):
        key_rotation.finished(rotating("a"), request())
    with pytest.raises(FleetError, match="leave out overlap"):
        key_rotation.finished(rotating("a"), request(compromised=True, overlap=DAY))


@pytest.mark.parametrize(
    ("overlap", "elapsed", "message"),
    [(59, 0, "overlap of 59s .* needs 1m"), (600, 1200, "overlap of 10m .* needs 20m")],
)
def test_an_overlap_that_ends_before_the_rotation_is_refused(overlap: int, elapsed: int, message: str) -> None:
    with pytest.raises(FleetError, match=message):
        key_rotation.finished(rotating("a"), request(overlap=overlap, now=later(elapsed)))


def test_an_overlap_counts_from_when_the_run_was_continued() -> None:
    cut = rotating("a", me=GONE)
    continued = key_rotation.pending(cut, request(now=later(DAY), max_age=0)).after
    assert key_rotation.finished(continued, request(overlap=3600, now=later(DAY + 60))).after.rotation


def test_a_wrong_overlap_is_refused_before_anything_is_done() -> None:
    with pytest.raises(FleetError, match="would end before the rotation could finish"):
        key_rotation.pending(content("a"), request("a", overlap=5))


def test_finished_without_a_rotation_is_an_error() -> None:
    with pytest.raises(FleetError, match=r"no rotation in progress\. Begin one with state pending"):
        key_rotation.finished(content("a"), request(overlap=0))
    with pytest.raises(FleetError, match="no rotation r7 in progress"):
        key_rotation.finished(content("a"), request(overlap=0, rotation_id="r7"))


def test_finished_without_a_pending_key_is_an_error() -> None:
    whole = rotating("a", "b")
    whole = whole.with_clients({"b": dataclasses.replace(whole.clients["b"], pending=None)})
    with pytest.raises(FleetError, match="Client b has no pending key of rotation r1, so nothing was finished"):
        key_rotation.finished(whole, request(overlap=0))


def test_withdrawn_takes_the_pending_key_back_and_leaves_the_current_one() -> None:
    before = content("a", "b")
    pending = key_rotation.pending(before, request("a")).after
    step = key_rotation.withdrawn(pending, request())
    assert step.names == ["a"]
    assert hashes(step.after) == hashes(before)
    # The edges have seen it.
    assert [(key.sha256, key.activated) for key in step.after.retired()] == [(hashes(pending)["a", "pending"], "")]
    assert key_rotation.withdrawn(step.after, request()).after == step.after
    over = done(step.after)
    assert over.rotation is None
    assert hashes(over) == hashes(before)


def test_there_may_be_nothing_to_withdraw() -> None:
    for whole in (content("a"), overlapping("a"), done(overlapping("a"))):
        assert key_rotation.withdrawn(whole, request()).after == whole


def test_a_rotation_that_was_withdrawn_cannot_finish_and_gives_its_name_to_no_other() -> None:
    whole = key_rotation.withdrawn(rotating("a"), request()).after
    with pytest.raises(FleetError, match="r1 cannot finish: its pending keys were taken back"):
        key_rotation.finished(whole, request(overlap=0))
    for state in (whole, done(whole)):
        with pytest.raises(FleetError, match=r"r1 was taken back\. Give another rotation_id"):
            key_rotation.pending(state, request("a", rotation_id="r1"))
        again = key_rotation.pending(state, request("a", rotation_id="r2")).after
        assert again.rotation
        assert (again.rotation.id, again.rotation.step) == ("r2", "pending")
        assert [one.id for one in again.ended] == ["r1"]
    assert key_rotation.withdrawn(done(whole), request(rotation_id="r1")).after == done(whole)
    assert key_rotation.completed(done(whole), request(rotation_id="r1")).after == done(whole)


def test_a_rotation_that_is_over_is_not_begun_again() -> None:
    over = done(overlapping("a"))
    for step in (key_rotation.pending, key_rotation.finished, key_rotation.completed, key_rotation.withdrawn):
        assert step(over, request("a", rotation_id="r1", overlap=DAY)) == RotationStep(over, [])
    assert [(one.id, one.step) for one in over.ended] == [("r1", "finished")]


def test_only_so_many_rotations_are_remembered() -> None:
    whole = content("a")
    for number in range(30):
        whole = key_rotation.pending(whole, request("a", rotation_id=f"r{number}")).after
        whole = done(key_rotation.finished(whole, request(overlap=0)).after)
    assert [one.id for one in whole.ended] == [f"r{number}" for number in range(10, 30)]
    assert len(whole.clients["a"].retired) == RETIRED_PER_CLIENT


def test_keys_retire_when_their_overlap_is_over() -> None:
    whole = done(overlapping("a", "b"))
    assert key_rotation.retired(whole, request(now=later(DAY - 1))).after == whole
    step = key_rotation.retired(whole, request(now=later(DAY)))
    assert step.names == ["a", "b"]
    assert sorted(hashes(step.after)) == [("a", "current"), ("b", "current")]
    assert step.after.rotation
    assert step.after.rotation.step == "retired"
    assert key_rotation.retired(step.after, request(now=later(2 * DAY))).after == step.after
    over = done(step.after)
    assert all(key.proven for key in over.retired())
    assert over.rotation is None


def test_only_the_given_clients_keys_retire() -> None:
    whole = done(overlapping("a", "b"))
    assert key_rotation.retired(whole, request("a", now=later(DAY))).after.clients["b"] == whole.clients["b"]


@pytest.mark.parametrize("compromised", [False, True])
def test_a_key_can_be_retired_before_its_overlap_is_over(compromised: bool) -> None:
    whole = done(overlapping("a", "b"))
    how: dict[str, t.Any] = {"compromised" if compromised else "force": True}
    with pytest.raises(FleetError, match="give the clients"):
        key_rotation.retired(whole, request(**how))
    step = key_rotation.retired(whole, request("a", **how))
    assert sorted(hashes(step.after)) == [("a", "current"), ("b", "current"), ("b", "previous")]
    assert [key.compromised for key in step.after.retired()] == [compromised]


def test_a_run_that_first_retires_and_then_rotates_is_one_rotation() -> None:
    whole = done(overlapping("a"))
    now = later(DAY)
    whole = key_rotation.retired(whole, request(now=now)).after
    assert whole.rotation
    begun = whole.rotation.id
    whole = key_rotation.pending(whole, request("a", now=now)).after
    assert whole.rotation
    assert (whole.rotation.id, whole.rotation.step) == (begun, "pending")
    # The dead one is still there to be proven so; of the live ones there are two.
    assert sorted(slots(whole.clients["a"])) == ["current", "pending", "previous"]
    assert sorted(hashes(whole)) == [("a", "current"), ("a", "pending")]
    whole = key_rotation.finished(whole, request(now=now, overlap=DAY)).after
    assert len(whole.clients["a"].retired) == 1
    assert not whole.clients["a"].retired[0].proven


def test_a_client_whose_former_key_is_live_does_not_get_a_third_one() -> None:
    whole = done(overlapping("a"))
    with pytest.raises(FleetError, match=f"the end of its overlap is {later(DAY)}.*retire that one first"):
        key_rotation.pending(whole, request("a"))
    with pytest.raises(FleetError, match="its overlap ended at"):
        key_rotation.pending(whole, request("a", now=later(DAY)))
    assert key_rotation.pending(whole, request(max_age=DAY)).after == whole


def test_completed_does_not_end_what_is_pending() -> None:
    with pytest.raises(FleetError, match=r"r1 is not finished.*state finished.*state withdrawn"):
        key_rotation.completed(rotating("a"), request())


def test_completed_where_there_is_nothing_changes_nothing() -> None:
    whole = content("a")
    assert key_rotation.completed(whole, request()) == RotationStep(whole, [])


@pytest.mark.parametrize(
    ("step", "more"),
    [
        (key_rotation.pending, {"max_age": 0}),
        (key_rotation.finished, {"overlap": 0}),
        (key_rotation.withdrawn, {}),
        (key_rotation.completed, {}),
    ],
)
def test_a_second_run_is_refused_with_the_owner_and_start_of_the_first(
    step: StepOf, more: dict[str, t.Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = key_rotation.pending(content("a"), request("a", rotation_id="r1", me=ELSEWHERE)).after
    if step is key_rotation.completed:
        whole = key_rotation.finished(whole, request(overlap=0, me=ELSEWHERE)).after
    said = rf"Rotation r1 of a is in progress .*begun by eve on elsewhere, process 100 at {NOW}\."
    with pytest.raises(FleetError, match=rf"{said} Whether it still runs cannot be seen.*key_take_over=true"):
        step(whole, request(**more))
    after = step(whole, request(take_over=True, **more)).after
    assert after.rotation is None or after.rotation.holder == ME
    alive = dataclasses.replace(ELSEWHERE, boot=ME.boot, pid_namespace=ME.pid_namespace)
    monkeypatch.setattr(
        "ansible_collections.inference.fleet.plugins.module_utils.keys.holder.start_ticks", lambda pid: 1
    )
    assert whole.rotation
    held = dataclasses.replace(whole, rotation=dataclasses.replace(whole.rotation, holder=alive))
    with pytest.raises(FleetError, match=rf"{said} That process is at work\. .*end process 100"):
        step(held, request(take_over=True, **more))


def test_a_second_run_retires_nothing_meanwhile() -> None:
    whole = done(overlapping("a"))
    whole = key_rotation.pending(whole.with_clients({"b": client()}), request("b", me=ELSEWHERE)).after
    assert key_rotation.retired(whole, request()).after == whole
    with pytest.raises(FleetError, match="begun by eve"):
        key_rotation.retired(whole, request(now=later(DAY)))


def test_another_rotation_of_ones_own_has_to_be_ended_first() -> None:
    whole = rotating("a", "b")
    with pytest.raises(FleetError, match=r"r1 of a, b is in progress.* not of c\. .*-e client=a,b"):
        key_rotation.pending(whole.with_clients({"c": client()}), request("c"))
    assert key_rotation.pending(whole, request("b")).after == whole
    for step in (key_rotation.pending, key_rotation.finished, key_rotation.withdrawn):
        with pytest.raises(FleetError, match=r"r1 of a, b is in progress.*not rotation r2\. Leave out rotation_id"):
            step(whole, request("a", rotation_id="r2", overlap=DAY))


def test_without_proc_the_rotations_name_says_whose_it_is() -> None:
    here = RotationHolder("ops", "laptop", 7)
    whole = rotating("a", me=here)
    other = dataclasses.replace(here, pid=8)
    assert key_rotation.finished(whole, request(me=other, rotation_id="r1", overlap=DAY)).after.clients["a"].previous
    with pytest.raises(FleetError, match="key_take_over"):
        key_rotation.finished(whole, request(me=other, overlap=DAY))


def test_a_client_that_is_removed_leaves_the_rotation() -> None:
    whole = rotating("a", "b")
    pending = whole.clients["a"].pending
    whole = clients.absent(whole, ["a"], NOW)
    assert pending
    assert pending.sha256 in {key.sha256 for key in whole.retired()}
    step = key_rotation.finished(whole, request(overlap=DAY))
    assert step.names == ["b"]
    assert done(step.after).rotation is None


def test_present_keeps_keys_and_takes_attributes_as_they_are_given() -> None:
    whole = content("a", "b")
    limited = Limits({"models": ("m",), "requests_per_minute": 60, "max_concurrent": 4})
    after = clients.present(whole, {"a": limited, "c": Limits()}, False, NOW)
    assert after.clients["a"].current == whole.clients["a"].current
    assert after.clients["a"].limits == limited
    assert sorted(after.clients) == ["a", "b", "c"]
    assert clients.present(after, {"a": Limits()}, True, NOW).clients == {"a": whole.clients["a"]}


def test_what_is_removed_is_remembered_as_dead_until_it_comes_back() -> None:
    whole = overlapping("a")
    after = clients.absent(whole, ["a", "never-was"], NOW)
    assert {key.sha256 for key in after.retired()} == set(hashes(whole).values())
    assert hashes(after) == {}
    # Secrets Manager can restore a secret.
    assert after.with_clients({"a": whole.clients["a"]}).retired() == []
    many = content(*(f"c{number}" for number in range(RETIRED_OF_REMOVED + 5)))
    assert len(clients.absent(many, many.clients, NOW).removed) == RETIRED_OF_REMOVED


def test_what_died_long_ago_is_forgotten() -> None:
    old = RetiredKey("a", "0" * 64, later(-900 * DAY), later(-401 * DAY))
    young = RetiredKey("a", "1" * 64, later(-900 * DAY), later(-399 * DAY))
    whole = Content({"a": dataclasses.replace(client(), retired=(old, young))})
    whole = key_rotation.pending(whole, request("a")).after
    whole = done(key_rotation.finished(whole, request(overlap=0)).after)
    assert [key.sha256[0] for key in whole.clients["a"].retired[:1]] == ["1"]
    assert len(whole.clients["a"].retired) == 2


@pytest.mark.parametrize("given", ["", "-r", "a b", "x" * 65, "a/b", "sk-SECRET"])
def test_what_is_no_name_of_a_rotation(given: str) -> None:
    with pytest.raises(FleetError, match="rotation_id is") as caught:
        key_rotation.check_id(given)
    assert "SECRET" not in caught.value.message


def test_actions_say_what_happened() -> None:
    before = dataclasses.replace(content("a"), id="0" * 32)
    pending = key_rotation.pending(before, request("a", rotation_id="r1")).after
    finished = key_rotation.finished(pending, request(overlap=DAY)).after
    dead = key_rotation.retired(finished, request("a", force=True)).after
    over = key_rotation.completed(dead, request()).after
    old, new = (slots(pending.clients["a"])[slot].fingerprint for slot in ("current", "pending"))

    def actions(left: Content, right: Content) -> list[str]:
        return view.actions(left, right, "the key store")

    assert actions(Content(exists=False), before) == ["make the key store", f"add a {old}"]
    assert actions(before, pending) == ["begin rotation r1", f"make pending a {new}"]
    assert actions(pending, finished) == [
        "bring rotation r1 to step finished",
        f"finish a {new}",
        f"keep a {old} until {later(DAY)}",
    ]
    assert actions(finished, dead) == [f"retire a {old}"]
    assert actions(dead, over) == [f"forget a {old}", "end rotation r1"]
    withdrawn = key_rotation.withdrawn(pending, request()).after
    assert actions(pending, withdrawn) == ["bring rotation r1 to step withdrawn", f"withdraw a {new}"]
    taken = key_rotation.pending(pending, request("a", me=ELSEWHERE, take_over=True)).after
    assert actions(pending, taken) == ["continue rotation r1, which ops on here, process 100 left"]
    limited = clients.present(before, {"a": Limits({"requests_per_minute": 1})}, False, NOW)
    assert actions(before, limited) == ["change requests_per_minute of a"]
    assert actions(pending, clients.absent(pending, ["a"], NOW)) == [f"remove a {old}", f"remove a {new}"]
