from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import GroupTarget, Membership
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import BalancerLook, TargetHealth
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.alarms import AlarmVerdict
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.walk import (
    FleetState,
    Turn,
    WalkPolicy,
    next_turn,
    untouched,
    wave_hosts,
    wave_to_bake,
)

from tests.unit.plugins.plugin_utils.balancer.fleet import group
from tests.unit.plugins.plugin_utils.rollout.rollouts import begin, done, self_tested, status

Events = list[dict[str, t.Any]]


def walk(
    events: Events, fleet: dict[str, dict[str, t.Any] | None], lost: t.Collection[str] = (), **policy: t.Any
) -> Turn:
    return next_turn(events, FleetState(fleet, lost, list(fleet)), WalkPolicy(**policy))


def well(hosts: str, busy: int = 0) -> dict[str, dict[str, t.Any] | None]:
    return {host: status(busy) for host in hosts}


def turn_of(wave: int, *hosts: str) -> dict[str, t.Any]:
    return {"event": "turn", "wave": wave, "waves": 2, "hosts": list(hosts)}


def outcome(host: str, kind: str, message: str = "") -> dict[str, t.Any]:
    return {"event": "outcome", "host": host, "outcome": kind, "message": message or f"{host} went wrong."}


def decisions(turn: Turn) -> list[str]:
    return [fields["text"] for event, fields in turn.news if event == "decision"]


def test_wave_after_wave_to_the_end() -> None:
    events: Events = [begin(["a"], ["b", "c"]), self_tested()]
    first = walk(events, well("abc"))
    assert (first.wave, first.waves, first.hosts, first.finished) == (1, 2, ["a"], False)
    assert first.news[-1][0] == "turn"
    assert first.load == {"running": 0, "waiting": 0, "limit": 30, "left": 20}
    second = walk([*events, done("a")], well("abc"))
    assert (second.wave, second.hosts) == (2, ["b", "c"])
    last = walk([*events, done("a"), done("b"), done("c")], well("abc"))
    assert last.finished
    assert (last.hosts, last.stop) == ([], "")


def test_the_gate_shows_that_it_can_fail_before_a_host_is_touched() -> None:
    turn = walk([begin(["a"])], well("ab"))
    assert (turn.self_test, turn.hosts) == ("a", ["a"])
    assert walk([begin(["a"]), self_tested()], well("ab")).self_test == ""


def test_of_a_bare_fleet_the_first_that_serves_shows_it() -> None:
    bare: dict[str, dict[str, t.Any] | None] = {"a": status(0, health=503), "b": status(0, health=503)}
    assert walk([begin(["a"], ["b"])], bare).self_test == ""
    now = walk([begin(["a"], ["b"]), done("a")], {**bare, "a": status(0)})
    assert (now.self_test, now.hosts) == ("a", ["b"])
    # A single host shows it after its installation.
    alone = walk([begin(["a"]), done("a")], {"a": status(0)})
    assert (alone.self_test, alone.finished) == ("a", False)


def test_a_failed_host_stops_it_and_the_rest_is_named() -> None:
    events = [begin(["a"], ["b", "c"]), self_tested(), outcome("a", "rolled_back", "a: the gate failed.")]
    turn = walk(events, well("abc"))
    assert "1 of its hosts failed: a: the gate failed. Not touched: b, c." in turn.stop
    assert "run the same command again" in turn.stop
    assert turn.hosts == []


def test_as_many_may_fail_as_are_allowed_and_no_more() -> None:
    events = [begin(["a"], ["b"], ["c"]), self_tested(), outcome("a", "rolled_back")]
    assert walk(events, well("abc"), max_failures=1).hosts == ["b"]
    turn = walk([*events, outcome("b", "drained")], well("abc"), max_failures=1)
    assert "2 of its hosts failed (1 allowed)" in turn.stop


def test_a_host_that_does_not_answer_counts_wherever_it_stood() -> None:
    step = {"event": "step", "host": "a", "instance": "vllm-0", "step": "start", "attempt": 1}
    turn = walk([begin(["a"], ["b"]), self_tested(), step], {"a": None, "b": status(0)})
    assert "a does not answer any more in its step start." in turn.stop
    assert turn.news[0][1]["outcome"] == "unreachable"
    lost = walk([begin(["b"]), self_tested()], well("ab"), lost=["a"])
    assert "a does not answer any more." in lost.stop


