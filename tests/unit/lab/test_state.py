"""A lab, and its record."""

from __future__ import annotations

import dataclasses

import pytest

from lab import state
from lab.errors import LabError
from lab.state import Lab


def test_a_saved_lab_is_loaded_as_it_was(lab: Lab) -> None:
    lab.save()
    assert state.load("trial") == lab
    assert [one.name for one in state.every_lab()] == ["trial"]


def test_no_lab_is_none_and_where_one_is_needed_an_error_that_says_how_to_make_it() -> None:
    assert state.load("trial") is None
    with pytest.raises(LabError, match="python -m lab up --name trial"):
        state.require("trial")


def test_a_new_host_takes_the_lowest_free_address(lab: Lab) -> None:
    del lab.hosts["inference-2"]
    assert lab.address(lab.new_host("again")) == "10.99.0.12"
    assert lab.address(lab.new_host("last")) == "10.99.0.15"


def test_a_full_subnet_is_an_error() -> None:
    lab = Lab("trial", "10.99.0.0/27")
    for number in range(20):
        lab.new_host(f"host-{number}")
    with pytest.raises(LabError, match=r"10\.99\.0\.0/27 of lab trial has no free address"):
        lab.new_host("too-many")


@pytest.mark.parametrize("name", ["Upper", "-dash", "dash-", "a.b", "a/b", "", "x" * 43])
def test_a_name_that_is_no_host_name_is_refused(lab: Lab, name: str) -> None:
    with pytest.raises(LabError, match="cannot name a host"):
        lab.new_host(name)


@pytest.mark.parametrize("name", ["lab", "a-rather-long-name-for-a-lab", "a-rather-long-name-for-another"])
def test_interface_names_fit_the_kernel(name: str) -> None:
    lab = Lab(name)
    host = lab.new_host("one")
    host.number = 254
    assert len(lab.port_of(host)) <= 15
    assert lab.port_of(host).startswith(lab.bridge)


def test_long_names_differ_in_their_interfaces() -> None:
    assert Lab("a-rather-long-name-for-a-lab").bridge != Lab("a-rather-long-name-for-another").bridge


def test_labs_beside_each_other_get_ports_of_their_own() -> None:
    first = state.create("lab", "10.99.0.0/24", bare=False)
    second = state.create("second", "10.99.1.0/24", bare=False)
    third = state.create("third", "10.99.2.0/24", bare=False)
    assert first.ec2_port == state.FIRST_EC2_PORT
    assert len({first.ec2_port, second.ec2_port, third.ec2_port}) == 3
    assert len({first.balancer_port, second.balancer_port, third.balancer_port}) == 3


def test_the_default_ports_wait_for_the_default_name() -> None:
    assert state.create("second", "10.99.1.0/24", bare=False).ec2_port > state.FIRST_EC2_PORT


@pytest.mark.parametrize(
    ("subnet", "said"),
    [
        ("10.99.0.128/25", "overlaps 10.99.0.0/24 of lab first"),
        ("10.99.1.0/28", "/27 or larger"),
        ("10.99.1.7/24", "host bits set"),
        ("fd00::/64", "IPv4"),
        ("here", "does not appear to be"),
    ],
)
def test_a_network_that_cannot_be_is_refused(subnet: str, said: str) -> None:
    state.create("first", "10.99.0.0/24", bare=True)
    with pytest.raises(LabError, match=said):
        state.create("second", subnet, bare=True)
    assert state.load("second") is None


def test_hosts_without_a_role_are_not_the_fleets(lab: Lab) -> None:
    assert [host.name for host in lab.fleet()] == ["inference-1", "inference-2", "gateway-1"]


def test_a_host_keeps_its_machine_id(lab: Lab) -> None:
    host = lab.host("inference-1")
    assert len(host.machine_id) == 32
    assert dataclasses.replace(host).machine_id == host.machine_id


def test_an_unknown_host_is_an_error_that_lists_the_known(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"'none'\. It has: inference-1, inference-2, gateway-1, scratch-1"):
        lab.host("none")
