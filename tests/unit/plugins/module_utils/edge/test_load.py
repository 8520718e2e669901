from __future__ import annotations

from ansible_collections.inference.fleet.plugins.module_utils.edge import load as edge_load


def test_the_edge_counts_for_an_instance_that_does_not() -> None:
    rows = [
        {"pxname": "pool_qwen", "svname": "engine-0", "scur": "9", "qcur": "9"},
        {"pxname": "instances_4000", "svname": "engine-0", "scur": "3", "qcur": "1"},
    ]
    load = edge_load.load(rows, 0, "litellm")
    assert load is not None
    assert (load.engine, load.running, load.waiting) == ("litellm", 3, 1)
    assert edge_load.load(rows, 1, "litellm") is None


def test_the_requests_of_an_edge_that_leads_into_the_pools_are_those_of_its_pools() -> None:
    rows = [
        {"pxname": "once_more", "svname": "pools", "scur": "9"},
        {"pxname": "instances_4000", "svname": "pools", "scur": "3"},
    ]
    assert edge_load.front(rows) == {"running": 3, "waiting": 0, "limit": edge_load.FRONT_LIMIT}
    assert edge_load.front(rows[:1]) is None