def test_a_host_that_was_done_and_went_away_is_reported_once() -> None:
    events = [begin(["a"], ["b"]), self_tested(), done("a")]
    turn = walk(events, {"a": None, "b": status(0)}, max_failures=1)
    assert turn.news[0] == (
        "outcome",
        {"host": "a", "outcome": "unreachable", "message": turn.news[0][1]["message"]},
    )
    again = walk([*events, {"event": "outcome", **turn.news[0][1]}], {"a": None, "b": status(0)}, max_failures=1)
    assert [event for event, _fields in again.news if event == "outcome"] == []


def test_a_host_that_came_through_has_to_serve_on() -> None:
    events = [begin(["a"], ["b"]), self_tested(), done("a")]
    turn = walk(events, {"a": status(0, health=503), "b": status(0)})
    assert "a came through its gate and serves no longer" in turn.stop
    drained = status(0, health=503, drain={"by": "operator", "state": "drained"})
    assert walk(events, {"a": drained, "b": status(0)}, accept_downtime=True).hosts == ["b"]


def test_too_much_load_is_refused_with_the_numbers() -> None:
    events = [begin(["a", "b"]), self_tested()]
    turn = walk(events, well("abc", busy=5))
    assert turn.hosts == []
    assert "15 requests are in the fleet" in turn.stop
    assert "the rest works on 10 of 30 at once, of which rollout_max_load 0.9 lets 9 be used" in turn.stop
    assert "-e rollout_when_short=shrink" in turn.stop


def test_a_wave_shrinks_to_what_the_rest_can_do_without() -> None:
    events = [begin(["a", "b"]), self_tested()]
    turn = walk(events, well("abc", busy=5), when_short="shrink")
    assert turn.hosts == ["a"]
    assert decisions(turn) == ["1 of 2 hosts of wave 1 go first: the load lets no more be out."]
    assert turn.load["left"] == 20
    rest = walk([*events, done("a")], well("abc", busy=5), when_short="shrink")
    assert (rest.wave, rest.hosts) == (1, ["b"])
    none = walk(events, well("abc", busy=9), when_short="shrink")
    assert "27 requests" in none.stop


def test_hosts_that_go_together_are_not_parted_by_a_wave_that_shrinks() -> None:
    events = [begin(["a", "b", "c"]), self_tested()]
    events[0]["hosts"]["a"]["together"] = ["b"]
    events[0]["hosts"]["b"]["together"] = ["a"]
    statuses: dict[str, dict[str, t.Any] | None] = {
        "a": status(8, limit=30),
        "b": node_status(),
        "c": status(8),
        "d": status(0),
    }
    assert walk(events, statuses, when_short="shrink", max_load=0.5).hosts == ["c"]
    assert walk(events, {**statuses, "a": status(0), "c": status(0)}, when_short="shrink", max_load=0.5).hosts == [
        "a",
        "b",
        "c",
    ]


def test_a_host_to_which_no_requests_come_has_to_serve_none() -> None:
    events = [begin(["a", "b"], ["c"]), self_tested(), done("a"), done("b")]
    turn = walk(events, {"a": status(0), "b": node_status(), "c": status(0)})
    assert not turn.stop
    assert turn.hosts == ["c"]


def node_status() -> dict[str, t.Any]:
    """That of a host which computes for another one."""
    seen = status(0, health=503)
    seen["instances"][0].update(running=None, waiting=None, rank=1, nodes=["a", "b"])
    return seen


def test_force_goes_on_and_says_so() -> None:
    turn = walk([begin(["a", "b"]), self_tested()], well("abc", busy=9), when_short="force")
    assert turn.hosts == ["a", "b"]
    assert "27 requests" in decisions(turn)[0]


def test_downtime_that_was_accepted_is_noted() -> None:
    refused = walk([begin(["a"]), self_tested()], well("a"))
    assert "without vllm-0 of a the rest works on 0 of 10" in refused.stop
    turn = walk([begin(["a"]), self_tested()], well("a"), accept_downtime=True)
    assert turn.hosts == ["a"]
    assert "Downtime was accepted" in decisions(turn)[0]


