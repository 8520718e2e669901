from __future__ import annotations

import importlib.util
import json
import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.plugin_utils.aws import rights
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.rights import RIGHTS, Policy, Right, Scope

from tests import aws_rights
from tests.unit.plugins.plugin_utils.aws.boto3_calls import Call, NotUnderstood, find

ROOT = Path(__file__).parents[5]
OWN = {(right.service, right.method) for right in RIGHTS if right.method and not right.source}
#: Calls of the inventory plugin behind options that our inventory does not use.
NOT_USED = {
    ("get_inventory", "use_ssm_inventory"),
    ("list_hosted_zones", "route53_enabled"),
    ("list_resource_record_sets", "route53_enabled"),
    ("assume_role", "assume_role_arn"),
}
#: Statements whose actions AWS allows on everything or not at all.
WITHOUT_RESOURCES = ("ListHosts", "ListRegions", "ReadAlarms", "ReadPriceList", "ReadTargetGroups", "ReadScalingGroups")


def sources(tmp_path: Path, **files: str) -> set[Call]:
    paths = []
    for name, text in files.items():
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        paths.append(path)
    return find(paths, tmp_path)


def test_every_call_of_the_plugins_has_its_row_and_every_row_its_call() -> None:
    # The table itself names every call, and makes none.
    files = sorted(set((ROOT / "plugins").rglob("*.py")) - {ROOT / "plugins/plugin_utils/aws/rights.py"})
    made = find(files, ROOT)
    missing = [f"{call.place}: {call.service} {call.method}" for call in made if (call.service, call.method) not in OWN]
    assert missing == [], "add a row to plugins/plugin_utils/aws/rights.py, then run: python -m tests.aws_rights"
    assert OWN - {(call.service, call.method) for call in made} == set(), "rows without a call"


def test_no_call_hides_behind_a_computed_name() -> None:
    """In two places the method is a variable; their callers name it, and the test above finds those."""
    hidden = {
        path.name
        for path in (ROOT / "plugins").rglob("*.py")
        if re.search(r"getattr\([\w.]*client\b", path.read_text()) or re.search(r"_make_api_call", path.read_text())
    }
    assert hidden == {"secrets_manager.py", "session.py"}


def test_the_rows_of_the_inventory_are_the_calls_of_its_plugin() -> None:
    named: dict[str, set[str]] = {}
    for right in RIGHTS:
        if right.source:
            collection, _colon, name = right.source.partition(":")
            assert collection == "amazon.aws"
            named.setdefault(name, set()).add(right.method)
    assert named
    amazon = importlib.util.find_spec("ansible_collections.amazon.aws")
    assert amazon is not None
    assert amazon.submodule_search_locations is not None
    options = {name for path in (ROOT / "inventories/aws").glob("*.yml") for name in yaml.safe_load(path.read_text())}
    for name, methods in named.items():
        text = (Path(amazon.submodule_search_locations[0]) / name).read_text()
        made = set(re.findall(r'get_paginator\("(\w+)"\)', text))
        made |= set(re.findall(r"\b(?:client|connection|sts)\.([a-z]+_[a-z_]+)\(", text)) - {"get_paginator"}
        assert made - {method for method, _option in NOT_USED} == methods, name
    assert not options & {option for _method, option in NOT_USED}


def test_the_files_are_written_from_the_table() -> None:
    assert aws_rights.POLICIES.read_text() == aws_rights.policies(), "run: python -m tests.aws_rights"
    text = aws_rights.PAGE.read_text()
    assert aws_rights.written(text) == text, "run: python -m tests.aws_rights"


def test_the_chinese_page_names_every_policy() -> None:
    text = (ROOT / "docs/aws.zh-CN.md").read_text()
    assert [policy.name for policy in rights.POLICIES if f"`{policy.name}`" not in text] == []


def test_no_policy_allows_more_than_its_rows() -> None:
    for name, policy in rights.documents().items():
        actions = [action for statement in policy["Statement"] for action in statement["Action"]]
        assert actions, name
        assert not [action for action in actions if "*" in action], name
        assert set(actions) == {action for right in RIGHTS if right.policy.name == name for action in right.actions}
        for statement in policy["Statement"]:
            whole = statement["Resource"] == ["*"]
            assert whole == (statement["Sid"] in WITHOUT_RESOURCES), statement["Sid"]
    # An instance can be broken into: what is on it reads weights and nothing else.
    hosts = {action for right in RIGHTS if right.policy.name.startswith("hosts_") for action in right.actions}
    assert hosts == {"s3:ListBucket", "s3:GetObject", "kms:Decrypt"}


