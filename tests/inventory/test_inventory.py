"""The inventories, through production's plugin."""

from __future__ import annotations

import json
import os
import re
import shutil
import typing as t
from pathlib import Path

import jinja2
import pytest
import yaml

from tests.inventory.conftest import REGION, ROOT, Api, ask, run

GOLDEN = Path(__file__).parent / "golden.json"
GROUPS = {
    "inference",
    "gateway",
    "gateway_store",
    "monitoring",
    "engine_vllm",
    "engine_sglang",
    "ring_canary",
    "ring_stable",
    "not_running",
    "joining",
    "leaving",
}
VARIABLES = (
    "fleet_instance_type",
    "fleet_engine_tag",
    "fleet_role",
    "fleet_state",
    "fleet_region",
    "fleet_purchase",
)
CONNECTION = ("endpoint_url", "access_key", "secret_key", "regions")


def role(value: str, name: str, **tags: str) -> dict[str, str]:
    return {"Name": name, "inference:role": value, **{f"inference:{key}": tag for key, tag in tags.items()}}


def seed(api: Api) -> dict[str, str]:
    """A realistic fleet: sizes, missing tags, stopped machines, and machines that are not ours."""
    ids = {
        "llm-canary-1": api.launch("g6e.xlarge", role("inference", "llm-canary-1", ring="canary")),
        "llm-a-1": api.launch("g6e.12xlarge", role("inference", "llm-a-1", ring="stable", engine="sglang")),
        "llm-a-2": api.launch("g6e.48xlarge", role("inference", "llm-a-2")),
        "llm-a-3": api.launch("g6e.2xlarge", role("inference", "llm-a-3", engine="vllm")),
        "LLM.Big_4": api.launch("g6e.24xlarge", role("inference", "LLM.Big_4", ring="stable", engine="vllm")),
        "nameless": api.launch("g6e.4xlarge", {"inference:role": "inference"}),
        "misspelt-ring": api.launch("g6e.xlarge", role("inference", "misspelt-ring", ring="stabel")),
        "misspelt-role": api.launch("g6e.xlarge", role("inferense", "misspelt-role")),
        "stopped": api.launch("g6e.xlarge", role("inference", "stopped", ring="canary")),
        "terminated": api.launch("g6e.xlarge", role("inference", "terminated", ring="canary")),
        "gateway-1": api.launch("c7i.xlarge", role("gateway", "gateway-1")),
        "gateway-2": api.launch("c7i.xlarge", role("gateway", "gateway-2", ring="canary", engine="vllm")),
        "store-1": api.launch("m7i.large", role("gateway_store", "store-1")),
        "watch-1": api.launch("t3.medium", role("monitoring", "watch-1")),
        "web-1": api.launch("t3.medium", {"Name": "web-1", "team": "web"}),
    }
    api.client().stop_instances(InstanceIds=[ids["stopped"]])
    api.client().terminate_instances(InstanceIds=[ids["terminated"]])
    return ids


def plain(value: t.Any) -> t.Any:
    """Ansible marks data from the API as text that must not be rendered as a template."""
    return value["__ansible_unsafe"] if isinstance(value, dict) else value


def essence(inventory: dict[str, t.Any], nameless: str) -> dict[str, t.Any]:
    """Groups with their hosts, and the variables that the fleet's roles read; an instance's name is fixed."""

    def named(host: str) -> str:
        return "i-nameless" if host == nameless else host

    variables = inventory["_meta"]["hostvars"]
    return {
        "groups": {
            group: {key: sorted(map(named, content[key])) for key in ("hosts", "children") if key in content}
            for group, content in sorted(inventory.items())
            if group not in ("_meta", "aws_ec2")
        },
        "hosts": {
            named(host): {key: plain(content[key]) for key in VARIABLES} for host, content in sorted(variables.items())
        },
    }


def test_a_grown_fleet_reads_as_recorded(api: Api) -> None:
    ids = seed(api)
    answer = ask("inventories/lab", api.url)
    assert answer.status == 0, answer.said
    seen = essence(answer.inventory, ids["nameless"])
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(seen, indent=2) + "\n", encoding="utf-8")
    assert seen == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_how_an_instance_was_bought_is_known(api: Api) -> None:
    api.launch("g6e.xlarge", role("inference", "llm-1"), InstanceMarketOptions={"MarketType": "spot"})
    api.launch("g6e.xlarge", role("inference", "llm-2"))
    answer = ask("inventories/lab", api.url)
    assert answer.status == 0, answer.said
    bought = {name: plain(host["fleet_purchase"]) for name, host in answer.hosts.items()}
    assert bought == {"llm-1": "spot", "llm-2": "on-demand"}