def test_after_a_resume_only_that_run_counts() -> None:
    again = {**begin(["b"]), "event": "resume"}
    events = [begin(["a"], ["b"]), self_tested(), done("a"), outcome("b", "rolled_back"), again]
    turn = walk(events, well("ab"))
    assert (turn.hosts, turn.self_test) == (["b"], "a")


def test_a_wave_is_watched_once_it_has_ended() -> None:
    events: Events = [begin(["a"], ["b", "c"])]
    assert wave_to_bake(events) == 0
    events += [turn_of(1, "a"), done("a")]
    assert wave_to_bake(events) == 1
    events += [{"event": "pause", "wave": 1, "seconds": 5}]
    assert wave_to_bake(events) == 0
    events += [turn_of(2, "b"), done("b")]
    assert wave_to_bake(events) == 0
    events += [turn_of(2, "c"), done("c")]
    assert wave_to_bake(events) == 2


REFUSAL = AlarmVerdict("CloudWatch alarm x in us-east-1 is in ALARM.")


def test_an_alarm_stops_it_before_the_next_turn_and_the_same_command_goes_on() -> None:
    events = [begin(["a"], ["b", "c"]), self_tested(), done("a")]
    turn = next_turn(events, FleetState(well("abc"), [], list("abc"), alarms=REFUSAL), WalkPolicy())
    assert turn.stop == (
        "The rollout stops before wave 2 of 2 (b, c); nothing of it was touched, and the fleet keeps serving. "
        "CloudWatch alarm x in us-east-1 is in ALARM. The same command goes on from here."
    )
    assert turn.hosts == []
    assert next_turn(events, FleetState(well("abc"), [], list("abc")), WalkPolicy()).hosts == ["b", "c"]


def test_an_alarm_does_not_stop_a_rollout_that_has_changed_every_host() -> None:
    turn = next_turn(
        [begin(["a"]), self_tested(), done("a")], FleetState(well("ab"), [], ["a"], alarms=REFUSAL), WalkPolicy()
    )
    assert (turn.stop, turn.finished) == ("", True)


def test_a_failed_host_is_reported_before_an_alarm_that_it_may_have_raised() -> None:
    events = [begin(["a"], ["b"]), self_tested(), outcome("a", "rolled_back")]
    turn = next_turn(events, FleetState(well("ab"), [], ["a", "b"], alarms=REFUSAL), WalkPolicy())
    assert "1 of its hosts failed" in turn.stop


def test_a_note_on_an_alarm_is_written_once() -> None:
    fleet = FleetState(well("ab"), [], ["a", "b"], alarms=AlarmVerdict(notes=("x has no data.",)))
    events = [begin(["a"], ["b"]), self_tested()]
    assert decisions(next_turn(events, fleet, WalkPolicy())) == ["x has no data."]
    noted = [*events, {"event": "decision", "text": "x has no data."}]
    assert decisions(next_turn(noted, fleet, WalkPolicy())) == []
    warned = [{**begin(["a"], ["b"]), "warnings": ["x has no data."]}, self_tested()]
    assert decisions(next_turn(warned, fleet, WalkPolicy())) == []


def leaving(state: str = "drained", health: int = 503, notices: t.Sequence[str] = ("spot",)) -> dict[str, t.Any]:
    mark = {"state": state, "by": "aws", "reason": "spot, terminates 12:03:10 UTC", "since": "then"}
    out = state in ("lame_duck", "drained")
    aws: dict[str, t.Any] = {**mark, "notices": list(notices)}
    drain = {**(mark if out else {}), "marks": [mark] if out else [], "aws": aws}
    return status(0, health=health, drain=drain)


def test_a_host_that_aws_ends_is_left_out_and_the_others_go_on() -> None:
    events = [begin(["a"], ["b"]), self_tested()]
    turn = walk(events, {"a": leaving("lame_duck"), "b": status(0), "c": status(0)})
    assert (turn.wave, turn.hosts, turn.left_out, turn.stop) == (2, ["b"], ["a"], "")
    (said,) = decisions(turn)
    assert said.startswith("a is left out: AWS announces: spot, terminates 12:03:10 UTC; the host drains itself")
    # It has ended meanwhile, which is no failure of the rollout.
    events += [{"event": event, **fields} for event, fields in turn.news]
    last = walk([*events, done("b")], {"a": None, "b": status(0), "c": status(0)}, lost=["a"])
    assert (last.finished, last.left_out, last.stop) == (True, ["a"], "")
    assert decisions(last) == []


