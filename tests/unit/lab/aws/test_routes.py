"""The commands that make HAProxy's servers those of the target groups; tests/integration/aws runs them."""

from __future__ import annotations

from lab.aws.routes import BalancerServer, parse_servers, plan

READY = BalancerServer("10.0.0.11", 8000, accepts=True)
DRAINS = BalancerServer("10.0.0.11", 8000, accepts=False)
KEY = ("fleet", "i-1-8000")
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr \
srv_agent_port
3 fleet 1 i-1-8000 10.0.0.11 2 0 1 1 4 1 0 2 0 0 0 0 - 8000 - 0 0 - - 0
3 fleet 2 i-2-8000 10.0.0.12 3 8 1 1 4 1 0 2 0 0 0 0 - 8000 - 0 0 - - 0

"""


def test_servers_are_read_with_what_they_accept() -> None:
    assert parse_servers(STATE) == {
        KEY: READY,
        ("fleet", "i-2-8000"): BalancerServer("10.0.0.12", 8000, accepts=False),
    }
    assert parse_servers("1\n") == {}


def test_what_is_as_wanted_gets_no_command() -> None:
    assert list(plan({KEY: READY}, {KEY: READY})) == []
    # A target that has not passed its first check is no server yet.
    assert list(plan({}, {KEY: DRAINS})) == []


def test_a_new_one_is_added_and_enabled() -> None:
    assert list(plan({}, {KEY: READY})) == [
        "add server fleet/i-1-8000 10.0.0.11:8000",
        "set server fleet/i-1-8000 state ready",
    ]


def test_one_that_drains_keeps_what_is_in_flight_and_may_come_back() -> None:
    assert list(plan({KEY: READY}, {KEY: DRAINS})) == ["set server fleet/i-1-8000 state drain"]
    assert list(plan({KEY: DRAINS}, {KEY: READY})) == ["set server fleet/i-1-8000 state ready"]


def test_one_that_is_gone_is_cut_and_removed() -> None:
    assert list(plan({KEY: DRAINS}, {})) == [
        "set server fleet/i-1-8000 state maint",
        "shutdown sessions server fleet/i-1-8000",
        "del server fleet/i-1-8000",
    ]
