from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gpu.kernel import parse_xids
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.decision import (
    GIVE_UP,
    GPU,
    RESTART,
    RESTARTS,
    WAIT,
    Damping,
    decide,
    exempt,
)
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.gpu import worst

NOW = 1_000_000.0
DAMPING = Damping()
HOUR = 3600.0


@pytest.mark.parametrize(
    ("restarts", "action"),
    [
        ((), RESTART),
        ((NOW - 599,), WAIT),
        ((NOW - 600,), RESTART),
        ((NOW - 5 * HOUR, NOW - 2 * HOUR), RESTART),
        ((NOW - 5 * HOUR, NOW - 2 * HOUR, NOW - HOUR), GIVE_UP),
        ((NOW - 7 * HOUR, NOW - 2 * HOUR, NOW - HOUR), RESTART),
        # The clock was set back by a day.
        ((NOW + 24 * HOUR,), WAIT),
    ],
)
def test_one_restart_in_ten_minutes_and_three_in_six_hours(restarts: tuple[float, ...], action: str) -> None:
    decision = decide(restarts, NOW, "", DAMPING)
    assert decision.action == action
    assert bool(decision.why) == (action != RESTART)
    if action == GIVE_UP:
        assert decision.kind == RESTARTS


def test_a_failed_gpu_is_not_restarted() -> None:
    decision = decide((), NOW, "XID 79", DAMPING)
    assert (decision.action, decision.kind) == (GIVE_UP, GPU)
    assert "XID 79" in decision.why


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", ""),
        ("2026-11-22T10:00:00+0000 host kernel: NVRM: Xid (PCI:0000:00:1e): 13, pid=1, graphics exception", ""),
        (
            "2026-11-22T10:00:00+0000 host kernel: NVRM: Xid (PCI:0000:00:1e): 79, pid=1, fallen off the bus\n"
            "2026-11-22T10:00:01+0000 host kernel: NVRM: Xid (PCI:0000:00:1e): 45, pid=1, removed",
            "XID 79 of GPU 0000:00:1e",
        ),
    ],
)
def test_only_xids_after_which_a_gpu_gets_no_work_count(log: str, said: str) -> None:
    found = worst(parse_xids(log.splitlines()))
    assert said in found
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (("", "", "active"), ""),
        (("operator", "", "active"), "drained by operator"),
        (("", "site 1 by a on b", "active"), "held by site 1 by a on b"),
        (("", "", "deactivating"), "its unit is deactivating"),
        (("", "", ""), "its unit is absent"),
    ],
)
def test_what_is_drained_held_or_not_active_is_not_judged(facts: tuple[t.Any, ...], why: str) -> None:
    assert exempt(*facts) == why
