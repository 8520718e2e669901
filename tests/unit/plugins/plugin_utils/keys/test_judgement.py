from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.keys.judgement import HostReport, judge, lost_since

AWAY, HERE = HostReport(lost=True), HostReport()


def test_an_unreachable_host_is_left_out_only_where_that_was_accepted() -> None:
    assert judge({"a": AWAY, "b": HERE}, False).problems == ["a does not answer."]
    assert judge({"a": AWAY, "b": HERE}, True) == ([], ["a"])
    assert judge({"a": AWAY}, True).problems == ["a does not answer."]


def test_a_host_that_a_reboot_could_bring_back_with_dead_keys_is_not_left_out_yet() -> None:
    judgement = judge({"a": AWAY, "b": AWAY, "c": HERE}, True, {"a": 1_764_428_400.0})
    assert judgement.left_out == ["b"]
    assert judgement.problems == [
        "a does not answer. Run the same command again after 2025-11-29T15:00:00Z to leave it out: if it reboots "
        "before, it serves with its old keys; after that it waits until a run has confirmed its keys."
    ]
    # Without the acceptance that is not the reason.
    assert judge({"a": AWAY, "c": HERE}, False, {"a": 1_764_428_400.0}).problems == ["a does not answer."]


def test_a_host_is_away_since_the_first_step_that_it_missed() -> None:
    def event(host: str, at: float, lost: bool) -> dict[str, object]:
        return {"event": "host", "host": host, "at": at, "lost": lost}

    events = [
        {"event": "begin", "at": 1.0},
        event("a", 10, True),
        event("b", 11, True),
        event("a", 20, True),
        event("b", 21, False),
        {"event": "resume", "at": 25.0},
        event("c", 30, True),
    ]
    assert lost_since(events) == {"a": 10.0, "c": 30.0}
    assert lost_since([*events, event("b", 40, True)])["b"] == 40.0
