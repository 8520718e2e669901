"""examples/aws/fleet.yml: what CloudFormation makes of it, and that it agrees with the rest of the repository."""

from __future__ import annotations

import os
import re
import typing as t

import boto3
import pytest
import yaml
from moto import mock_aws

from tests import aws_rights
from tests.project import ROOT

TEMPLATE = ROOT / "examples" / "aws" / "fleet.yml"
BODY = TEMPLATE.read_text()
DOCUMENT: t.Any = yaml.safe_load(BODY)
RESOURCES: t.Any = DOCUMENT["Resources"]
REGION = "us-east-1"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    """An AWS account of moto, and none of this machine's AWS settings."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    with mock_aws():
        yield


def parameters(**further: str) -> list[dict[str, str]]:
    """Those that a person has to give, in a new VPC with two subnets."""
    ec2 = boto3.client("ec2")
    ec2.create_key_pair(KeyName="ops")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"]
        for number, zone in enumerate("ab")
    ]
    given = {
        "VpcId": vpc,
        "Subnets": ",".join(one["SubnetId"] for one in subnets),
        "KeyName": "ops",
        "CertificateArn": boto3.client("acm").request_certificate(DomainName="llm.example.com")["CertificateArn"],
        "ImageId": "ami-0abcdef1234567890",
        **further,
    }
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]


def left() -> dict[str, int]:
    """What there is of each kind that the template makes, apart from alarms, which moto leaves out of stacks."""
    groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
    return {
        "security groups": len([group for group in groups if group["GroupName"] != "default"]),
        "roles": len(boto3.client("iam").list_roles()["Roles"]),
        "profiles": len(boto3.client("iam").list_instance_profiles()["InstanceProfiles"]),
        "balancers": len(boto3.client("elbv2").describe_load_balancers()["LoadBalancers"]),
        "target groups": len(boto3.client("elbv2").describe_target_groups()["TargetGroups"]),
        "launch templates": len(boto3.client("ec2").describe_launch_templates()["LaunchTemplates"]),
        "groups": len(boto3.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]),
        "queues": len(boto3.client("sqs").list_queues().get("QueueUrls", [])),
        "rules": len(boto3.client("events").list_rules()["Rules"]),
    }


def test_cloudformation_would_take_the_template_from_a_file() -> None:
    assert len(BODY.encode()) <= 51200, "larger ones have to be in a bucket"


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("further", "made"),
    [
        ({}, {"security groups": 3, "target groups": 1}),
        (
            {
                "ListenTo": "gateways",
                "Spot": "true",
                "SessionManager": "true",
                "KeyStorePrefix": "inference-fleet",
                "WeightsBucket": "models",
                "WeightsPrefix": "qwen",
            },
            {"security groups": 4, "target groups": 2},
        ),
    ],
    ids=["hosts", "everything"],
)
def test_the_whole_stack_is_made_and_deleted(further: dict[str, str], made: dict[str, int]) -> None:
    given = parameters(**further)
    before = left()
    formation = boto3.client("cloudformation")
    formation.create_stack(StackName="fleet", TemplateBody=BODY, Parameters=given, Capabilities=["CAPABILITY_IAM"])
    (stack,) = formation.describe_stacks(StackName="fleet")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    new = {kind: number - before[kind] for kind, number in left().items()}
    assert new == {
        **{"roles": 2, "profiles": 2, "balancers": 1, "launch templates": 1, "groups": 1},
        **{"queues": 2, "rules": 2},
        **made,
    }
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    assert outputs["QueueUrl"].endswith("/fleet-events")
    alarms: t.Any = yaml.safe_load((TEMPLATE.parent / "alarms.yml").read_text())["Parameters"]
    for name, parameter in alarms.items():
        given_there = re.search(rf"{name}=(\S+)", outputs["AlarmsCommand"])
        assert given_there, outputs["AlarmsCommand"]
        assert re.fullmatch(parameter["AllowedPattern"], given_there[1])
    listened = boto3.client("elbv2").describe_listeners(
        LoadBalancerArn=boto3.client("elbv2").describe_load_balancers()["LoadBalancers"][0]["LoadBalancerArn"]
    )["Listeners"]
    assert [(one["Port"], one["Protocol"]) for one in listened] == [(443, "HTTPS")]
    formation.delete_stack(StackName="fleet")
    # moto leaves target groups behind.
    assert {**left(), "target groups": before["target groups"]} == before


@pytest.mark.usefixtures("aws")
def test_what_the_group_starts_is_joining_and_asks_for_tokens() -> None:
    formation = boto3.client("cloudformation")
    given = parameters(MinSize="1")
    formation.create_stack(StackName="fleet", TemplateBody=BODY, Parameters=given, Capabilities=["CAPABILITY_IAM"])
    ec2 = boto3.client("ec2")
    (reservation,) = ec2.describe_instances()["Reservations"]
    tags = {tag["Key"]: tag["Value"] for tag in reservation["Instances"][0]["Tags"]}
    assert {name: tags[name] for name in tags if not name.startswith("aws:")} == {
        "Name": "fleet",
        "inference:role": "inference",
        "inference:state": "joining",
    }
    (version,) = ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]
    options = version["LaunchTemplateData"]["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)


@pytest.mark.usefixtures("aws")
def test_an_event_of_the_group_comes_to_the_queue_and_goes_to_the_dead_letters_after_five_receipts() -> None:
    formation = boto3.client("cloudformation")
    given = parameters()
    formation.create_stack(StackName="fleet", TemplateBody=BODY, Parameters=given, Capabilities=["CAPABILITY_IAM"])
    event = {
        "Source": "aws.autoscaling",
        "DetailType": "EC2 Instance-launch Lifecycle Action",
        "Detail": '{"AutoScalingGroupName": "fleet", "EC2InstanceId": "i-0a1b2c3d4e5f60718"}',
    }
    other = {**event, "Detail": '{"AutoScalingGroupName": "another", "EC2InstanceId": "i-0a1b2c3d4e5f60718"}'}
    spot = {"Source": "aws.ec2", "DetailType": "EC2 Spot Instance Interruption Warning", "Detail": "{}"}
    boto3.client("events").put_events(Entries=[event, other, spot])
    sqs = boto3.client("sqs")
    queue = sqs.get_queue_url(QueueName="fleet-events")["QueueUrl"]
    # The queue itself makes a receiver wait for twenty seconds if there is nothing.
    at_once = {"QueueUrl": queue, "MaxNumberOfMessages": 10, "VisibilityTimeout": 0, "WaitTimeSeconds": 0}
    assert len(sqs.receive_message(**at_once)["Messages"]) == 2, "those of the group, and those of EC2"
    for _time in range(6):
        sqs.receive_message(**at_once)
    dead = sqs.get_queue_url(QueueName="fleet-events-dead")["QueueUrl"]
    assert len(sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10)["Messages"]) == 2


def properties(name: str) -> dict[str, t.Any]:
    own: dict[str, t.Any] = RESOURCES[name]["Properties"]
    return own


def test_the_hooks_give_up_what_does_not_join_and_let_go_of_what_does_not_leave() -> None:
    hooks = {one["LifecycleHookName"]: one for one in properties("Group")["LifecycleHookSpecificationList"]}
    assert {name: one["DefaultResult"] for name, one in hooks.items()} == {"join": "ABANDON", "leave": "CONTINUE"}
    assert {name: one["LifecycleTransition"].rpartition("_")[2] for name, one in hooks.items()} == {
        "join": "LAUNCHING",
        "leave": "TERMINATING",
    }


def test_the_group_does_not_replace_what_a_rollout_drains() -> None:
    assert properties("Group")["HealthCheckType"] == "EC2"


def test_hosts_take_requests_from_the_balancer_and_gateways_alone_and_ssh_from_the_controller() -> None:
    assert "SecurityGroupIngress" not in properties("HostSecurityGroup")
    rules = [
        one["Properties"]
        for one in RESOURCES.values()
        if one["Type"] == "AWS::EC2::SecurityGroupIngress"
        and one["Properties"]["GroupId"] == {"Fn::GetAtt": ["HostSecurityGroup", "GroupId"]}
    ]
    allowed = {(rule["FromPort"], rule["SourceSecurityGroupId"]["Fn::GetAtt"][0]) for rule in rules}
    assert allowed == {
        (8000, "BalancerSecurityGroup"),
        (8000, "GatewaySecurityGroup"),
        (22, "ControllerSecurityGroup"),
    }
    assert all("CidrIp" not in rule for rule in rules)


def test_only_the_rules_of_the_template_may_send_to_the_queue() -> None:
    (statement,) = properties("EventsPolicy")["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    rules = {name for name, one in RESOURCES.items() if one["Type"] == "AWS::Events::Rule"}
    assert {arn["Fn::GetAtt"][0] for arn in statement["Condition"]["ArnEquals"]["aws:SourceArn"]} == rules


def test_the_roles_have_the_policies_of_the_table() -> None:
    assert aws_rights.template(BODY) == BODY, "run: python -m tests.aws_rights"
    written = set(re.findall(r"PolicyName: (\w+)", BODY))
    names = {policy.name for policy in aws_rights.rights.POLICIES}
    assert {name for name in names if name.startswith(("controller", "hosts")) and not name.endswith("_kms")} == written


def test_a_policy_with_a_word_that_the_template_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="The template has no value for SOMETHING"):
        aws_rights.statements({"Resource": ["arn:aws:x:REGION:SOMETHING"]})
    assert aws_rights.statements({"Resource": ["arn:aws:x:REGION:y", "*"]}) == [
        "Resource:",
        "  - Fn::Sub: >-",
        "      arn:aws:x:${AWS::Region}:y",
        '  - "*"',
    ]


@pytest.mark.parametrize("page", ["docs/aws.md", "docs/aws.zh-CN.md"])
def test_the_page_names_each_parameter_and_alarm(page: str) -> None:
    text = (ROOT / page).read_text()
    alarms = [one["Properties"]["AlarmName"]["Fn::Sub"] for one in RESOURCES.values() if "CloudWatch" in one["Type"]]
    missing = [name for name in DOCUMENT["Parameters"] if f"`{name}`" not in text]
    missing += [name for name in alarms if f"`{name.replace('${FleetName}', 'fleet')}`" not in text]
    assert missing == []
