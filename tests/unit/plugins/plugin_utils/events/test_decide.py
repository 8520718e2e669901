from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.members import JOIN, LEAVE, GroupMember
from ansible_collections.inference.fleet.plugins.plugin_utils.events import decide
from ansible_collections.inference.fleet.plugins.plugin_utils.events.decide import (
    EventPolicy,
    EventTask,
    RunEnd,
    ServiceMemory,
    Trouble,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.events.hints import Hint

A, B, C = "i-aaaaaaaa", "i-bbbbbbbb", "i-cccccccc"
POLICY = EventPolicy(parallel=2, give_up=100, spot_seconds=90)
WAITS, ENDS = "Pending:Wait", "Terminating:Wait"


def member(instance: str = A, state: str = WAITS) -> GroupMember:
    return GroupMember(instance, "fleet", state)


def next_of(*members: GroupMember, memory: ServiceMemory | None = None, notices: tuple[str, ...] = ()) -> list[str]:
    tasks = decide.next_tasks(members, notices, memory or ServiceMemory(), POLICY, 50.0)
    return [f"{task.verb} {task.instance}" for task in tasks]


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (WAITS, [f"join {A}"]),
        (ENDS, [f"leave {A}"]),
        ("Pending", []),
        ("Pending:Proceed", []),
        ("InService", []),
        ("Standby", []),
        # Its group waits for the deregistration delay.
        ("Terminating", [f"leave {A}"]),
        ("Terminating:Proceed", []),
        ("Terminated", []),
        # A state that AWS may add.
        ("Terminating:Retained", []),
    ],
)
def test_only_an_instance_at_a_hook_gets_a_playbook(state: str, wanted: list[str]) -> None:
    assert next_of(member(A, state)) == wanted


def test_one_playbook_at_a_time_for_an_instance() -> None:
    running = ServiceMemory(running={A: EventTask(JOIN, A, "fleet")})
    assert next_of(member(A), memory=running) == []
    # The group ends it while it still joins: the leave waits for the end of the join.
    assert next_of(member(A, ENDS), memory=running) == []


def test_hosts_that_leave_come_first_and_no_more_than_allowed_at_once() -> None:
    assert next_of(member(A), member(B), member(C, ENDS)) == [f"leave {C}", f"join {A}"]
    running = ServiceMemory(running={B: EventTask(JOIN, B, "fleet")})
    assert next_of(member(A), member(B), member(C, ENDS), memory=running) == [f"leave {C}"]


def test_those_that_wait_longest_join_first() -> None:
    assert next_of(member(A), member(B), member(C), memory=ServiceMemory(seen={A: 30, B: 10, C: 20})) == [
        f"join {B}",
        f"join {C}",
    ]


def test_after_a_failure_there_is_a_pause() -> None:
    trouble = {A: Trouble(0, 1, 51, "x"), B: Trouble(0, 1, 50, "x")}
    assert next_of(member(A), member(B), memory=ServiceMemory(trouble=trouble)) == [f"join {B}"]


def test_what_is_kept_for_a_look_is_left_alone() -> None:
    assert next_of(member(A), memory=ServiceMemory(kept={A})) == []


def test_a_spot_notice_lets_a_host_leave_in_the_time_that_is_left() -> None:
    (task,) = decide.next_tasks([member(A, "InService")], [A], ServiceMemory(), POLICY, 0)
    assert task == EventTask(LEAVE, A, "fleet", 90)
    assert next_of(member(A, "InService"), notices=(B,)) == []
    assert next_of(member(A, "InService"), notices=(A,), memory=ServiceMemory(taken_out={A})) == []
    # One that is at a hook already is not in a hurry of two minutes: the hook decides.
    assert next_of(member(A, ENDS), notices=(A,)) == [f"leave {A}"]


def test_a_host_that_its_group_deregisters_leaves_once_and_again_at_the_hook() -> None:
    memory = ServiceMemory(taken_out={A})
    assert next_of(member(A, "Terminating"), memory=memory) == []
    memory.forget([], [A])
    assert next_of(member(A, "Terminating"), memory=memory) == []
    assert next_of(member(A, ENDS), memory=memory) == [f"leave {A}"]


def test_heartbeats_come_every_third_of_the_timeout_whatever_the_instance_waits_for() -> None:
    timeouts = {("fleet", JOIN): 90, ("fleet", LEAVE): 300}
    memory = ServiceMemory(beaten={A: 20, B: 21}, kept={A})
    members = [member(A), member(B), member(C, "InService")]
    assert decide.due_heartbeats(members, timeouts, memory, 50) == [member(A)]
    assert decide.due_heartbeats(members, timeouts, memory, 51) == [member(A), member(B)]
    assert decide.due_heartbeats([member(A, ENDS)], timeouts, memory, 119) == []
    assert decide.due_heartbeats([member(C)], timeouts, memory, 0) == [member(C)], "at once, when it is first seen"
    assert decide.due_heartbeats([GroupMember(C, "other", WAITS)], timeouts, memory, 0) == [], "no hook of ours"


