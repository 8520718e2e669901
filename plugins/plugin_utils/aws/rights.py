# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The AWS rights that the collection needs: one row for each call that it makes, and the IAM policies made of the rows.

``python -m tests.aws_rights`` writes docs/aws-iam.json and the tables of docs/aws.md from here. A unit test finds the
calls in the plugins and compares them with the rows, so a new call begins with its row: the service and the method as
boto3 names them, the policy that it belongs to, the reason, and what it is allowed on. A new option that people turn on
gets a policy of its own. Pure.
"""

from __future__ import annotations

import dataclasses
import typing as t

Condition = t.Mapping[str, t.Mapping[str, t.Union[str, t.Sequence[str]]]]

_EVERYTHING = ("*",)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A policy that people attach.

    Attributes:
        name: its name in docs/aws-iam.json.
        to: who gets it.
        when: when they need it.
    """

    name: str
    to: str
    when: str


@dataclasses.dataclass(frozen=True)
class Scope:
    """What a statement is about.

    Attributes:
        sid: the statement's name.
        resources: ARNs; words in capitals are the user's.
        condition: IAM's, if any.
    """

    sid: str
    resources: tuple[str, ...]
    condition: Condition = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Right:
    """The rights of one call.

    Attributes:
        service: boto3's name of the service; empty for a right that AWS needs and no call names.
        method: boto3's name of the call.
        actions: the IAM actions that AWS checks.
        policy: the policy that has them.
        scope: what they are allowed on.
        why: what the call is for.
        used_by: the playbooks or commands that need it.
        source: the file of another collection that makes the call; empty for one of ours.
    """

    service: str
    method: str
    actions: tuple[str, ...]
    policy: Policy
    scope: Scope
    why: str
    used_by: str
    source: str = ""


CONTROLLER = Policy("controller", "the controller", "always: the inventory")
KEY_STORE = Policy("controller_key_store", "the controller", "with `fleet_key_store: {backend: aws_secretsmanager, …}`")
KEY_STORE_KMS = Policy("controller_key_store_kms", "the controller", "if the secrets have a KMS key of your own")
WEIGHTS = Policy("hosts_weights", "the instance profile of inference hosts", "with `model_source: s3`")
WEIGHTS_KMS = Policy(
    "hosts_weights_kms", "the instance profile of inference hosts", "if the bucket has a KMS key of yours"
)
ALARMS = Policy("controller_alarms", "the controller", "with `rollout_stop_on_alarms`")
TARGET_GROUPS = Policy("controller_target_groups", "the controller", "with `fleet_target_groups`")
SCALING = Policy("controller_scaling", "the controller", "with an Auto Scaling group")
SESSIONS = Policy("controller_sessions", "the controller", "with SSH through Session Manager")
PRICES = Policy("prices", "the person who runs `script/prices`", "to refresh the list prices")

POLICIES = (
    CONTROLLER,
    KEY_STORE,
    KEY_STORE_KMS,
    WEIGHTS,
    WEIGHTS_KMS,
    ALARMS,
    TARGET_GROUPS,
    SCALING,
    SESSIONS,
    PRICES,
)

