from __future__ import annotations

import importlib
import json
import sys
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import aws_errors
from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys.secrets_manager import SecretsManager, connect
from botocore.awsrequest import AWSResponse
from moto.core import set_initial_no_auth_action_count

from tests.unit.plugins.module_utils.keys.aws_store import PREFIX, REGION, Aws, aws, moto

__all__ = ["aws", "moto"]

Answer = t.Callable[[str], t.Optional[tuple[int, str, str]]]


@pytest.fixture
def service(moto: None) -> SecretsManager:
    return connect(REGION, None, None)


def answering(service: SecretsManager, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let AWS answer an operation with a status, an error's code and its message; return the operations."""
    asked: list[str] = []

    def send(request: t.Any, **_more: t.Any) -> t.Any:
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        asked.append(operation)
        given = answer(operation)
        if given is None:
            return None
        status, code, said = given
        make: t.Any = AWSResponse
        response = make(request.url, status, {"x-amzn-errortype": code}, None)
        response._content = json.dumps({"__type": code, "Message": said}).encode()
        return response

    service._client.meta.events.register_first("before-send.secretsmanager", send)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return asked


@pytest.mark.parametrize(
    ("code", "said", "message"),
    [
        (
            "AccessDeniedException",
            "User: arn:aws:iam::1:user/ops is not authorized to perform: secretsmanager:GetSecretValue on resource: x",
            r"lack the right secretsmanager:GetSecretValue on secret fleet/a: allow that IAM action",
        ),
        ("AccessDeniedException", "no", "lack the right secretsmanager:GetSecretValue on secret fleet/a"),
        ("AccessDeniedException", "Access to KMS is not allowed", "lack the right kms:Decrypt on the KMS key"),
        (
            "AccessDeniedException",
            "User x is not authorized to perform: kms:Decrypt on resource: y",
            "lack the right kms:Decrypt on the KMS key",
        ),
        (
            "UnrecognizedClientException",
            "The security token is invalid.",
            "does not know these credentials in us-east-1",
        ),
        ("InvalidSignatureException", "x", "does not know these credentials"),
        ("ExpiredTokenException", "x", "have expired. Log in again"),
        ("DecryptionFailure", "x", "KMS key cannot be used"),
        ("ResourceNotFoundException", "x", "There is no such secret. Check region"),
        ("SomethingNew", "It was sk-abcdefghijklmnopqrstuvwxyz.", r"\(SomethingNew\)\. AWS says: It was sk-…\."),
    ],
)
def test_what_aws_refuses(
    service: SecretsManager, monkeypatch: pytest.MonkeyPatch, code: str, said: str, message: str
) -> None:
    asked = answering(service, lambda operation: (400, code, said), monkeypatch)
    with pytest.raises(AwsFailure, match=message) as caught:
        service.call("get_secret_value", "fleet/a")
    assert caught.value.code == code
    assert caught.value.message.startswith(
        "GetSecretValue of secret fleet/a in AWS Secrets Manager in us-east-1 failed"
    )
    assert asked == ["GetSecretValue"]


def test_writing_needs_another_right_of_kms(service: SecretsManager, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(service, lambda operation: (400, "AccessDeniedException", "Access to KMS is not allowed"), monkeypatch)
    with pytest.raises(AwsFailure, match="lack the right kms:GenerateDataKey on the KMS key"):
        service.call("create_secret", "fleet/a", SecretString="x")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "ThrottlingException", "throttles the calls, also after 5 attempts"),
        (400, "LimitExceededException", "quota of Secrets Manager is used up"),
        (500, "InternalServiceError", "failure of AWS itself. Run again"),
    ],
)
def test_what_may_pass_is_tried_again(
    service: SecretsManager, monkeypatch: pytest.MonkeyPatch, status: int, code: str, message: str
) -> None:
    asked = answering(service, lambda operation: (status, code, "x"), monkeypatch)
    with pytest.raises(AwsFailure, match=message):
        service.call("get_secret_value", "fleet/a")
    assert len(asked) == aws_errors.ATTEMPTS


def test_throttling_that_ends_is_no_failure(service: SecretsManager, monkeypatch: pytest.MonkeyPatch) -> None:
    left = 3

    def answer(operation: str) -> tuple[int, str, str] | None:
        nonlocal left
        left -= 1
        return (400, "ThrottlingException", "Rate exceeded") if left >= 0 else None

    answering(service, answer, monkeypatch)
    assert service.call("create_secret", "fleet/a", SecretString="x")["Name"] == "fleet/a"


