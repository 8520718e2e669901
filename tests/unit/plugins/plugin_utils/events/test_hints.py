from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.events.hints import Hint, NotAHint, read_hint

INSTANCE = "i-0a1b2c3d4e5f60718"

#: As AWS's user guides of EC2 and Auto Scaling print them.
EVENTS: list[tuple[dict[str, t.Any], Hint]] = [
    (
        {
            "detail-type": "EC2 Instance-launch Lifecycle Action",
            "source": "aws.autoscaling",
            "detail": {
                "LifecycleActionToken": "87654321-4321-4321-4321-210987654321",
                "AutoScalingGroupName": "fleet",
                "LifecycleHookName": "join",
                "EC2InstanceId": INSTANCE,
                "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING",
            },
        },
        Hint("launch", INSTANCE, "fleet"),
    ),
    (
        {
            "detail-type": "EC2 Instance-terminate Lifecycle Action",
            "source": "aws.autoscaling",
            "detail": {"AutoScalingGroupName": "fleet", "EC2InstanceId": INSTANCE},
        },
        Hint("terminate", INSTANCE, "fleet"),
    ),
    (
        {
            "detail-type": "EC2 Spot Instance Interruption Warning",
            "source": "aws.ec2",
            "detail": {"instance-id": INSTANCE, "instance-action": "terminate"},
        },
        Hint("spot", INSTANCE),
    ),
    (
        {
            "detail-type": "EC2 Instance Rebalance Recommendation",
            "source": "aws.ec2",
            "detail": {"instance-id": INSTANCE},
        },
        Hint("rebalance", INSTANCE),
    ),
    # A hook that notifies the queue itself.
    (
        {
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
            "EC2InstanceId": INSTANCE,
            "AutoScalingGroupName": "fleet",
        },
        Hint("terminate", INSTANCE, "fleet"),
    ),
    ({"Event": "autoscaling:TEST_NOTIFICATION", "AutoScalingGroupName": "fleet"}, Hint("test")),
    ({"detail": {"Event": "autoscaling:TEST_NOTIFICATION"}}, Hint("test")),
]


@pytest.mark.parametrize(("event", "hint"), EVENTS)
def test_events_of_aws_say_at_which_instance_to_look(event: dict[str, t.Any], hint: Hint) -> None:
    assert read_hint(json.dumps(event)) == hint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("not json", "The message is not JSON: 'not json'"),
        ("[1]", "is no JSON object"),
        ('{"detail": "x"}', "detail is no JSON object"),
        ('{"detail-type": "EC2 Instance State-change Notification", "detail": {"instance-id": "i-0a1b2c3d"}}', "kind"),
        ('{"detail-type": "EC2 Spot Instance Interruption Warning", "detail": {}}', "names no instance"),
        ('{"detail-type": "EC2 Spot Instance Interruption Warning", "detail": {"instance-id": ["i"]}}', "no instance"),
        # It becomes a part of a command and of paths.
        (
            '{"detail-type": "EC2 Spot Instance Interruption Warning", "detail": {"instance-id": "i-0a1b2c3d/../x"}}',
            "names no instance",
        ),
        ("x" * 500, "'" + "x" * 120 + "…'"),
    ],
)
def test_anything_else_is_named(body: str, said: str) -> None:
    with pytest.raises(NotAHint) as caught:
        read_hint(body)
    assert said in caught.value.message
    assert len(caught.value.message) < 400
