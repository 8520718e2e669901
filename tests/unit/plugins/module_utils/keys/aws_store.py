"""AWS Secrets Manager for the tests of the key store: moto in this process, which can restore an earlier state."""

from __future__ import annotations

import functools
import json
import pickle
import types
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.keys import holder, secrets_manager
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import Content
from ansible_collections.inference.fleet.plugins.module_utils.keys.store_aws import (
    SecretOptions,
    SecretsManagerKeyStore,
)
from ansible_collections.inference.fleet.plugins.modules import api_key
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.secretsmanager.exceptions import ResourceExistsException, SecretsManagerClientError
from moto.secretsmanager.models import SecretsManagerBackend, secretsmanager_backends

from tests.unit.conftest import Result
from tests.unit.plugins.module_utils.keys.key_stores import ME, later

REGION = "us-east-1"
PREFIX = "inference-fleet/test"
ACCOUNT = "123456789012"
READS = ("GetSecretValue", "DescribeSecret")


class Killed(BaseException):
    """The process ends here: nothing may catch it."""


class Direct:
    """boto3's client without HTTP: moto's Secrets Manager answers a hundred times as fast."""

    meta = types.SimpleNamespace(
        region_name=REGION,
        endpoint_url="https://secretsmanager.test",
        method_to_api_mapping={
            name: "".join(word.capitalize() for word in name.split("_"))
            for name in (
                "create_secret",
                "delete_secret",
                "describe_secret",
                "get_secret_value",
                "put_secret_value",
                "tag_resource",
                "untag_resource",
                "update_secret_version_stage",
            )
        },
    )

    def __init__(self, before: t.Callable[[str], None]) -> None:
        self._before = before

    def __getattr__(self, method: str) -> t.Callable[..., t.Any]:
        operation = self.meta.method_to_api_mapping[method]

        def call(**given: t.Any) -> t.Any:
            self._before(operation)
            backend = secretsmanager_backends[ACCOUNT][REGION]
            try:
                return json.loads(json.dumps(getattr(self, f"_{method}")(backend, **given), default=str) or "{}")
            except SecretsManagerClientError as error:
                raise ClientError({"Error": {"Code": error.error_type, "Message": error.message}}, operation) from None

        return call

    @staticmethod
    def _create_secret(
        backend: t.Any, Name: str, ClientRequestToken: str, SecretString: str, Tags: t.Any, KmsKeyId: str | None = None
    ) -> None:
        backend.create_secret(Name, SecretString, None, "", Tags, KmsKeyId, ClientRequestToken, [], False)

    @staticmethod
    def _delete_secret(backend: t.Any, SecretId: str, RecoveryWindowInDays: int) -> None:
        backend.delete_secret(SecretId, RecoveryWindowInDays, False)

    @staticmethod
    def _describe_secret(backend: t.Any, SecretId: str) -> t.Any:
        return backend.describe_secret(SecretId).to_dict()

    @staticmethod
    def _get_secret_value(backend: t.Any, SecretId: str, VersionId: t.Any = None, VersionStage: t.Any = None) -> t.Any:
        return backend.get_secret_value(SecretId, VersionId, VersionStage)

    @staticmethod
    def _put_secret_value(
        backend: t.Any, SecretId: str, ClientRequestToken: str, SecretString: str, VersionStages: list[str]
    ) -> None:
        backend.put_secret_value(
            secret_id=SecretId,
            secret_string=SecretString,
            secret_binary=None,
            client_request_token=ClientRequestToken,
            version_stages=VersionStages,
        )

    @staticmethod
    def _tag_resource(backend: t.Any, SecretId: str, Tags: t.Any) -> None:
        backend.tag_resource(SecretId, {tag["Key"]: tag["Value"] for tag in Tags})

    @staticmethod
    def _untag_resource(backend: t.Any, SecretId: str, TagKeys: list[str]) -> None:
        backend.untag_resource(SecretId, TagKeys)

    @staticmethod
    def _update_secret_version_stage(
        backend: t.Any,
        SecretId: str,
        VersionStage: str,
        RemoveFromVersionId: t.Any = None,
        MoveToVersionId: t.Any = None,
    ) -> None:
        backend.update_secret_version_stage(SecretId, VersionStage, RemoveFromVersionId, MoveToVersionId)


