from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import (
    advise,
    advise_login,
    denied_action,
    is_denied,
)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("InvalidClientTokenId", "AWS does not know these credentials in eu-west-1."),
        ("ExpiredToken", "The credentials have expired. Log in again"),
        ("ExpiredTokenException", "The credentials have expired. Log in again"),
        ("Throttling", "AWS throttles the calls, also after 5 attempts."),
        ("ResourceNotFoundException", ""),
    ],
)
def test_what_every_service_may_answer_has_its_advice(code: str, said: str) -> None:
    advice = advise(code, "eu-west-1")
    assert advice.startswith(said)
    assert bool(advice) == bool(said)


def test_a_missing_right_is_recognised_by_code_and_by_words() -> None:
    said = "User: arn:aws:iam::1:user/ops is not authorized to perform: cloudwatch:DescribeAlarms because of it"
    assert denied_action(said) == "cloudwatch:DescribeAlarms"
    assert denied_action("no") == ""
    assert is_denied("AccessDenied")
    assert not is_denied("ExpiredToken")


def test_missing_credentials_are_told_from_other_errors_of_boto3() -> None:
    assert advise_login("NoCredentialsError").startswith("There are no complete AWS credentials")
    assert advise_login("SSOTokenLoadError").startswith("The AWS credentials cannot be obtained")
    assert advise_login("EndpointConnectionError") == ""
