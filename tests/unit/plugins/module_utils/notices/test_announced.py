"""The documents of the metadata."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.notices.announced import (
    GROUP,
    INTERRUPTING,
    MAINTENANCE,
    REBALANCE,
    SPOT,
    Notice,
    Unreadable,
    parse_moment,
    read_notices,
)

#: 2026-11-29 12:03:10 UTC.
AT = 1795953790.0


def event(**changes: t.Any) -> dict[str, t.Any]:
    return {
        "NotBefore": "29 Nov 2026 12:03:10 GMT",
        "Code": "system-reboot",
        "Description": "scheduled reboot",
        "EventId": "instance-event-0d59937288b749b32",
        "NotAfter": "29 Nov 2026 14:03:10 GMT",
        "State": "active",
        **changes,
    }


def events(*found: t.Any) -> list[Notice]:
    return read_notices(MAINTENANCE, json.dumps(found))


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("terminate", "spot, terminates 12:03:10 UTC"),
        ("stop", "spot, stops 12:03:10 UTC"),
        ("hibernate", "spot, hibernates 12:03:10 UTC"),
    ],
)
def test_a_spot_interruption_has_its_end(action: str, said: str) -> None:
    (notice,) = read_notices(SPOT, json.dumps({"action": action, "time": "2026-11-29T12:03:10Z"}))
    assert notice == Notice(SPOT, f"spot {action} 2026-11-29T12:03:10Z", said, AT)


def test_a_spot_interruption_without_a_readable_time_is_one_all_the_same() -> None:
    (notice,) = read_notices(SPOT, '{"action": "terminate"}')
    assert (notice.begins, notice.said, notice.interrupts) == (None, "spot, terminates", True)


@pytest.mark.parametrize(
    "text", ["", "<html>", "[]", '"terminate"', "{}", '{"action": "dance"}', '{"action": ["stop"]}']
)
def test_what_is_no_spot_interruption_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable, match="spot/instance-action"):
        read_notices(SPOT, text)


@pytest.mark.parametrize("state", ["InService", "Standby", "Detached", "Warmed:Stopped", "", "<html>Terminated</html>"])
def test_only_terminated_is_the_end_in_a_group(state: str) -> None:
    assert read_notices(GROUP, state) == []


def test_a_group_ends_its_instance() -> None:
    (notice,) = read_notices(GROUP, "Terminated\n")
    assert (notice.said, notice.begins, notice.interrupts) == ("asg, the group terminates it", None, True)


def test_a_rebalance_recommendation_interrupts_nothing() -> None:
    (notice,) = read_notices(REBALANCE, '{"noticeTime": "2026-11-29T12:03:10Z"}')
    assert (notice.said, notice.begins, notice.interrupts) == (
        "rebalance, recommended since 12:03:10 UTC",
        None,
        False,
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", "<html>"])
def test_what_is_no_recommendation_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable, match="events/recommendations/rebalance"):
        read_notices(REBALANCE, text)


def test_an_event_has_its_window() -> None:
    (notice,) = events(event())
    assert (notice.begins, notice.ends) == (AT, AT + 7200)
    assert notice.said == "system-reboot, begins 2026-11-29 12:03 UTC"
    assert notice.interrupts


@pytest.mark.parametrize("code", sorted(INTERRUPTING))
def test_known_codes_interrupt(code: str) -> None:
    assert events(event(Code=code))[0].interrupts


@pytest.mark.parametrize("changes", [{"Code": "volume-tidying"}, {"NotBefore": "soon"}, {"NotBefore": None}])
def test_an_unknown_code_or_date_is_only_said(changes: dict[str, t.Any]) -> None:
    assert not events(event(**changes))[0].interrupts


def test_an_event_without_an_end_or_a_state_counts() -> None:
    (notice,) = events({"Code": "instance-retirement", "NotBefore": "2026-11-29T12:03:10.000Z"})
    assert (notice.begins, notice.ends, notice.interrupts) == (AT, None, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"State": "completed"},
        {"State": "canceled"},
        {"State": "Completed"},
        {"State": None, "Description": "[Completed] scheduled reboot"},
        {"State": None, "Description": "[Canceled] scheduled reboot"},
    ],
)
def test_what_is_over_is_not_announced(changes: dict[str, t.Any]) -> None:
    assert events(event(**changes)) == []


def test_events_have_identities_that_change_with_their_time() -> None:
    first, second, moved = events(event(), event(EventId="other"), event(NotBefore="30 Nov 2026 12:03:10 GMT"))
    assert len({first.id, second.id, moved.id}) == 3
    assert events(event(Description="another text"))[0].id == first.id


@pytest.mark.parametrize("text", ["", "{}", "[1]", "<html>"])
def test_what_is_no_list_of_events_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable, match="events/maintenance/scheduled"):
        read_notices(MAINTENANCE, text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("29 Nov 2026 12:03:10 GMT", AT),
        ("29 Nov 2026 12:03:10", AT),
        ("29 Nov 2026 13:03:10 +0100", AT),
        ("2026-11-29T12:03:10Z", AT),
        ("2026-11-29T12:03:10.000Z", AT),
        ("2026-11-29T12:03:10+00:00", AT),
        ("2026-13-29T12:03:10Z", None),
        ("soon", None),
        ("", None),
        (None, None),
        (17, None),
    ],
)
def test_both_formats_of_dates_are_read(text: t.Any, moment: float | None) -> None:
    assert parse_moment(text) == moment