@pytest.mark.parametrize(
    ("variables", "purchase"),
    [
        ({"aws_placement": {"tenancy": "default"}}, "on-demand"),
        ({"aws_placement": {}}, "on-demand"),
        ({"aws_placement": {"tenancy": "dedicated"}}, "dedicated"),
        ({"aws_placement": {"tenancy": "default"}, "aws_instance_lifecycle": "capacity-block"}, "capacity-block"),
    ],
)
def test_what_moto_does_not_sell_is_known_too(variables: dict[str, t.Any], purchase: str) -> None:
    composed = yaml.safe_load((ROOT / "inventories/aws/aws_ec2.yml").read_text())["compose"]["fleet_purchase"]
    assert jinja2.Environment(autoescape=True).compile_expression(composed)(**variables) == purchase


def test_two_instances_of_one_name_are_two_hosts(api: Api) -> None:
    first = api.launch("g6e.xlarge", role("inference", "llm"))
    second = api.launch("g6e.12xlarge", role("inference", "llm", engine="sglang"))
    answer = ask("inventories/lab", api.url)
    assert answer.status == 0, answer.said
    assert answer.members("inference") | answer.members("ring_stable") == {f"llm_{first}", f"llm_{second}"}
    assert answer.members("engine_sglang") == {f"llm_{second}"}
    addresses = {plain(host["ansible_host"]) for host in answer.hosts.values()}
    assert len(addresses) == 2
    said = " ".join(answer.said.split())
    assert "2 instances have the Name llm" in said
    assert f"{first} (running) is llm_{first}" in said
    assert f"{second} (running) is llm_{second}" in said


def test_a_tag_of_its_own_names_a_host_whatever_name_it_shares(api: Api) -> None:
    for own in ("llm-1", "llm-2"):
        api.launch("g6e.xlarge", {**role("inference", "llm"), "inference:name": own})
    answer = ask("inventories/lab", api.url, ANSIBLE_DEPRECATION_WARNINGS="false")
    assert answer.members("inference") == {"llm-1", "llm-2"}
    assert "WARNING" not in answer.said