def test_a_host_that_was_done_may_end_when_aws_has_announced_it() -> None:
    events = [begin(["a"], ["b"]), self_tested(), done("a")]
    turn = walk(events, {"a": leaving(), "b": status(0), "c": status(0)})
    assert (turn.hosts, turn.left_out, turn.stop) == (["b"], [], "")
    events += [{"event": event, **fields} for event, fields in turn.news]
    assert walk([*events, done("b")], {"a": None, "b": status(0), "c": status(0)}).finished


def test_a_host_whose_notice_went_away_or_was_overridden_takes_its_turn() -> None:
    events = [begin(["a"]), self_tested()]
    for fine in (status(0), leaving("overridden", 200), leaving("drained", 503, notices=())):
        assert walk(events, {"a": fine, "b": status(0)}).hosts == ["a"]


def test_hosts_that_share_an_instance_with_one_that_aws_ends_are_left_out_too() -> None:
    together = begin(["a", "b"], ["c"])
    together["hosts"]["a"]["together"], together["hosts"]["b"]["together"] = ["b"], ["a"]
    turn = walk([together, self_tested()], {"a": leaving(), "b": status(0), "c": status(0), "d": status(0)})
    assert (turn.hosts, turn.left_out) == (["c"], ["a", "b"])
    assert any(said.startswith("b is left out: it shares an instance with a, and AWS") for said in decisions(turn))


INSTANCES = [{"index": 0, "name": "vllm-0", "port": 8000}]
FLEET = group()


def balanced(**states: str) -> BalancerLook:
    """Hosts in one target group; a host without a state is not registered."""
    members = {host: Membership(host, FLEET, GroupTarget(f"i-{host}", 8000)) for host in states}
    seen = {(FLEET.arn, members[host].target): TargetHealth(state) for host, state in states.items() if state}
    return BalancerLook(tuple(members.values()), seen)


def walk_balanced(events: Events, look: BalancerLook, problem: str = "", **policy: t.Any) -> Turn:
    hosts = [one.host for one in look.memberships]
    fleet = FleetState(
        well("".join(hosts)),
        (),
        hosts,
        balancer=look,
        balancer_problem=problem,
        instances=dict.fromkeys(hosts, INSTANCES),
    )
    return next_turn(events, fleet, WalkPolicy(**policy))


def test_a_host_that_clients_do_not_reach_is_no_capacity() -> None:
    look = balanced(a="healthy", b="unhealthy", c="healthy")
    turn = walk_balanced([begin(["a"], ["b", "c"]), self_tested()], look)
    assert (turn.hosts, turn.load["limit"], turn.load["left"]) == (["a"], 20, 10)
    assert turn.instances == {"a": [0]}


def test_the_last_healthy_target_of_a_group_is_not_taken_out() -> None:
    look = balanced(a="healthy", b="unhealthy")
    turn = walk_balanced([begin(["a"], ["b"]), self_tested()], look)
    assert turn.hosts == []
    assert (
        "The rollout stops before wave 1 of 2 (a); nothing of it was touched. Target group fleet in us-east-1 would "
        "have no healthy target without a: none of its 1 other targets is healthy. Clients would get 503" in turn.stop
    )
    assert "-e rollout_accept_downtime=true" in turn.stop
    # Force is about the load.
    assert walk_balanced([begin(["a"], ["b"]), self_tested()], look, when_short="force").hosts == []
    accepted = walk_balanced([begin(["a"], ["b"]), self_tested()], look, accept_downtime=True)
    assert accepted.hosts == ["a"]
    assert decisions(accepted) == ["Downtime was accepted: nothing else serves than vllm-0 of a."]


def test_a_wave_shrinks_until_a_target_is_left() -> None:
    look = balanced(a="healthy", b="healthy")
    turn = walk_balanced([begin(["a", "b"]), self_tested()], look, when_short="shrink")
    assert turn.hosts == ["a"]
    assert turn.instances == {"a": [0]}
    assert (
        "would have no healthy target without a and b" in walk_balanced([begin(["a", "b"]), self_tested()], look).stop
    )


def test_an_unhealthy_host_may_be_changed_because_nothing_is_lost() -> None:
    look = balanced(a="unhealthy", b="healthy")
    assert walk_balanced([begin(["a"]), self_tested()], look).hosts == ["a"]


