"""The settings that cannot be changed, and those of the health check, one by one."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import HEALTH
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.table import look

from tests.unit.plugins.plugin_utils.balancer.answers import HOSTS, ON_GROUP, REGION, findings, group, needs, nlb

ANOTHER = (
    f"aws elbv2 create-target-group --region {REGION} --name fleet-2 --protocol HTTP --port 8000 --vpc-id vpc-1 "
    "--target-type instance --health-check-protocol HTTP --health-check-path /health --matcher HttpCode=200 "
    "--health-check-interval-seconds 5 --health-check-timeout-seconds 4 --unhealthy-threshold-count 2"
)
FAST = "--health-check-interval-seconds 5 --health-check-timeout-seconds 4 --unhealthy-threshold-count 2"
SLOW = {"HealthCheckIntervalSeconds": 30}


def moved(**changes: t.Any) -> dict[str, t.Any]:
    """Needs with one more host, which is elsewhere."""
    return {"hosts": (*HOSTS, dataclasses.replace(HOSTS[0], name="gpu-9", target="i-9", **changes))}


@pytest.mark.parametrize(
    ("setting", "described", "wants", "verdict", "value", "wanted", "why", "repair"),
    [
        (
            "target type",
            {"TargetType": "lambda"},
            {},
            "error",
            "lambda",
            "instance or ip",
            "a group of type lambda takes no hosts, and the type of a group cannot be changed: make another one",
            ANOTHER,
        ),
        (
            "target type",
            {"TargetType": "alb", "Protocol": "TCP"},
            {},
            "error",
            "alb",
            "instance or ip",
            "a group of type alb takes no hosts, and the type of a group cannot be changed: make another one",
            ANOTHER,
        ),
        ("target type", {"TargetType": "ip"}, {}, "ok", "ip", "instance or ip", "", ""),
        (
            "region",
            {},
            moved(region="eu-west-1"),
            "error",
            "us-east-1",
            "eu-west-1",
            "gpu-9 is in eu-west-1, and a group takes only hosts of its own region: make one there",
            ANOTHER.replace(REGION, "eu-west-1"),
        ),
        ("region", {}, moved(region=""), "ok", "us-east-1", "us-east-1", "", ""),
        (
            "VPC",
            {},
            moved(vpc="vpc-2"),
            "error",
            "vpc-1",
            "vpc-2",
            "gpu-9 is in vpc-2, and a group of type instance takes only hosts of its own VPC: make one there",
            ANOTHER.replace("vpc-1", "vpc-2"),
        ),
        (
            "port",
            {"Port": 80},
            {},
            "error",
            "80",
            "8000",
            "the edge listens on 8000: what is registered without a port, as Auto Scaling does, gets its requests on "
            "80, where nothing answers. The port of a group cannot be changed: make another one",
            ANOTHER,
        ),
        (
            "protocol",
            {"Protocol": "HTTPS"},
            {},
            "error",
            "HTTPS",
            "HTTP or TCP",
            "the edge does not speak TLS, so no request would be answered. The protocol of a group cannot be changed: "
            "make another one",
            ANOTHER,
        ),
        (
            "protocol",
            {"Protocol": "HTTP"},
            {"tls": True},
            "error",
            "HTTP",
            "HTTPS or TLS or TCP",
            "the edge speaks TLS, so no request would be answered. The protocol of a group cannot be changed: make "
            "another one",
            ANOTHER.replace("protocol HTTP", "protocol HTTPS"),
        ),
        ("protocol", {"Protocol": "TLS"}, {"tls": True}, "ok", "TLS", "HTTPS or TLS or TCP", "", ""),
        (
            "health check protocol",
            {"Protocol": "TCP", "HealthCheckProtocol": "TCP", "HealthCheckPath": None, "Matcher": None},
            {},
            "error",
            "TCP",
            "HTTP",
            "a check over TCP does not see that /health is 503: a host that drains, or whose engines are down, keeps "
            "its traffic",
            f"{ON_GROUP} --health-check-protocol HTTP --health-check-path /health --matcher HttpCode=200",
        ),
        (
            "health check protocol",
            {},
            {"tls": True},
            "error",
            "HTTP",
            "HTTPS",
            "the edge speaks TLS, so a check over HTTP fails on every host",
            f"{ON_GROUP} --health-check-protocol HTTPS --health-check-path /health --matcher HttpCode=200",
        ),
        (
            "health check port",
            {"HealthCheckPort": "9000"},
            {},
            "error",
            "9000",
            "traffic-port",
            "the check asks port 9000, and the edge serves on 8000",
            f"{ON_GROUP} --health-check-port traffic-port",
        ),
        ("health check port", {"HealthCheckPort": "8000"}, {}, "ok", "8000", "traffic-port", "", ""),
        (
            "health check path",
            {"HealthCheckPath": "/"},
            {},
            "error",
            "/",
            "/health",
            "only /health says whether the host serves; the edge answers / with 401 or 404",
            f"{ON_GROUP} --health-check-path /health",
        ),
        (
            "matcher",
            {"Matcher": {"HttpCode": "204,301-302"}},
            {},
            "error",
            "204,301-302",
            "200",
            "/health is 200 while the host serves, so no host would ever be healthy",
            f"{ON_GROUP} --matcher HttpCode=200",
        ),
        (
            "matcher",
            {"Matcher": {"HttpCode": "200-599"}},
            {},
            "error",
            "200-599",
            "200",
            "/health is 503 while the host drains, so it would keep its traffic",
            f"{ON_GROUP} --matcher HttpCode=200",
        ),
        (
            "matcher",
            {"Matcher": {"HttpCode": "200-399"}},
            {},
            "warning",
            "200-399",
            "200",
            "another server on that port could pass the check; /health is 200 or 503",
            f"{ON_GROUP} --matcher HttpCode=200",
        ),
        (
            "matcher",
            {"Matcher": {"GrpcCode": "12"}},
            {},
            "error",
            "gRPC 12",
            "200",
            "/health is 200 while the host serves, so no host would ever be healthy",
            f"{ON_GROUP} --matcher HttpCode=200",
        ),
        (
            "time to unhealthy",
            SLOW,
            {"mode": HEALTH},
            "error",
            "30 s x 2",
            "less than 15 s",
            "the balancer takes up to 60 s to see that a host is gone, and one that drains serves for only 15 s "
            "(edge_lame_duck): requests in between are refused",
            f"{ON_GROUP} {FAST}",
        ),
        (
            "time to unhealthy",
            SLOW,
            {},
            "warning",
            "30 s x 2",
            "less than 15 s",
            "the balancer takes up to 60 s to see that a host is gone, and one that drains by itself (a Spot notice) "
            "serves for only 15 s (edge_lame_duck): requests in between are refused",
            f"{ON_GROUP} {FAST}",
        ),
        ("time to unhealthy", SLOW, {"mode": HEALTH, "lame_duck": 61}, "ok", "30 s x 2", "less than 61 s", "", ""),
        (
            "time to unhealthy",
            {},
            {"mode": HEALTH, "lame_duck": 10},
            "error",
            "5 s x 2",
            "less than 10 s",
            "the balancer takes up to 10 s to see that a host is gone, and one that drains serves for only 10 s "
            "(edge_lame_duck): requests in between are refused",
            "edge_lame_duck: 15 in group_vars, then site.yml",
        ),
        (
            "time to healthy",
            {"HealthCheckIntervalSeconds": 30, "HealthyThresholdCount": 5},
            {},
            "warning",
            "30 s x 5",
            "less than 120 s",
            "a host whose first check fails is healthy after 150 s at the earliest, and a rollout stops after 120 s "
            "(balancer_healthy_timeout)",
            f"{ON_GROUP} --health-check-interval-seconds 5 --health-check-timeout-seconds 4 "
            "--healthy-threshold-count 2",
        ),
    ],
)
def test_a_setting_is_judged(
    setting: str,
    described: dict[str, t.Any],
    wants: dict[str, t.Any],
    verdict: str,
    value: str,
    wanted: str,
    why: str,
    repair: str,
) -> None:
    own = needs(**wants)
    found = [one.found for one in findings(group(described), own, setting)]
    one = found[-1]
    assert (one.verdict, one.value, one.wanted, one.why, one.repair) == (verdict, value, wanted, why, repair)
    if not wants:
        assert {one.found.verdict for one in findings(group(), own, setting)} == {"ok"}


def test_a_group_that_takes_no_hosts_has_no_other_rows() -> None:
    assert [one.setting for one in look(group({"TargetType": "lambda", "HealthCheckPath": "/"}), needs())] == [
        "target type"
    ]


def test_a_check_over_tcp_has_no_path_and_no_matcher_to_judge() -> None:
    reading = group({"Protocol": "TCP", "HealthCheckProtocol": "TCP", "HealthCheckPath": None, "Matcher": None})
    assert not [one for name in ("health check path", "matcher") for one in findings(reading, needs(), name)]


def test_addresses_of_other_networks_may_be_targets() -> None:
    assert findings(group({"TargetType": "ip"}), needs(**moved(vpc="vpc-2")), "VPC") == []


def test_another_group_for_an_nlb_is_one_for_an_nlb() -> None:
    reading = nlb()
    (one,) = findings(dataclasses.replace(reading, described={**reading.described, "Port": 80}), needs(), "port")
    assert "--protocol TCP --port 8000" in one.found.repair


def test_a_group_may_have_hosts_with_several_ports() -> None:
    own = needs(hosts=(HOSTS[0], dataclasses.replace(HOSTS[1], port=8001)))
    (one,) = findings(group({"Port": 8001}), own, "port")
    assert (one.found.verdict, one.found.wanted) == ("ok", "8000 or 8001")
    (one,) = findings(group({"HealthCheckPort": "8000"}), own, "health check port")
    assert one.found.why == "the check asks port 8000, and the edge serves on 8000 and 8001"


def test_a_port_that_the_variable_names_is_right_unless_auto_scaling_registers_hosts() -> None:
    scaled = [{"AutoScalingGroupName": "gpus", "HealthCheckType": "EC2"}]
    (one,) = findings(group({"Port": 80}), needs(port_given=True), "port")
    assert one.found.verdict == "ok"
    (one,) = findings(group({"Port": 80}, scaling=scaled), needs(port_given=True), "port")
    assert one.found.verdict == "error"


def test_in_mode_health_nothing_waits_for_a_registered_host() -> None:
    assert findings(group({"HealthyThresholdCount": 10}), needs(mode=HEALTH), "time to healthy") == []