@functools.cache
def _service() -> secrets_manager.SecretsManager:
    return secrets_manager.connect(REGION, None, None)


class Aws:
    """The key store's AWS, its clock and the calling process.

    Args:
        monkeypatch: pytest's.
        direct: without boto3's HTTP.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, direct: bool = False) -> None:
        self.seconds = 0.0
        self.holder = ME
        self.calls: list[str] = []
        #: Called before every call with the number of calls so far, of writes so far, and its operation.
        self.before: t.Callable[[int, int, str], None] | None = None
        self._service = _service()
        self.boto = self._service._client
        if direct:
            self._service = secrets_manager.SecretsManager(Direct(self._before))
        else:
            events = self.boto.meta.events
            events.unregister("before-call.secretsmanager", unique_id="aws")
            events.register(
                "before-call.secretsmanager", lambda model, **_more: self._before(model.name), unique_id="aws"
            )
        monkeypatch.setattr(secrets_manager, "connect", lambda *options: self._service)
        monkeypatch.setattr(holder, "current", lambda: self.holder)
        monkeypatch.setattr(times, "now", lambda: later(self.seconds))

    def _before(self, operation: str) -> None:
        if self.before:
            self.before(len(self.calls), self.writes(), operation)
        self.calls.append(operation)

    def store(self) -> SecretsManagerKeyStore:
        return SecretsManagerKeyStore(self._service, SecretOptions(PREFIX))

    def load(self) -> Content:
        return self.store().load()

    def run(self, state: str, *names: str, check: bool = False, **params: t.Any) -> Result:
        """The module's result."""
        clients = params.pop("clients", [{"name": name} for name in names])
        defaults = {name: option.get("default") for name, option in api_key.ARGUMENTS.items()}
        given = {"state": state, "clients": clients, "backend": "aws_secretsmanager", "region": REGION}
        return api_key.run({**defaults, **given, "prefix": PREFIX, **params}, check, want_diff=True)

    def writes(self) -> int:
        return sum(call not in READS for call in self.calls)

    def killed_before_write(self, nth: int, do: t.Callable[[], object]) -> bool:
        """Do it in a process that ends before its nth write, from 1; return whether it got that far.

        Reads in between change nothing, so these are all the states in which a crash can leave the store.
        """

        def kill(_calls: int, writes: int, operation: str) -> None:
            if operation not in READS and writes == nth - 1:
                raise Killed

        self.calls.clear()
        self.before = kill
        try:
            do()
        except Killed:
            return True
        finally:
            self.before = None
        return False

    @property
    def secrets(self) -> t.Any:
        return secretsmanager_backends[ACCOUNT][REGION].secrets

    def snapshot(self) -> bytes:
        return pickle.dumps(dict(self.secrets))

    def restore(self, snapshot: bytes) -> None:
        self.secrets.clear()
        self.secrets.update(pickle.loads(snapshot))  # noqa: S301 - our own

    def stages(self, client: str) -> dict[str, str]:
        """Which of a client's versions has which label."""
        versions = self.secrets[f"{PREFIX}/{client}"].versions
        return {label: version for version, whole in versions.items() for label in whole["version_stages"]}


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "lab")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield


@pytest.fixture
def aws(moto: None, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Through boto3 itself."""
    return Aws(monkeypatch)


@pytest.fixture
def quick(moto: None, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Without HTTP, for tests that make thousands of calls."""
    return Aws(monkeypatch, direct=True)


def refuse_second_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """As AWS does: a version's value cannot be changed, not even a pending one's."""
    real = SecretsManagerBackend.put_secret_value

    def put(self: SecretsManagerBackend, **given: t.Any) -> str:
        version = self.secrets[given["secret_id"]].versions.get(given["client_request_token"])
        if version and version["secret_string"] != given["secret_string"]:
            raise ResourceExistsException("That value is already in use for a version.")
        return real(self, **given)

    monkeypatch.setattr(SecretsManagerBackend, "put_secret_value", put)