# Describe calls of EC2 have no resources.
_HOSTS = Scope("ListHosts", _EVERYTHING)
_REGIONS = Scope("ListRegions", _EVERYTHING)
_SECRETS = Scope("KeysOfClients", ("arn:aws:secretsmanager:REGION:ACCOUNT:secret:PREFIX/*",))
_BUCKET = Scope(
    "ListWeights",
    ("arn:aws:s3:::BUCKET",),
    {"StringLike": {"s3:prefix": "MODELS/*"}},
)
_OBJECTS = Scope("ReadWeights", ("arn:aws:s3:::BUCKET/MODELS/*",))
_KEY = ("arn:aws:kms:REGION:ACCOUNT:key/KEY",)
_SECRETS_KEY = Scope("KeyOfSecrets", _KEY, {"StringEquals": {"kms:ViaService": "secretsmanager.REGION.amazonaws.com"}})
_WEIGHTS_KEY = Scope("KeyOfWeights", _KEY, {"StringEquals": {"kms:ViaService": "s3.REGION.amazonaws.com"}})
# With a narrower scope CloudWatch leaves composite alarms out.
_ALARMS = Scope("ReadAlarms", _EVERYTHING)
# Describe calls of Elastic Load Balancing have no resources.
_READ_TARGETS = Scope("ReadTargetGroups", _EVERYTHING)
_TARGETS = Scope("RegisterTargets", ("arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/GROUP/*",))
# Describe calls of Auto Scaling have no resources.
_READ_SCALING = Scope("ReadScalingGroups", _EVERYTHING)
_SCALING_GROUP = Scope(
    "CompleteHooks", ("arn:aws:autoscaling:REGION:ACCOUNT:autoScalingGroup:*:autoScalingGroupName/SCALING_GROUP",)
)
_EVENTS = Scope("ReadEvents", ("arn:aws:sqs:REGION:ACCOUNT:QUEUE",))
_INSTANCES = ("arn:aws:ec2:REGION:ACCOUNT:instance/*",)
_STATE_TAG = Scope(
    "TagHosts",
    _INSTANCES,
    {
        "StringEquals": {"aws:ResourceTag/inference:role": "inference"},
        "ForAllValues:StringEquals": {"aws:TagKeys": ["inference:state"]},
    },
)
_CONSOLE = Scope("ReadConsoles", _INSTANCES, {"StringEquals": {"aws:ResourceTag/inference:role": "inference"}})
_PROTECTED = Scope(
    "ProtectHosts", ("arn:aws:autoscaling:REGION:ACCOUNT:autoScalingGroup:*:autoScalingGroupName/SCALING_GROUP",)
)
# Without this condition a session that names no document gets the default one, which is a shell without SSH's keys.
_NAMED_DOCUMENT = {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}}
_SESSION_HOSTS = Scope(
    "SshToHosts",
    ("arn:aws:ec2:REGION:ACCOUNT:instance/*",),
    {
        "StringEquals": {"ssm:resourceTag/inference:role": ["inference", "gateway", "gateway_store", "monitoring"]},
        **_NAMED_DOCUMENT,
    },
)
_SESSION_DOCUMENT = Scope("SshDocument", ("arn:aws:ssm:REGION:*:document/AWS-StartSSHSession",), _NAMED_DOCUMENT)
_OWN_SESSIONS = Scope("OwnSessions", ("arn:aws:ssm:*:*:session/${aws:userid}-*",))
_PRICE_LIST = Scope("ReadPriceList", _EVERYTHING)

_ALL, _READ, _KEYS = "every playbook", "every playbook that uses a key", "`site.yml`, `keys.yml`, `rotate_keys.yml`"
_CHANGES = "`site.yml`, `rolling_restart.yml`, `rollback.yml`, `benchmark.yml`, `tune.yml`, `drain.yml`, `undrain.yml`"
_HOOKS, _SERVICE = "`join.yml`, `leave.yml`, and the service of `fleet_events.yml`", "the service of `fleet_events.yml`"
_ROLLOUTS = "`site.yml`, `rolling_restart.yml`, `rollback.yml`, `benchmark.yml`, `tune.yml`"
_SETTINGS = "`balancer.yml`, `site.yml`, `rolling_restart.yml`, `rollback.yml`"
_INVENTORY = "amazon.aws:plugins/inventory/aws_ec2.py"
_INVENTORY_BASE = "amazon.aws:plugins/plugin_utils/inventory.py"


def _secret(method: str, why: str, used_by: str, *further: str) -> Right:
    action = "".join(word.capitalize() for word in method.split("_"))
    actions = (f"secretsmanager:{action}", *further)
    return Right("secretsmanager", method, actions, KEY_STORE, _SECRETS, why, used_by)


def _scaling(method: str, why: str, used_by: str) -> Right:
    action = "".join(word.capitalize() for word in method.split("_"))
    scope = _READ_SCALING if method.startswith("describe_") else _SCALING_GROUP
    return Right("autoscaling", method, (f"autoscaling:{action}",), SCALING, scope, why, used_by)


def _event(method: str, why: str) -> Right:
    action = "".join(word.capitalize() for word in method.split("_"))
    return Right("sqs", method, (f"sqs:{action}",), SCALING, _EVENTS, why, _SERVICE)


def _setting(method: str, what: str) -> Right:
    action = "".join(word.capitalize() for word in method.split("_"))
    actions = (f"elasticloadbalancing:{action}",)
    return Right("elbv2", method, actions, TARGET_GROUPS, _READ_TARGETS, what, _SETTINGS)