def test_an_unreachable_endpoint_is_reported_without_the_password_in_its_address(
    moto: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    service = connect(REGION, "http://me:SECRET@127.0.0.1:9", None)
    with pytest.raises(FleetError, match=r"EndpointConnectionError\)\. 127\.0\.0\.1:9 cannot be reached") as caught:
        service.call("get_secret_value", "fleet/a")
    assert "SECRET" not in caught.value.message


def test_no_credentials(moto: None, monkeypatch: pytest.MonkeyPatch, tmp_path: t.Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(FleetError, match=r"no complete AWS credentials .*Give a profile, set AWS_ACCESS_KEY_ID"):
        connect(REGION, None, None).call("get_secret_value", "fleet/a")
    (tmp_path / "config").write_text("[profile broken]\ncredential_process = false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(FleetError, match=r"credentials cannot be obtained \(CredentialRetrievalError\)\. Log in again"):
        connect(REGION, None, "broken").call("get_secret_value", "fleet/a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    with pytest.raises(FleetError, match="no complete AWS credentials"):
        connect(REGION, None, None).call("get_secret_value", "fleet/a")


def test_an_unknown_profile(moto: None) -> None:
    with pytest.raises(FleetError, match=r"no AWS profile 'nobody'\. Name one of ~/\.aws/config"):
        connect(REGION, None, "nobody")


@pytest.mark.parametrize(
    ("region", "endpoint"), [("us east 1", None), ("", None), (REGION, "localhost:99"), (REGION, "x y")]
)
def test_an_invalid_region_or_endpoint_is_refused(moto: None, region: str, endpoint: str | None) -> None:
    with pytest.raises(FleetError, match="A region is such as us-east-1, an endpoint such as https://host:443"):
        connect(region, endpoint, None)


def test_boto3_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str) -> t.Any:
        if name.startswith("boto"):
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(FleetError, match=rf"library boto3, which {sys.executable} does not have .*controller\.txt"):
        connect(REGION, None, None)


def test_a_parameter_that_boto3_refuses_is_not_repeated(service: SecretsManager) -> None:
    with pytest.raises(FleetError, match=r"ParamValidationError\)\. This is not expected") as caught:
        service.call("put_secret_value", "fleet/a", SecretString=["sk-SECRET"], ClientRequestToken="short")
    assert "SECRET" not in caught.value.message


def test_the_wrong_region_is_named(aws: Aws) -> None:
    aws.run("present", "a")
    aws._service = connect("eu-west-1", None, None)
    with pytest.raises(FleetError, match=f"{PREFIX} in AWS Secrets Manager in eu-west-1 has not been made yet"):
        aws.run("pending", "a")


#: The permissions of each state, and how to provoke each.
RIGHTS: dict[str, tuple[str, list[str], dict[str, t.Any]]] = {
    "GetSecretValue": ("read", [], {}),
    "DescribeSecret": ("read", [], {}),
    "CreateSecret": ("present", ["a", "b"], {}),
    "TagResource": ("present", [], {"clients": [{"name": "a", "max_concurrent": 4}]}),
    "UntagResource": ("present", ["limited"], {}),
    "PutSecretValue": ("pending", ["a"], {}),
    "UpdateSecretVersionStage": ("pending", ["a"], {}),
    "DeleteSecret": ("absent", ["a"], {}),
}


@pytest.mark.parametrize("missing", RIGHTS)
def test_the_right_that_is_missing_is_named(aws: Aws, missing: str) -> None:
    """moto checks IAM policies as AWS does."""
    import boto3

    aws.run("present", "a")
    aws.run("present", clients=[{"name": "limited", "max_concurrent": 4}])
    iam = boto3.client("iam", region_name=REGION)
    iam.create_user(UserName="ops")
    actions = [f"secretsmanager:{right}" for right in RIGHTS if right != missing]
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    iam.put_user_policy(
        UserName="ops",
        PolicyName="keys",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    key = iam.create_access_key(UserName="ops")["AccessKey"]
    client = boto3.client(
        "secretsmanager",
        region_name=REGION,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    aws._service = SecretsManager(client)
    state, names, params = RIGHTS[missing]

    @set_initial_no_auth_action_count(0)
    def run() -> None:
        with pytest.raises(AwsFailure, match=f"lack the right secretsmanager:{missing} on secret {PREFIX}/"):
            aws.run(state, *names, **params)

    run()