JOINING = EventTask(JOIN, A, "fleet")


def test_a_playbook_that_did_its_work_leaves_nothing_behind() -> None:
    memory = ServiceMemory(trouble={A: Trouble(0, 1, 0, "x")})
    assert decide.after(JOINING, RunEnd(0, "joined"), memory, POLICY, 10) == ""
    assert memory.trouble == {}


def test_a_failure_of_the_host_was_completed_by_the_playbook() -> None:
    memory = ServiceMemory()
    assert decide.after(JOINING, RunEnd(2, "abandoned", "the gate failed"), memory, POLICY, 10) == ""
    assert (memory.trouble, memory.kept) == ({}, set())


def test_a_host_that_is_kept_gets_no_other_playbook() -> None:
    memory = ServiceMemory()
    assert decide.after(JOINING, RunEnd(2, "kept", "the gate failed"), memory, POLICY, 10) == ""
    assert memory.kept == {A}


def test_a_failure_without_a_verdict_is_repeated_with_growing_pauses_until_the_time_is_over() -> None:
    memory = ServiceMemory(seen={A: 0.0})
    again = []
    for now in (10.0, 40.0, 90.0):
        assert decide.after(JOINING, RunEnd(4, "", "unreachable"), memory, POLICY, now) == ""
        again.append(memory.trouble[A].again - now)
    assert again == [15, 30, 60]
    reason = decide.after(JOINING, RunEnd(4, "", "unreachable"), memory, POLICY, 100.0)
    assert reason == "It did not join within 100 s and 4 attempts. unreachable"


def test_pauses_have_a_limit() -> None:
    memory = ServiceMemory()
    for _time in range(12):
        decide.after(JOINING, RunEnd(4), memory, EventPolicy(give_up=1e9), 0)
    assert memory.trouble[A].again == 300


def done(hint: Hint, *members: GroupMember, memory: ServiceMemory | None = None, age: float = 5) -> bool:
    return decide.is_done(hint, {one.id: one for one in members}, memory or ServiceMemory(), age)


LAUNCH, TERMINATE, SPOT = Hint("launch", A, "fleet"), Hint("terminate", A, "fleet"), Hint("spot", A)


@pytest.mark.parametrize(
    ("hint", "state", "expected"),
    [
        (LAUNCH, WAITS, False),
        (LAUNCH, "InService", True),
        # Reordered: the launch is long over.
        (LAUNCH, ENDS, True),
        (LAUNCH, "Terminating", True),
        # The event was faster than the look.
        (LAUNCH, "Pending", False),
        (TERMINATE, "Terminating", False),
        (TERMINATE, ENDS, False),
        (TERMINATE, "Terminating:Proceed", True),
        # Only a later look shows what this one announces.
        (TERMINATE, "InService", True),
        (SPOT, "InService", False),
        (SPOT, ENDS, True),
        (SPOT, "Terminating", True),
    ],
)
def test_a_message_is_deleted_when_nothing_is_left_to_do(hint: Hint, state: str, expected: bool) -> None:
    assert done(hint, member(A, state)) is expected


def test_messages_about_nothing_of_ours_are_deleted() -> None:
    assert done(Hint("test"))
    assert done(Hint("rebalance", A), member(A, "InService"))
    assert done(LAUNCH), "gone, or of another group"
    assert done(SPOT)


def test_a_message_stays_while_its_playbook_runs() -> None:
    running = ServiceMemory(running={A: JOINING})
    assert not done(LAUNCH, member(A, "InService"), memory=running)
    assert not done(LAUNCH, memory=running)


def test_a_message_does_not_wait_for_ever() -> None:
    assert done(LAUNCH, member(A, "Pending"), age=121), "the sweep finds it"
    assert done(SPOT, member(A, "InService"), memory=ServiceMemory(taken_out={A}))
    assert done(LAUNCH, member(A), memory=ServiceMemory(kept={A})), "a person has it"


def test_what_is_gone_is_forgotten() -> None:
    memory = ServiceMemory(
        running={B: EventTask(JOIN, B, "fleet")},
        trouble={A: Trouble(0, 1, 0, "x"), B: Trouble(0, 1, 0, "x")},
        kept={A, C},
        beaten={A: 1, C: 1},
        seen={A: 1, B: 1, C: 1},
        taken_out={A, B},
    )
    memory.forget([C], [C])
    assert (set(memory.trouble), memory.kept, set(memory.beaten), set(memory.seen), memory.taken_out) == (
        {B},
        {C},
        {C},
        {B, C},
        {B},
    )
