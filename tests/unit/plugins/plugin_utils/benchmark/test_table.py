from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import table

from tests.unit.plugins.plugin_utils.benchmark.benchmarks import measured, record


def rates(*values: float) -> dict[str, t.Any]:
    return {"at_64": measured("at_64", "tokens_per_second", *values)}


def test_two_hosts_are_two_columns_and_a_difference() -> None:
    first, second = record(), record(host="gpu-2", instance="sglang-0", measured=rates(1500, 1502, 1498))
    [row] = table.figure_rows([first, second], [None, None])
    assert (row.scenario, row.figure) == ("64 at once", "tokens/s")
    assert row.values == ["1000 ±10", "1500 ±2"]
    assert row.against == "+50% better"
    assert row.changes == ["", ""]


def test_the_previous_run_stands_beside() -> None:
    [row] = table.figure_rows([record()], [record(measured=rates(2000, 2001, 1999))])
    assert row.changes == ["-50% worse"]
    assert row.against == ""


def test_what_one_of_them_lacks_is_a_dash() -> None:
    other = record(measured={"long": measured("long", "first_token", 1.5)})
    rows = table.figure_rows([record(), other], [None, None])
    assert [(row.scenario, row.values) for row in rows] == [
        ("64 at once", ["1000 ±10", "-"]),
        ("the longest context (1030 tokens)", ["-", "1500"]),
    ]
    assert [row.against for row in rows] == ["", ""]


def test_scenarios_are_in_their_order() -> None:
    given = {name: measured(name) for name in ("long", "at_64", "document", "at_3", "at_128", "picture", "at_1")}
    found = table.names([record(measured=given)])
    assert found == ["at_1", "at_3", "at_64", "at_128", "picture", "document", "long"]


def test_memory_power_and_cost_are_of_the_whole_instance() -> None:
    one = record()
    one["measured"]["at_64"]["gpu"] = {"watts": 301.4, "gpu_memory_gib": 41.0}
    one["measured"]["at_1"] = measured("at_1", "tokens_per_second", 10.0, gpu={"gpu_memory_gib": 40.26})
    rows = dict(table.further_rows([one]))
    assert rows == {
        "GPU memory at a prompt of 1 K, GiB": ["40.3"],
        "watts at the most tokens/s": ["301"],
        "$/h of its GPUs": ["1.800"],
        "$ for a million tokens": ["0.50"],
    }


def test_what_a_reader_has_to_know_is_said() -> None:
    one = record(usd_per_hour=None, price_problem="its region is not in the inventory.")
    one["left_out"] = {"document": "it needs 10459 tokens, and the context is 2048"}
    one["measured"]["picture"] = measured("picture", requests=4, failed=4, problem="400: no pictures")
    one["measured"]["at_64"]["gpu_problem"] = "the instance has no GPU"
    said = table.notes([one])
    assert "gpu-1 vllm-0, one picture: 4 of 4 requests failed (400: no pictures)." in said
    assert any("not measured: a document, asked again (it needs 10459" in line for line in said)
    assert "gpu-1 vllm-0, no memory and no power of a GPU: the instance has no GPU." in said
    assert any("no $ for a million tokens: its region" in line for line in said)
    assert table.notes([record()]) == []


def test_beside_clients_there_is_no_price() -> None:
    assert "beside clients' requests" in table.notes([record(live=True)])[0]
    assert table.described(record(live=True)).endswith(", beside clients' requests")
