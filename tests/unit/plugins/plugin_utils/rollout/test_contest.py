"""Two controllers on one fleet, interleaved at each of their steps: never are both of its hosts out."""

from __future__ import annotations

import dataclasses
import itertools
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.rollout.claim import Claim, claimed
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import contest
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.walk import FleetState, WalkPolicy, next_turn

from tests.unit.plugins.plugin_utils.rollout.rollouts import begin, claim, self_tested, status

Steps = t.Generator[None, None, str]
#: Enough for a wait that ends, and for one that does not.
ASKING, WALKING = 2, 4


class Hosts:
    """The hosts of a tier: their claims, and the drained ones. Two at once are an outage."""

    def __init__(self, *names: str) -> None:
        self.claims: dict[str, Claim | None] = dict.fromkeys(names)
        self.out: set[str] = set()

    def look(self, unreachable: t.Collection[str] = ()) -> dict[str, dict[str, t.Any] | None]:
        return {
            host: None
            if host in unreachable
            else {
                **status(0, health=503 if host in self.out else 200),
                "rollout": dataclasses.asdict(one) if one else one,
            }
            for host, one in self.claims.items()
        }

    def take_out(self, host: str) -> None:
        self.out.add(host)
        assert len(self.out) < len(self.claims), "every host is out"


def claims_in(seen: t.Mapping[str, dict[str, t.Any] | None]) -> dict[str, Claim | None]:
    return {host: Claim(**one["rollout"]) if one and one["rollout"] else None for host, one in seen.items()}


def controller(hosts: Hosts, mine: list[str], own: Claim, unreachable: t.Collection[str] = ()) -> Steps:
    """A run, as in roles/rollout/tasks; each ``yield`` is where the other one may interleave."""

    def let_go() -> None:
        for host in mine:
            before = hosts.claims[host]
            if before and before.controller == own.controller:
                hosts.claims[host] = dataclasses.replace(before, held=False)

    seen = hosts.look(unreachable)
    yield
    if contest.others(claims_in(seen), own.controller):
        return "refused"
    for host in mine:
        given, against = claimed(hosts.claims[host], own, False)
        yield
        if against:
            let_go()
            return "refused"
        hosts.claims[host] = given
        yield
    for look in range(ASKING + 1):
        seen = hosts.look(unreachable)
        yield
        others = contest.others(claims_in(seen), own.controller)
        if not others:
            break
        if look == ASKING or contest.gives_way(claims_in(seen), own.controller, others):
            let_go()
            return "refused"
    events = [begin(*([host] for host in mine)), self_tested()]
    while True:
        for _look in range(WALKING + 1):
            seen = hosts.look(unreachable)
            yield
            others = contest.others(claims_in(seen), own.controller)
            if not others:
                break
        turn = next_turn(events, FleetState(seen, set(), mine, others), WalkPolicy())
        if turn.stop or turn.finished:
            let_go()
            return turn.stop or "done"
        for host in turn.hosts:
            hosts.take_out(host)
            yield
            yield
            hosts.out.remove(host)
            events.append({"event": "outcome", "host": host, "outcome": "done", "message": ""})
            yield


def run(schedule: t.Iterable[int], *programs: Steps) -> list[str]:
    """Let each program in the schedule take a step, then the rest in turn to their ends."""
    ends = [""] * len(programs)
    for number in itertools.chain(schedule, itertools.cycle(range(len(programs)))):
        if all(ends):
            return ends
        if not ends[number]:
            try:
                next(programs[number])
            except StopIteration as end:
                ends[number] = end.value
    return ends


ANN = claim(id="r-ann", controller="ann:/r", since="2027-01-15T07:00:00Z")
BEN = claim(id="r-ben", controller="ben:/r", since="2027-01-15T07:00:05Z")
# Both resume the rollout that a third one left.
SAME = claim(id="r-ann", controller="ben:/r", since="2027-01-15T07:00:00Z")