RIGHTS = (
    Right(
        "ec2",
        "describe_instances",
        ("ec2:DescribeInstances",),
        CONTROLLER,
        _HOSTS,
        "the hosts with their tags, addresses, types and states",
        _ALL,
        _INVENTORY,
    ),
    Right(
        "ec2",
        "describe_regions",
        ("ec2:DescribeRegions",),
        CONTROLLER,
        _REGIONS,
        "the regions to look in, unless `regions:` in inventories/aws/aws_ec2.yml names yours",
        _ALL,
        _INVENTORY_BASE,
    ),
    Right(
        "ec2",
        "describe_instance_status",
        ("ec2:DescribeInstanceStatus",),
        CONTROLLER,
        _HOSTS,
        "what EC2 has scheduled for hosts: reboots, maintenance, retirement",
        "`status.yml`",
    ),
    _secret("describe_secret", "which versions of a client's secret are its keys, and its tags", _READ),
    _secret("get_secret_value", "the keys, and the clients' names", _READ),
    _secret("create_secret", "a new client's secret, and the fleet's own", _KEYS, "secretsmanager:TagResource"),
    _secret("put_secret_value", "a pending key, and changes of the fleet's own secret", _KEYS),
    _secret("update_secret_version_stage", "to make the pending key the current one, and to retire one", _KEYS),
    _secret("tag_resource", "a client's limits, and when its keys retire", _KEYS),
    _secret("untag_resource", "to remove a limit", _KEYS),
    _secret("delete_secret", "to remove a client, recoverable for 30 days", "`keys.yml`"),
    Right(
        "",
        "",
        ("kms:Decrypt", "kms:GenerateDataKey"),
        KEY_STORE_KMS,
        _SECRETS_KEY,
        "Secrets Manager uses the key in the caller's name",
        _READ,
    ),
    Right(
        "s3",
        "list_objects_v2",
        ("s3:ListBucket",),
        WEIGHTS,
        _BUCKET,
        "the files of the model",
        "`site.yml`, `plan.yml`",
    ),
    Right(
        "s3",
        "head_object",
        ("s3:GetObject",),
        WEIGHTS,
        _OBJECTS,
        "their sizes and checksums",
        "`site.yml`, `plan.yml`",
    ),
    Right(
        "s3",
        "get_object",
        ("s3:GetObject",),
        WEIGHTS,
        _OBJECTS,
        "the files, also to restore them after a stop and start",
        "`site.yml`, and inference-models.service on the host",
    ),
    Right(
        "",
        "",
        ("kms:Decrypt",),
        WEIGHTS_KMS,
        _WEIGHTS_KEY,
        "S3 uses the key in the caller's name",
        "`site.yml`",
    ),
    Right(
        "cloudwatch",
        "describe_alarms",
        ("cloudwatch:DescribeAlarms",),
        ALARMS,
        _ALARMS,
        "the alarms that stop a rollout, before each of its turns",
        "`site.yml`, `rolling_restart.yml`",
    ),
    Right(
        "elbv2",
        "describe_target_groups",
        ("elasticloadbalancing:DescribeTargetGroups",),
        TARGET_GROUPS,
        _READ_TARGETS,
        "the target groups of `fleet_target_groups`: VPC, port, target type, balancers",
        _CHANGES,
    ),
    Right(
        "elbv2",
        "describe_target_health",
        ("elasticloadbalancing:DescribeTargetHealth",),
        TARGET_GROUPS,
        _READ_TARGETS,
        "whether a host is registered, draining or healthy",
        _CHANGES,
    ),
    Right(
        "elbv2",
        "register_targets",
        ("elasticloadbalancing:RegisterTargets",),
        TARGET_GROUPS,
        _TARGETS,
        "to let requests come to a host again once it has passed its gate",
        _CHANGES,
    ),
    Right(
        "elbv2",
        "deregister_targets",
        ("elasticloadbalancing:DeregisterTargets",),
        TARGET_GROUPS,
        _TARGETS,
        "to take a host out of the balancer before its engine is stopped",
        _CHANGES,
    ),
    _scaling("describe_auto_scaling_groups", "the instances of the groups, and which wait", _SERVICE),
    _scaling("describe_auto_scaling_instances", "the group of a host, and whether it waits", _HOOKS),
    _scaling("describe_lifecycle_hooks", "the hooks, and their timeouts", _HOOKS),
    _scaling("record_lifecycle_action_heartbeat", "to keep a host waiting while it joins or leaves", _HOOKS),
    _scaling("complete_lifecycle_action", "to end the wait of a host that has joined, failed or left", _HOOKS),
    _event("receive_message", "the events that say where to look"),
    _event("change_message_visibility", "to keep a message while its host joins or leaves"),
    _event("delete_message", "to remove it afterwards"),
    _event("get_queue_attributes", "whether the queue has a dead-letter queue"),
    Right(
        "ec2",
        "create_tags",
        ("ec2:CreateTags",),
        SCALING,
        _STATE_TAG,
        "to take a host that leaves out of the inventory's groups",
        "`leave.yml`",
    ),
    Right(
        "ec2",
        "delete_tags",
        ("ec2:DeleteTags",),
        SCALING,
        _STATE_TAG,
        "to make a host that has joined a member of the fleet",
        "`join.yml`",
    ),
    Right(
        "ec2",
        "get_console_output",
        ("ec2:GetConsoleOutput",),
        SCALING,
        _CONSOLE,
        "the SSH host keys that a new host prints",
        "`join.yml`",
    ),
    _setting("describe_target_group_attributes", "deregistration delay, stickiness, slow start, thresholds"),
    _setting("describe_load_balancers", "the balancers' types and zones"),
    _setting("describe_load_balancer_attributes", "idle timeout, cross-zone"),
    _setting("describe_listeners", "which target groups the listeners forward to"),
    _setting("describe_rules", "likewise, for their rules"),
    Right(
        "autoscaling",
        "describe_auto_scaling_groups",
        ("autoscaling:DescribeAutoScalingGroups",),
        TARGET_GROUPS,
        _READ_SCALING,
        "whether an Auto Scaling group behind a target group follows the balancer's health",
        _SETTINGS,
    ),
    Right(
        "autoscaling",
        "describe_auto_scaling_instances",
        ("autoscaling:DescribeAutoScalingInstances",),
        TARGET_GROUPS,
        _READ_SCALING,
        "whether a host of an Auto Scaling group is protected from scale-in",
        _ROLLOUTS,
    ),
    Right(
        "autoscaling",
        "set_instance_protection",
        ("autoscaling:SetInstanceProtection",),
        TARGET_GROUPS,
        _PROTECTED,
        "to keep an Auto Scaling group from ending a host of a rollout, and to take that back",
        _ROLLOUTS,
    ),
    # What the AWS CLI and its session-manager-plugin call, by hand from AWS's user guide of Systems Manager: the pages
    # session-manager-getting-started-enable-ssh-connections, getting-started-restrict-access-quickstart and
    # getting-started-restrict-access-examples (tags).
    Right(
        "",
        "",
        ("ssm:StartSession",),
        SESSIONS,
        _SESSION_HOSTS,
        "a session on a host of the fleet",
        _ALL,
    ),
    Right(
        "",
        "",
        ("ssm:StartSession",),
        SESSIONS,
        _SESSION_DOCUMENT,
        "only SSH: the host's own sshd asks for the key",
        _ALL,
    ),
    Right(
        "",
        "",
        ("ssmmessages:OpenDataChannel", "ssm:ResumeSession", "ssm:TerminateSession"),
        SESSIONS,
        _OWN_SESSIONS,
        "the data of one's own sessions, and their end",
        _ALL,
    ),
    Right(
        "pricing",
        "get_products",
        ("pricing:GetProducts",),
        PRICES,
        _PRICE_LIST,
        "the list prices of EC2 instances",
        "`script/prices`",
    ),
)


def of_call(service: str, method: str) -> Right:
    """The row of a call, by boto3's names of service and method."""
    return next(right for right in RIGHTS if (right.service, right.method) == (service, method))


def document(policy: Policy, rights: t.Iterable[Right] = RIGHTS) -> dict[str, t.Any]:
    """The IAM policy: a statement for each scope."""
    actions: dict[str, set[str]] = {}
    scopes: dict[str, Scope] = {}
    for right in rights:
        if right.policy == policy:
            known = scopes.setdefault(right.scope.sid, right.scope)
            if known != right.scope:
                raise ValueError(f"Two scopes have the name {right.scope.sid}.")
            actions.setdefault(right.scope.sid, set()).update(right.actions)
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": scope.sid,
                "Effect": "Allow",
                "Action": sorted(actions[scope.sid]),
                "Resource": list(scope.resources),
                **({"Condition": scope.condition} if scope.condition else {}),
            }
            for scope in scopes.values()
        ],
    }


def documents() -> dict[str, t.Any]:
    """All policies by their names."""
    return {policy.name: document(policy) for policy in POLICIES}