def test_the_key_store_module_documents_the_same_actions() -> None:
    text = (ROOT / "plugins/modules/api_key.py").read_text().partition("secretsmanager:")[2][:400]
    named = {
        action.partition(":")[2] for right in RIGHTS if right.policy == rights.KEY_STORE for action in right.actions
    }
    assert {action for action in named if action not in text} == set()


def test_a_policy_of_a_new_option() -> None:
    policy, scope = Policy("x", "the controller", "now"), Scope("Groups", ("arn:a", "arn:b"), {"Bool": {"k": "true"}})
    rows = [Right("elbv2", "x", (action,), policy, scope, "why", "by") for action in ("b:B", "a:A", "b:B")]
    assert rights.document(policy, rows) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Groups",
                "Effect": "Allow",
                "Action": ["a:A", "b:B"],
                "Resource": ["arn:a", "arn:b"],
                "Condition": {"Bool": {"k": "true"}},
            }
        ],
    }
    json.dumps(rights.document(policy, rows))
    other = Right("", "", ("c:C",), policy, Scope("Groups", ("*",)), "why", "by")
    with pytest.raises(ValueError, match="Two scopes have the name Groups"):
        rights.document(policy, [*rows, other])


FACTORY = """
def connect(service, region):
    return boto3.session.Session().client(service, region_name=region)
"""


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('boto3.client("s3").get_object(Bucket="b")', {("s3", "get_object")}),
        (
            's = boto3.session.Session()\nc = s_session.client("s3")\nc.get_paginator("list_objects_v2").paginate()',
            {("s3", "list_objects_v2")},
        ),
        (
            'c = boto3.client("elbv2")\nc.get_waiter("target_in_service").wait()',
            {("elbv2", "describe_target_health")},
        ),
        ('aws.call("get_secret_value", 1)\nboto3.client("secretsmanager")', {("secretsmanager", "get_secret_value")}),
        (FACTORY + 'x = connect("sqs", "r")\nx.receive_message()', {("sqs", "receive_message")}),
        (
            'elbv2 = boto3.client("elbv2")\nec2 = boto3.client("ec2")\nself.elbv2.describe_tags()\nec2.describe_tags()',
            {("elbv2", "describe_tags"), ("ec2", "describe_tags")},
        ),
        ('boto3.client("s3")\nself.get_object()', set()),
        ("view.client(name)", set()),
    ],
)
def test_calls_are_found(tmp_path: Path, text: str, calls: set[tuple[str, str]]) -> None:
    assert {(call.service, call.method) for call in sources(tmp_path, a=text)} == calls


def test_a_client_that_is_made_in_one_file_is_called_in_another(tmp_path: Path) -> None:
    found = sources(tmp_path, a='boto3.client("sqs")', b="self._queue.delete_message(QueueUrl=1)")
    assert [(call.service, call.method, call.place) for call in found] == [("sqs", "delete_message", "b.py:1")]


def test_a_method_of_two_services_is_that_of_the_module_that_the_file_imports(tmp_path: Path) -> None:
    clients = 'boto3.client("secretsmanager")\nboto3.client("cloudwatch")'
    found = sources(tmp_path, a=clients, b='from a.secrets_manager import x\nx.call("tag_resource", 1)')
    assert {(call.service, call.method) for call in found} == {("secretsmanager", "tag_resource")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("boto3.client(name)", "a.py:1: name the service of this client literally"),
        (FACTORY + "connect(kind, 1)", "a.py:4: name the service"),
        ('boto3.resource("s3")', "use a client"),
        ('boto3.client("elbv2")\nboto3.client("ec2")\nx.describe_tags()', "describe_tags is a call of ec2, elbv2"),
        ('boto3.client("s3").get_waiter("no_such_waiter")', "No service has the waiter"),
    ],
)
def test_what_cannot_be_attributed_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(NotUnderstood, match=said):
        sources(tmp_path, a=text)


def test_the_table_of_the_page_has_a_line_for_each_right() -> None:
    page = aws_rights.PAGE.read_text().partition(aws_rights.BEGIN)[2].partition(aws_rights.END)[0]
    lines: t.Any = [line for line in page.splitlines() if line.startswith("| `")]
    assert len([line for line in lines if ":" in line.split("|")[1]]) == sum(len(right.actions) for right in RIGHTS)