def test_instances_of_an_auto_scaling_group_are_hosts_of_their_own(api: Api) -> None:
    scaling = api.client("autoscaling")
    image = {"ImageId": "ami-0abcdef1234567890", "InstanceType": "g6e.xlarge"}
    scaling.create_launch_configuration(LaunchConfigurationName="gpu", **image)
    scaling.create_auto_scaling_group(
        AutoScalingGroupName="gpu",
        LaunchConfigurationName="gpu",
        MinSize=0,
        MaxSize=2,
        DesiredCapacity=1,
        AvailabilityZones=[f"{REGION}a"],
        Tags=[
            {"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in role("inference", "fleet").items()
        ],
    )
    (first,) = ask("inventories/lab", api.url).members("inference")
    scaling.set_desired_capacity(AutoScalingGroupName="gpu", DesiredCapacity=2)
    answer = ask("inventories/lab", api.url, ANSIBLE_DEPRECATION_WARNINGS="false")
    assert len(answer.members("inference")) == 2
    assert first in answer.members("inference")
    assert all(name == f"fleet_{plain(host['aws_instance_id'])}" for name, host in answer.hosts.items())
    assert "WARNING" not in answer.said


def test_a_host_that_joins_or_leaves_is_no_member_of_the_fleet(api: Api) -> None:
    api.launch("g6e.xlarge", role("inference", "llm-1"))
    api.launch("g6e.xlarge", role("inference", "new", state="joining", ring="canary", engine="vllm"))
    api.launch("c7i.xlarge", role("gateway", "end", state="leaving"))
    gone = api.launch("g6e.xlarge", role("inference", "gone", state="leaving"))
    api.client().stop_instances(InstanceIds=[gone])
    answer = ask("inventories/lab", api.url)
    assert answer.members("joining") == {"new"}
    assert answer.members("leaving") == {"end"}
    assert answer.members("not_running") == {"gone"}
    assert answer.members("inference") == answer.members("ring_stable") == {"llm-1"}
    assert not answer.members("gateway") | answer.members("engine_vllm") | answer.members("ring_canary")
    assert plain(answer.hosts["new"]["fleet_role"]) == "inference"
    assert {name: plain(host["fleet_state"]) for name, host in answer.hosts.items()} == {
        "llm-1": "running",
        "new": "joining",
        "end": "leaving",
        "gone": "stopped",
    }


def test_a_run_can_admit_hosts_that_join_or_leave(api: Api) -> None:
    new = api.launch("g6e.xlarge", role("inference", "new", state="joining", ring="canary", engine="vllm"))
    end = api.launch("g6e.xlarge", role("inference", "end", state="leaving"))
    gone = api.launch("g6e.xlarge", role("inference", "gone", state="leaving"))
    api.launch("g6e.xlarge", role("inference", "later", state="joining"))
    api.client().stop_instances(InstanceIds=[gone])
    for admitted in (f"fleet_admit={new},{end},{gone}", json.dumps({"fleet_admit": [new, end, gone]})):
        answer = run("ansible-inventory", "-i", "inventories/lab", "--list", "-e", admitted, url=api.url)
        assert answer.members("inference") == {"new", "end"}
        assert answer.members("ring_canary") == answer.members("engine_vllm") == {"new"}
        assert answer.members("joining") == {"later"}
        assert answer.members("leaving") == set()
        assert answer.members("not_running") == {"gone"}


def test_an_unknown_state_is_an_error_that_names_the_instance(api: Api) -> None:
    wrong = api.launch("g6e.xlarge", role("inference", "llm", state="joinning"))
    answer = ask("inventories/lab", api.url)
    assert answer.status != 0
    said = " ".join(answer.said.split())
    assert f"The instance {wrong} (llm) has the tag inference:state with the value 'joinning'" in said
    assert "valid are joining and leaving" in said


def test_a_limit_on_a_host_that_joins_says_how_to_admit_it(api: Api) -> None:
    api.launch("g6e.xlarge", role("inference", "llm"))
    new = api.launch("g6e.xlarge", role("inference", "new", state="joining"))
    words = ("ansible-playbook", "-i", "inventories/lab", "playbooks/status.yml", "-l", "new")
    unreachable = ("-e", "ansible_ssh_common_args='-o ProxyCommand=false'")
    refused = run(*words, *unreachable, url=api.url, ANSIBLE_SSH_RETRIES="0")
    assert refused.status != 0
    assert "which is joining" in " ".join(refused.said.split())
    admitted = run(*words, *unreachable, "-e", f"fleet_admit={new}", url=api.url, ANSIBLE_SSH_RETRIES="0")
    assert re.search(r"new\s+UNREACHABLE", admitted.output), admitted.output + admitted.said


def test_a_replaced_host_keeps_its_name_and_its_predecessor_is_known_as_stopped(api: Api) -> None:
    old = api.launch("g6e.xlarge", role("inference", "llm"))
    api.client().stop_instances(InstanceIds=[old])
    api.launch("g6e.xlarge", role("inference", "llm"))
    answer = ask("inventories/lab", api.url)
    assert answer.members("inference") == {"llm"}
    assert answer.members("not_running") == {f"llm_{old}"}


def test_a_name_that_limits_cannot_say_is_not_used_and_named(api: Api) -> None:
    spaced = api.launch("g6e.xlarge", role("inference", "llm a 1"))
    group = api.launch("g6e.xlarge", role("gateway", "gateway"))
    answer = ask("inventories/lab", api.url)
    assert answer.status == 0, answer.said
    assert answer.members("inference") == {spaced}
    assert answer.members("gateway") == {group}
    said = " ".join(answer.said.split())
    assert f"The instance {spaced} has the Name 'llm a 1', which has other characters" in said
    assert f"The instance {group} has the Name 'gateway', which is the name of a group" in said


def test_a_host_that_does_not_run_is_in_no_group_that_is_changed(api: Api) -> None:
    seed(api)
    answer = ask("inventories/lab", api.url)
    assert answer.members("not_running") == {"stopped"}
    for group in GROUPS - {"not_running"}:
        assert "stopped" not in answer.members(group)


def test_a_host_is_reached_at_its_private_address(api: Api) -> None:
    instance = api.launch("g6e.xlarge", role("inference", "one"))
    described = api.client().describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    answer = ask("inventories/lab", api.url)
    assert plain(answer.hosts["one"]["ansible_host"]) == described["PrivateIpAddress"]


def test_production_asks_every_region(api: Api) -> None:
    api.launch("g6e.xlarge", role("inference", "east"))
    api.launch("g6e.xlarge", role("inference", "west"), region="us-west-2")
    assert ask("inventories/aws", api.url).members("inference") == {"east", "west"}


def test_the_plugins_own_deprecation_is_the_only_warning(api: Api) -> None:
    seed(api)
    said = ask("inventories/lab", api.url, ANSIBLE_DEPRECATION_WARNINGS="false").said
    assert "WARNING" not in said


@pytest.mark.parametrize("inventory", ["aws", "lab", "sample"])
def test_all_groups_are_there_without_hosts(inventory: str) -> None:
    if inventory == "sample":
        document = yaml.safe_load((ROOT / "inventories/sample/hosts.yml").read_text(encoding="utf-8"))
    else:
        document = yaml.safe_load((ROOT / f"inventories/{inventory}/groups.yml").read_text(encoding="utf-8"))
    children = document["all"]["children"]
    assert {*children, *children["inference"]["children"]} == GROUPS


def test_the_lab_reads_its_fleet_as_production_does() -> None:
    production, lab = (
        yaml.safe_load((ROOT / f"inventories/{name}/aws_ec2.yml").read_text(encoding="utf-8"))
        for name in ("aws", "lab")
    )
    for option in CONNECTION:
        production.pop(option, None)
        lab.pop(option)
    assert lab == production
    assert lab["strict"] is True


def test_the_sample_is_a_fleet() -> None:
    answer = ask("inventories/sample", "http://127.0.0.1:9")
    assert answer.status == 0, answer.said
    assert answer.members("inference") == {"gpu-1", "gpu-2"}
    assert answer.members("ring_canary") == {"gpu-1"}


@pytest.mark.parametrize("inventory", ["aws", "lab"])
def test_an_api_that_does_not_answer_is_an_error(inventory: str) -> None:
    answer = ask(f"inventories/{inventory}", "http://127.0.0.1:9")
    assert answer.status != 0
    assert "aws_ec2.yml" in answer.said


def test_missing_credentials_are_an_error(api: Api) -> None:
    answer = ask("inventories/aws", api.url, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert answer.status != 0


def test_an_expression_that_fails_is_an_error(api: Api, tmp_path: Path) -> None:
    api.launch("g6e.xlarge", role("inference", "one"))
    shutil.copytree(ROOT / "inventories/lab", tmp_path / "lab")
    source = tmp_path / "lab/aws_ec2.yml"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("aws_instance_type", "aws_no_such_attribute"), encoding="utf-8")
    answer = ask(tmp_path / "lab", api.url)
    assert answer.status != 0
    assert "aws_no_such_attribute" in answer.said


def test_site_refuses_a_fleet_without_hosts(api: Api) -> None:
    api.launch("g6e.xlarge", {"Name": "web-1"})
    answer = run("ansible-playbook", "-i", "inventories/lab", "site.yml", "-e", "engine=vllm", url=api.url)
    assert answer.status != 0
    assert "no host in the group inference" in " ".join(answer.said.split())


@pytest.mark.parametrize(
    ("playbook", "said"),
    [
        ("status", r"end\s+-\s.*leaving.*new\s+-\s.*joining.*old\s+-\s.*stopped"),
        ("keys_status", r"Not reached: end \(leaving\), new \(joining\), old \(stopped\)\."),
        ("verify_gpu", r"Not reached: new \(joining\), old \(stopped\)\."),
    ],
)
def test_a_host_that_is_no_member_is_named_where_every_host_is_meant(
    api: Api, playbook: str, said: str, tmp_path: Path
) -> None:
    api.launch("g6e.xlarge", role("inference", "llm"))
    old = api.launch("g6e.xlarge", role("inference", "old"))
    api.client().stop_instances(InstanceIds=[old])
    api.launch("g6e.xlarge", role("inference", "new", state="joining"))
    api.launch("c7i.xlarge", role("gateway", "end", state="leaving"))
    # Every host is unreachable here.
    unreachable = "ansible_ssh_common_args='-o ProxyCommand=false'"
    answer = run(
        "ansible-playbook",
        *("-i", "inventories/lab", f"playbooks/{playbook}.yml", "-e", unreachable),
        *("-e", f"fleet_key_store={tmp_path}/keys.json"),
        url=api.url,
        ANSIBLE_SSH_RETRIES="0",
    )
    assert re.search(said, " ".join(answer.output.split())), answer.output + answer.said


def test_the_variables_that_are_shipped_are_valid(api: Api, tmp_path: Path) -> None:
    # The Ansible variables of a lab, as lab/settings.py writes them.
    variables = {"engine_pip_environment": {}, "fleet_url": "http://127.0.0.1:8080/v1"}
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "vars.json").write_text(json.dumps(variables))
    api.launch("g6e.xlarge", role("inference", "llm"))
    api.launch("c7i.xlarge", role("gateway", "gw"))
    sources = ("-i", "inventories/lab")
    unreachable = "ansible_ssh_common_args='-o ProxyCommand=false'"
    words = ("site.yml", "--check", "-e", unreachable)
    answer = run("ansible-playbook", *sources, *words, url=api.url, INFERENCE_FLEET_STATE=str(tmp_path))
    assert "PLAY [Check variables and hosts, touching nothing]" in answer.output, answer.output + answer.said
