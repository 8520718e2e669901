from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.beyond import hosts_beyond, unknown_roles

GROUPS = {
    "all": ["a-1", "a-2", "gw-1", "old-1", "old-gw", "store-1", "watch-1", "odd", "new-1", "end-1"],
    "inference": ["a-1", "a-2"],
    "gateway": ["gw-1"],
    "gateway_store": ["store-1"],
    "monitoring": ["watch-1"],
    "not_running": ["old-1", "old-gw"],
    "joining": ["new-1"],
    "leaving": ["end-1"],
}
HOSTVARS: dict[str, dict[str, t.Any]] = {
    "a-1": {"fleet_role": "inference"},
    "a-2": {"fleet_role": "inference"},
    "gw-1": {"fleet_role": "gateway"},
    "old-1": {"fleet_role": "inference", "fleet_state": "stopped"},
    "old-gw": {"fleet_role": "gateway", "fleet_state": "pending"},
    "new-1": {"fleet_role": "inference", "fleet_state": "joining"},
    "end-1": {"fleet_role": "gateway", "fleet_state": "leaving"},
    "store-1": {},
    "watch-1": {"fleet_role": "monitoring"},
    "odd": {"fleet_role": "inferense", "fleet_state": "running"},
}


def test_every_counts_both_tiers_and_every_state() -> None:
    rows = hosts_beyond(GROUPS, HOSTVARS, ["a-1"])
    odd = "its tag inference:role is 'inferense', valid are inference, gateway, gateway_store, monitoring"
    assert rows == [
        {"host": "a-2", "state": "beyond --limit"},
        {"host": "end-1", "state": "leaving"},
        {"host": "gw-1", "state": "beyond --limit"},
        {"host": "new-1", "state": "joining"},
        {"host": "odd", "state": odd},
        {"host": "old-1", "state": "stopped"},
        {"host": "old-gw", "state": "pending"},
    ]


def test_a_run_about_one_tier_names_that_tier() -> None:
    rows = hosts_beyond({**GROUPS, "all": []}, HOSTVARS, ["a-1", "a-2"], ["inference"])
    assert rows == [{"host": "new-1", "state": "joining"}, {"host": "old-1", "state": "stopped"}]


def test_an_inventory_by_hand_has_no_roles() -> None:
    groups = {
        "all": ["a-1", "old-1", "new-1"],
        "inference": ["a-1"],
        "not_running": ["old-1"],
        "joining": ["new-1"],
    }
    hostvars: dict[str, dict[str, t.Any]] = {"a-1": {}, "old-1": {}, "new-1": {}}
    rows = hosts_beyond(groups, hostvars, ["a-1"])
    assert rows == [{"host": "new-1", "state": "joining"}, {"host": "old-1", "state": "not running"}]
    assert unknown_roles(groups, hostvars) == {}


def test_only_a_misspelt_role_is_a_wrong_variable() -> None:
    assert list(unknown_roles(GROUPS, HOSTVARS)) == ["odd"]