@pytest.mark.parametrize("second", [BEN, SAME], ids=["another", "the same rollout"])
@pytest.mark.parametrize(("ann", "ben"), [(["gpu-1"], ["gpu-2"]), (["gpu-1", "gpu-2"], ["gpu-2"])])
@pytest.mark.parametrize("first", [0, 1])
def test_never_are_all_hosts_out(second: Claim, ann: list[str], ben: list[str], first: int) -> None:
    ends = set()
    # One begins, the other one interleaves after each of its steps, and yields to the first after each of its own.
    for before, between, after in itertools.product(range(0, 18), range(0, 16), (0, 1, 3, 40)):
        hosts = Hosts("gpu-1", "gpu-2")
        schedule = [first] * before + [1 - first] * between + [first] * after + [1 - first] * 40
        ends.add(tuple(run(schedule, controller(hosts, ann, ANN), controller(hosts, ben, second))))
        assert not hosts.out
        assert not any(one and one.held for one in hosts.claims.values())
    # Sequentially both finish.
    assert {("done", "done"), ("done", "refused"), ("refused", "done")} <= ends


def test_of_two_that_ask_at_once_the_one_that_began_first_walks() -> None:
    hosts = Hosts("gpu-1", "gpu-2")
    programs = controller(hosts, ["gpu-1"], ANN), controller(hosts, ["gpu-2"], BEN)
    assert run([0, 1] * 40, *programs) == ["done", "refused"]


def test_one_that_walks_does_not_give_way_to_an_earlier_one_that_asks() -> None:
    hosts = Hosts("gpu-1", "gpu-2", "gpu-3")
    # Ann has looked before Ben claimed; Ben walks by the time that she claims.
    programs = controller(hosts, ["gpu-1"], ANN), controller(hosts, ["gpu-2", "gpu-3"], BEN)
    assert run([0] + [1] * 8 + [0, 1] * 80, *programs) == ["refused", "done"]


def test_a_host_that_does_not_answer_hides_its_claim_and_counts_as_out() -> None:
    for before in range(18):
        hosts = Hosts("gpu-1", "gpu-2")
        programs = controller(hosts, ["gpu-1"], ANN), controller(hosts, ["gpu-2"], BEN, unreachable=["gpu-1"])
        ann, ben = run([0] * before + [1] * 40, *programs)
        # Without the other host nothing would serve, so its own never goes out.
        assert ben == "refused" or "without vllm-0 of gpu-2 the rest works on 0" in ben or "Another rollout" in ben
        assert ann == "done" or "Another rollout holds gpu-2" in ann or ann == "refused"


def test_only_living_claims_of_other_controllers_count() -> None:
    claims = {
        "own": ANN,
        "left": dataclasses.replace(BEN, held=False),
        "dead": dataclasses.replace(BEN, id="r-dead"),
        "alive": BEN,
        "free": None,
    }
    assert contest.others(claims, "ann:/r", {("r-dead", "ben:/r")}) == {"alive": BEN}
    assert contest.refusal({"gpu-2": BEN, "gpu-1": BEN}) == (
        "Another rollout holds gpu-1, gpu-2: rolling_restart r-ben by anna@laptop on ben since 2027-01-15T07:00:05Z."
    )
    assert contest.refusal({}) == ""


def test_a_rollout_that_lost_its_claims_gives_way() -> None:
    assert contest.gives_way({"gpu-1": BEN}, "ann:/r", {"gpu-1": BEN})


def test_a_drain_by_hand_leaves_no_host_to_a_rollout() -> None:
    hosts = Hosts("gpu-1", "gpu-2", "gpu-3")
    assert contest.against_a_drain(hosts.look(), ["gpu-1", "gpu-2", "gpu-3"]) == {}
    hosts.claims["gpu-1"] = ANN
    assert contest.against_a_drain(hosts.look(), ["gpu-2"]) == {}
    assert contest.against_a_drain(hosts.look(), ["gpu-2", "gpu-3"]) == {"gpu-1": ANN}
    assert contest.against_a_drain(hosts.look(unreachable=["gpu-3"]), ["gpu-2"]) == {"gpu-1": ANN}
    # The rollout has drained it already.
    hosts.out.add("gpu-1")
    assert contest.against_a_drain(hosts.look(), ["gpu-2", "gpu-3"]) == {"gpu-1": ANN}
    # A host that does not serve takes no capacity away.
    assert contest.against_a_drain(hosts.look(), ["gpu-1"]) == {}
    hosts.claims["gpu-1"] = dataclasses.replace(ANN, held=False)
    assert contest.against_a_drain(hosts.look(), ["gpu-2", "gpu-3"]) == {}
