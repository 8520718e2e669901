from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.instances.preflight import (
    Listener,
    candidate_version,
    package_problems,
    parse_listeners,
    port_problems,
    system_problems,
    variable_problems,
)

SS = """\
LISTEN 0      4096      127.0.0.1:8100      0.0.0.0:*    users:(("vllm",pid=71,fd=12))
LISTEN 0      128         0.0.0.0:22        0.0.0.0:*    users:(("sshd",pid=33,fd=3),("systemd",pid=1,fd=60))
LISTEN 0      4096              *:8000            *:*    users:(("python3",pid=99,fd=3))
LISTEN 0      128            [::]:22           [::]:*
"""
EDGE = {"port": 8000, "purpose": "the edge", "units": ["haproxy.service"], "variable": "edge_port"}
ENGINE = {"port": 8100, "purpose": "engine 0", "units": ["vllm@0.service", "sglang@0.service"], "variable": "x"}


def units(pid: int) -> str:
    return {71: "vllm@0.service", 33: "ssh.service", 99: "jupyter.service"}[pid]


def test_the_listeners_are_read() -> None:
    assert parse_listeners(SS, units) == [
        Listener(8100, 71, "vllm", "vllm@0.service"),
        Listener(22, 33, "sshd", "ssh.service"),
        Listener(8000, 99, "python3", "jupyter.service"),
        Listener(22, 0, "", ""),
    ]


def test_a_port_of_someone_else_is_a_problem_with_all_that_helps() -> None:
    [problem] = port_problems([EDGE, ENGINE], parse_listeners(SS, units))
    assert problem.startswith("Port 8000, wanted for the edge, is in use by python3 (pid 99, unit jupyter.service).")
    assert "edge_port" in problem


def test_a_port_of_our_own_unit_is_none() -> None:
    assert port_problems([ENGINE], parse_listeners(SS, units)) == []


def test_a_process_outside_of_any_unit_is_a_problem() -> None:
    [problem] = port_problems([EDGE], [Listener(8000, 5, "nc", "")])
    assert "unit none" in problem


def test_a_supported_system_has_no_problems() -> None:
    assert system_problems("systemd", "x86_64", {"ID": "debian", "VERSION_ID": "12"}, {"debian": ["12"]}) == []


def test_all_problems_are_reported_at_once() -> None:
    problems = system_problems("tini", "aarch64", {"ID": "fedora", "VERSION_ID": "41"}, {"debian": ["12"]})
    assert [problem.split()[0] for problem in problems] == ["Process", "The", "The"]
    assert "fedora 41; tested are debian 12" in problems[2]


RIGHT: dict[str, t.Any] = {"engine": "vllm", "accelerator": "cuda", "groups": ["inference", "ring_stable"]}


def test_nothing_is_wrong_with_a_right_host() -> None:
    assert variable_problems([{"name": "gate"}, {"name": "team-a"}], **RIGHT) == []


@pytest.mark.parametrize(
    ("clients", "change", "says"),
    [
        ([], {"engine": "tgi"}, "engine is 'tgi'; valid are vllm, sglang"),
        ([], {"accelerator": "rocm"}, "fleet_accelerator is 'rocm'; valid are cuda, cpu"),
        ([], {"groups": ["inference"]}, "The host is in no ring"),
        ([], {"groups": ["ring_canary", "ring_stable"]}, "The host is in both rings"),
        ([{"models": []}], {}, "fleet_clients has the name ''"),
        ([{"name": "Team A"}], {}, "fleet_clients has the name 'Team A'"),
        (["gate", 7], {}, "fleet_clients has the name 7"),
        ([{"name": "a"}, {"name": "a"}], {}, "fleet_clients has a more than once"),
    ],
)
def test_a_problem_is_reported_with_the_value(clients: list[t.Any], change: dict[str, t.Any], says: str) -> None:
    [problem] = variable_problems(clients, **{**RIGHT, **change})
    assert says in problem


HAPROXY = {"name": "haproxy", "at_least": "2.5", "why": "it needs Lua. Set something else"}


@pytest.mark.parametrize("version", ["2.5", "2.6.12-1+deb12u3", "2.8.5-1ubuntu3", "3.10.1", "1:2.6.1-1", ""])
def test_a_package_that_does_is_no_problem(version: str) -> None:
    assert package_problems([HAPROXY], {"haproxy": version}) == []


@pytest.mark.parametrize("version", ["2.4.30-0ubuntu0.22.04.1", "2.4", "1.9.9"])
def test_a_package_that_is_too_old_is_named_with_what_to_do(version: str) -> None:
    assert package_problems([HAPROXY], {"haproxy": version}) == [
        f"haproxy is {version}, and 2.5 is the first that does: it needs Lua. Set something else."
    ]


def test_the_version_that_would_be_installed_is_read() -> None:
    text = "haproxy:\n  Installed: (none)\n  Candidate: 2.4.30-0ubuntu0.22.04.1\n  Version table:\n"
    assert candidate_version(text) == "2.4.30-0ubuntu0.22.04.1"
    assert candidate_version("haproxy:\n  Installed: (none)\n  Candidate: (none)\n") == ""
    assert candidate_version("") == ""
