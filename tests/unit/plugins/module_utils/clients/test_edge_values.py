from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.clients import edge_values
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.clients.schema import Kind
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

TEMPLATE = (Path(__file__).resolve().parents[5] / "roles/edge/templates/haproxy.cfg.j2").read_text()

#: Limits, and the value of the first version, as the collection of before wrote it.
VALUES: list[tuple[dict[str, t.Any], str]] = [
    ({}, "team-a"),
    ({"requests_per_minute": 600}, "team-a|600|0|0|"),
    ({"max_concurrent": 8, "expires": "2027-01-31T00:00:00Z"}, "team-a|0|8|1801353600|"),
    ({"models": ("a/b", "c")}, "team-a|0|0|0|,a/b,c,"),
    ({"tokens_per_minute": 5}, "team-a|0|0|0||5"),
    ({"budget": 0.25, "max_concurrent": 2}, "team-a|0|2|0||0|0.25"),
    ({"budget": 1e-7}, "team-a|0|0|0||0|0.0000001"),
    ({"budget": 50, "budget_period": "3600s"}, "team-a|0|0|0||0|50|3600"),
]


@pytest.mark.parametrize(("limits", "first"), VALUES)
def test_a_value_says_what_it_was_made_of(limits: dict[str, t.Any], first: str) -> None:
    value = edge_values.render("team-a", Limits(limits))
    assert value == f"v=2|{first}"
    assert edge_values.parse(value) == edge_values.parse(first) == ("team-a", Limits(limits))
    assert edge_values.in_version(value, 1) == edge_values.in_version(first, 1) == first
    assert edge_values.in_version(value, 2) == edge_values.in_version(first, 2) == value


def test_a_period_is_in_seconds() -> None:
    value = edge_values.render("team-a", Limits({"budget": 5, "budget_period": "1d"}))
    assert value == "v=2|team-a|0|0|0||0|5|86400"
    assert edge_values.parse(value) == ("team-a", Limits({"budget": 5, "budget_period": "86400s"}))


def test_further_fields_are_left_alone() -> None:
    assert edge_values.parse("v=2|a|5|0|0||0|0|0|7|,x,") == ("a", Limits({"requests_per_minute": 5}))


@pytest.mark.parametrize("value", ["intruder", "intruder|", "intruder|x|y|z|", "intruder|1|2|3|4|5"])
def test_a_foreign_value_is_a_name(value: str) -> None:
    assert edge_values.parse(value) == ("intruder", Limits())


@pytest.mark.parametrize("name", ["2", "v2", "v"])
def test_no_name_of_a_client_is_taken_for_a_version(name: str) -> None:
    for value in (name, f"{name}|600|0|0|"):
        edge_values.check_version(value, "the map")
        assert edge_values.parse(value)[0] == name


@pytest.mark.parametrize("value", ["v=3|a|5", "v=3", "v=12|"])
def test_a_later_version_is_refused_with_both_versions(value: str) -> None:
    version = re.findall(r"\d+", value)[0]
    with pytest.raises(FleetError, match=f"the map has clients in version {version}; .* reads versions up to 2"):
        edge_values.check_version(value, "the map")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("", 1),
        ("global\n    description 01234567\n    user haproxy\n", 1),
        ("global\n    description 01234567 clients=2\n    user haproxy\n", 2),
        ("node: here\ndescription: 01234567 clients=2\nTainted: 0\n", 2),
        ("node: here\ndescription: 01234567\n# description x clients=2\n", 1),
    ],
)
def test_a_configuration_says_which_version_it_reads(text: str, version: int) -> None:
    assert edge_values.version_read(text) == version


def test_the_configuration_of_the_role_reads_this_version() -> None:
    rendered = TEMPLATE.replace("{{ __edge_stamp }}", "01234567")
    assert edge_values.version_read(rendered) == edge_values.VERSION
    assert f'regsub("^v={edge_values.VERSION}[|]","")' in rendered


def test_the_configuration_takes_each_limit_from_its_field() -> None:
    found = dict(re.findall(r"set-var\(txn\.(\w+)\) var\(txn\.entry\),field\((\d+),\|\)", TEMPLATE))
    # Without the version the name is first. A period is for the accountant alone, which reads the map itself.
    wanted = {row.name: str(row.edge_field + 1) for row in edge_values.carried() if not row.period_of}
    assert found == {"client": "1", **wanted}


def test_an_edge_enforces_kinds_that_haproxy_can_compare() -> None:
    assert {row.kind for row in edge_values.enforced()} <= {Kind.COUNT, Kind.MOMENT, Kind.MODELS}
