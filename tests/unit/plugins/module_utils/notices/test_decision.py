"""What a host does about what AWS announces."""

from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.notices.announced import (
    GROUP,
    MAINTENANCE,
    REBALANCE,
    SPOT,
    Notice,
)
from ansible_collections.inference.fleet.plugins.module_utils.notices.decision import (
    MetadataLook,
    NoticeSettings,
    Verdict,
    decide,
    lame_duck_seconds,
)

NOW = 1_000_000.0
SPOT_NOTICE = Notice(SPOT, "spot 1", "spot, terminates 12:03:10 UTC", NOW + 120)
GROUP_NOTICE = Notice(GROUP, "asg", "asg, the group terminates it")
REBALANCE_NOTICE = Notice(REBALANCE, "rebalance 1", "rebalance, recommended", interrupts=False)


def maintenance(begins_in: float | None, ends_in: float | None = None, interrupts: bool = True) -> Notice:
    begins = None if begins_in is None else NOW + begins_in
    ends = None if ends_in is None else NOW + ends_in
    return Notice(MAINTENANCE, "maintenance 1", "system-reboot, begins then", begins, ends, interrupts)


def verdict(*notices: Notice, settings: NoticeSettings | None = None, problem: str = "") -> Verdict:
    return decide(MetadataLook(notices, problem), NOW, settings or NoticeSettings())


def test_nothing_announced_is_nothing_to_do() -> None:
    assert verdict() == Verdict()


def test_spot_drains_at_once_and_leaves_15_seconds() -> None:
    found = verdict(SPOT_NOTICE)
    assert (found.drain, found.note) == ((SPOT_NOTICE,), ())
    assert found.finish_by == NOW + 105
    assert found.reason == "spot, terminates 12:03:10 UTC"


def test_a_spot_notice_without_a_time_or_in_the_past_drains_as_well() -> None:
    assert verdict(Notice(SPOT, "spot", "spot, terminates")).drain
    late = verdict(Notice(SPOT, "spot", "spot, terminates", NOW - 30))
    assert late.drain
    assert late.finish_by == NOW - 45


def test_the_end_in_a_group_drains_and_has_no_limit() -> None:
    found = verdict(GROUP_NOTICE)
    assert (found.drain, found.finish_by) == ((GROUP_NOTICE,), None)


def test_a_rebalance_recommendation_is_noted_or_drains() -> None:
    assert verdict(REBALANCE_NOTICE) == Verdict(note=(REBALANCE_NOTICE,))
    assert verdict(REBALANCE_NOTICE, settings=NoticeSettings(on_rebalance="drain")).drain == (REBALANCE_NOTICE,)


@pytest.mark.parametrize(
    ("begins_in", "lead", "drains"),
    [
        (601, 600, False),
        (600, 600, True),
        (1, 600, True),
        (0, 600, True),
        (-3600, 600, True),
        (5, 0, False),
        (0, 0, True),
    ],
)
def test_a_maintenance_drains_so_long_before(begins_in: float, lead: float, drains: bool) -> None:
    notice = maintenance(begins_in)
    found = verdict(notice, settings=NoticeSettings(maintenance_lead=lead))
    assert (found.drain, found.note) == (((notice,), ()) if drains else ((), (notice,)))
    assert found.finish_by == (NOW + begins_in - 15 if drains else None)


def test_a_maintenance_is_over_after_its_end() -> None:
    assert verdict(maintenance(-60, ends_in=0)).drain
    assert verdict(maintenance(-60, ends_in=-1)) == Verdict()


def test_an_event_that_interrupts_nothing_is_noted() -> None:
    notice = maintenance(0, interrupts=False)
    assert verdict(notice) == Verdict(note=(notice,))


def test_several_notices_count_together_and_the_first_end_is_the_limit() -> None:
    planned = maintenance(60)
    found = verdict(SPOT_NOTICE, GROUP_NOTICE, planned, REBALANCE_NOTICE)
    assert found.drain == (SPOT_NOTICE, GROUP_NOTICE, planned)
    assert found.note == (REBALANCE_NOTICE,)
    assert found.finish_by == NOW + 45
    assert found.reason == "; ".join(notice.said for notice in found.drain)


def test_a_look_with_a_problem_drains_for_what_it_found_and_ends_nothing() -> None:
    assert verdict(problem="no answer") == Verdict(unknown=True)
    found = verdict(SPOT_NOTICE, problem="no answer")
    assert found.drain
    assert found.unknown


@pytest.mark.parametrize(
    ("finish_by", "seconds"), [(None, 15.0), (NOW + 105, 15.0), (NOW + 1, 15.0), (NOW, 0.0), (NOW - 60, 0.0)]
)
def test_the_lame_duck_ends_when_time_is_up(finish_by: float | None, seconds: float) -> None:
    assert lame_duck_seconds(Verdict(finish_by=finish_by), 15.0, NOW) == seconds
