"""The examples for AWS: what the agent collects, and the alarms on it."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.alarms import check_names

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "aws"
TEMPLATE = EXAMPLES / "alarms.yml"
AGENT: t.Any = json.loads((EXAMPLES / "cloudwatch-agent.json").read_text())
RESOURCES: t.Any = yaml.safe_load(TEMPLATE.read_text())["Resources"]
METRIC_ALARMS = {name: one["Properties"] for name, one in RESOURCES.items() if one["Type"] == "AWS::CloudWatch::Alarm"}

#: From translator/translate/metrics/config/registered_metrics.go of github.com/aws/amazon-cloudwatch-agent, by the
#: sections of its configuration, with the prefix that the agent gives to the metrics of each.
KNOWN = {
    "disk": ("disk_", {"free", "inodes_free", "inodes_total", "inodes_used", "total", "used", "used_percent"}),
    "mem": (
        "mem_",
        {"active", "available", "available_percent", "buffered", "cached", "free", "total", "used_percent"},
    ),
    "nvidia_gpu": (
        "nvidia_smi_",
        {
            "utilization_gpu",
            "temperature_gpu",
            "power_draw",
            "utilization_memory",
            "fan_speed",
            "memory_total",
            "memory_used",
            "memory_free",
            "pcie_link_gen_current",
            "pcie_link_width_current",
            "clocks_current_sm",
            "clocks_current_memory",
        },
    ),
}
#: Of an ALB and its target groups, with the dimensions that they have.
OF_THE_BALANCER = {
    "HTTPCode_Target_5XX_Count": {"LoadBalancer", "TargetGroup"},
    "HTTPCode_ELB_5XX_Count": {"LoadBalancer"},
}


def collected() -> set[str]:
    """The metrics that the agent sends."""
    sections = AGENT["metrics"]["metrics_collected"]
    return {KNOWN[section][0] + name for section, own in sections.items() for name in own["measurement"]}


def test_the_agent_knows_every_measurement_and_collects_gpus_disks_and_memory() -> None:
    sections = AGENT["metrics"]["metrics_collected"]
    assert set(sections) == set(KNOWN)
    for section, own in sections.items():
        assert set(own["measurement"]) <= KNOWN[section][1], section
    assert "/opt/dlami/nvme" in sections["disk"]["resources"], "where the weights are"


def test_alarms_on_hosts_are_on_metrics_that_the_agent_sends_without_dimensions() -> None:
    namespace = AGENT["metrics"]["namespace"]
    assert [] in AGENT["metrics"]["aggregation_dimensions"]
    on_hosts = {name: one for name, one in METRIC_ALARMS.items() if one["Namespace"] == namespace}
    assert {one["MetricName"] for one in on_hosts.values()} <= collected()
    assert {one["MetricName"].partition("_")[0] for one in on_hosts.values()} == {"disk", "mem", "nvidia"}
    for name, one in on_hosts.items():
        assert "Dimensions" not in one, name
        assert one["Statistic"] == "Maximum", f"{name}: of all hosts, the worst"
        assert one["Period"] >= AGENT["agent"]["metrics_collection_interval"], name


def test_the_other_alarms_are_on_the_balancer() -> None:
    others = [one for one in METRIC_ALARMS.values() if one["Namespace"] != AGENT["metrics"]["namespace"]]
    assert {one["MetricName"] for one in others} == set(OF_THE_BALANCER)
    for one in others:
        assert one["Namespace"] == "AWS/ApplicationELB"
        assert {dimension["Name"] for dimension in one["Dimensions"]} == OF_THE_BALANCER[one["MetricName"]]
        # These metrics exist only while there are errors.
        assert one["TreatMissingData"] == "notBreaching"


def test_the_composite_alarm_is_of_alarms_in_the_template() -> None:
    (composite,) = (one for one in RESOURCES.values() if one["Type"] == "AWS::CloudWatch::CompositeAlarm")
    rule = composite["Properties"]["AlarmRule"]
    named = re.findall(r'ALARM\("([\w-]+)"\)', rule)
    assert " OR ".join(f'ALARM("{name}")' for name in named) == rule
    assert sorted(named) == sorted(METRIC_ALARMS[name]["AlarmName"] for name in composite["DependsOn"])


@pytest.mark.parametrize("page", ["docs/aws.md", "docs/aws.zh-CN.md"])
def test_the_page_says_what_each_alarm_is_for(page: str) -> None:
    names = [one["Properties"]["AlarmName"] for one in RESOURCES.values()]
    assert check_names(names) == names
    rows = re.findall(r"^\| `(fleet-[\w-]+)` \|", (ROOT / page).read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(names)
    assert all(one["Properties"]["AlarmDescription"].strip() for one in RESOURCES.values())