def test_one_of_several_instances_of_a_port_leaves_its_group_alone() -> None:
    look = balanced(a="healthy")
    two = [{"index": 0, "port": 8000}, {"index": 1, "port": 8000}]
    fleet = FleetState({"a": status(0, 0)}, (), ["a"], balancer=look, instances={"a": two})
    assert next_turn([begin(["a"]), self_tested()], fleet, WalkPolicy()).hosts == ["a"]


def test_groups_that_cannot_be_read_stop_it_before_the_next_turn() -> None:
    look, why = balanced(a="healthy", b="healthy"), "The credentials have expired. Log in again."
    events = [begin(["a"], ["b"]), self_tested()]
    turn = walk_balanced([*events, done("a")], look, why)
    assert turn.stop == (
        "The rollout stops before wave 2 of 2 (b); nothing of it was touched, and the fleet keeps serving. The target "
        f"groups cannot be read: {why} The same command goes on from here."
    )
    # After the last turn nothing more has to be read.
    assert walk_balanced([*events, done("a"), done("b")], look, why).finished


def test_a_host_that_was_done_has_to_stay_healthy_in_its_groups() -> None:
    look = balanced(a="unhealthy", b="healthy", c="healthy")
    turn = walk_balanced([begin(["a"], ["b"]), self_tested(), done("a")], look)
    assert "a came through its gate and is no longer healthy in its target groups (unhealthy)" in turn.stop
    assert walk_balanced([begin(["a"], ["b"]), self_tested(), done("a")], look, max_failures=1).hosts == ["b"]


def test_a_host_that_is_not_in_its_groups_after_its_turn_stops_it() -> None:
    look = balanced(a="", b="healthy", c="healthy")
    events = [begin(["a"], ["b"]), self_tested(), outcome("a", "unregistered", "a is not registered.")]
    assert "1 of its hosts failed: a is not registered." in walk_balanced(events, look).stop


def compared(verdict: str, wave: int = 1) -> dict[str, t.Any]:
    return {"event": "evidence", "wave": wave, "verdict": verdict, "text": "a: errors 9 % against 0 %."}


def test_a_wave_that_serves_worse_stops_it_before_the_next() -> None:
    events = [begin(["a"], ["b", "c"]), self_tested(), turn_of(1, "a"), done("a")]
    turn = walk([*events, compared("worse")], well("abc"))
    assert turn.hosts == []
    assert turn.stop == (
        "The rollout stops before wave 2 of 2 (b, c); nothing of it was touched, and the fleet keeps serving. a: "
        "errors 9 % against 0 %. Find the cause, or go back with playbooks/rollback.yml; if the difference is "
        "expected, the same command goes on from here."
    )
    for verdict in ("fine", "inconclusive"):
        assert walk([*events, compared(verdict)], well("abc")).hosts == ["b", "c"]


def test_the_same_command_goes_on_after_it() -> None:
    resumed = {**begin(["b", "c"]), "event": "resume", "done": ["a"]}
    events = [begin(["a"], ["b", "c"]), self_tested(), turn_of(1, "a"), done("a"), compared("worse"), resumed]
    assert walk(events, well("abc")).hosts == ["b", "c"]


def test_after_the_last_wave_nothing_is_left_to_stop() -> None:
    events = [begin(["a"]), self_tested(), turn_of(1, "a"), done("a"), compared("worse")]
    assert walk(events, well("ab")).finished


def test_untouched_are_those_that_no_run_has_begun_to_change() -> None:
    resumed = {**begin(["c"], ["d"]), "event": "resume", "done": ["a", "x"]}
    events = [begin(["a"], ["b"]), turn_of(1, "a"), done("a"), turn_of(2, "b"), resumed]
    assert untouched(events, ["a", "b", "c", "d", "e", "x"]) == ["c", "d", "e"]
    assert untouched([*events, turn_of(1, "c")], ["c", "d"]) == ["d"]


def test_of_a_wave_those_are_compared_that_came_through() -> None:
    events = [begin(["a", "b"], ["c"]), turn_of(1, "a", "b"), done("a"), outcome("b", "rolled_back")]
    assert wave_hosts(events, 1) == ["a"]
    assert wave_hosts(events, 2) == []
