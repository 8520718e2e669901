# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""AWS Secrets Manager's API: one call at a time, and its failures in words.

It needs boto3, which only the controller has; so boto3 is imported when a call is about to be made.
"""

from __future__ import annotations

import importlib
import sys
import typing as t
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core import aws_errors, keys
from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

NOT_FOUND = "ResourceNotFoundException"
EXISTS = "ResourceExistsException"
BAD_PARAMETER = "InvalidParameterException"
BAD_REQUEST = "InvalidRequestException"

#: Reads at the same time.
CONNECTIONS = 8

_ENCRYPTION = ("DecryptionFailure", "EncryptionFailure")
_WRITES = ("CreateSecret", "PutSecretValue")


class SecretsManager:
    """Secrets Manager in one region.

    Args:
        client: boto3's.
    """

    def __init__(self, client: t.Any) -> None:
        self._client = client
        self._errors = importlib.import_module("botocore.exceptions")
        self.region = str(client.meta.region_name)
        self.where = f"AWS Secrets Manager in {self.region}"

    def call(self, method: str, secret: str, **parameters: t.Any) -> dict[str, t.Any]:
        """One call, which boto3 retries where that can help.

        Args:
            method: boto3's name, such as ``get_secret_value``.
            secret: the secret's name, which is CreateSecret's Name and every other operation's SecretId.
            parameters: the other parameters.

        Raises:
            AwsFailure: AWS refused it.
            FleetError: there was no answer.
        """
        operation = self._client.meta.method_to_api_mapping[method]
        named = {"Name" if operation == "CreateSecret" else "SecretId": secret, **parameters}
        try:
            answer: dict[str, t.Any] = getattr(self._client, method)(**named)
        except self._errors.ClientError as error:
            raise self._refused(operation, secret, error.response.get("Error", {})) from None
        except self._errors.BotoCoreError as error:
            raise FleetError(self._unanswered(operation, error)) from None
        return answer

    def _refused(self, operation: str, secret: str, error: t.Mapping[str, t.Any]) -> AwsFailure:
        code, said = str(error.get("Code", "")), str(error.get("Message", ""))
        failed = f"{operation} of secret {secret} in {self.where} failed ({code})."
        common = aws_errors.advise(code, self.region)
        if (
            aws_errors.is_denied(code)
            or aws_errors.denied_action(said)
            or "access to kms is not allowed" in said.lower()
        ):
            action = _action(operation, said)
            resource = "the KMS key" if action.startswith("kms:") else f"secret {secret}"
            advice = f"The credentials lack the right {action} on {resource}: allow that IAM action, then run again."
        elif common:
            advice = common
        elif code in _ENCRYPTION:
            advice = "The secret's KMS key cannot be used. Enable the key, or give kms_key_id one that is."
        elif code == "LimitExceededException":
            advice = "A quota of Secrets Manager is used up. Wait until it removed old versions, or have it raised."
        elif code == "InternalServiceError":
            advice = "That is a failure of AWS itself. Run again."
        elif code == NOT_FOUND:
            advice = "There is no such secret. Check region, profile and prefix."
        else:
            advice = f"AWS says: {keys.redacted(said).rstrip('.')}."
        return AwsFailure(f"{failed} {advice}", code)

    def _unanswered(self, operation: str, error: Exception) -> str:
        kind = type(error).__name__
        failed = f"{operation} in {self.where} was not answered ({kind})."
        credentials = aws_errors.advise_login(kind)
        if credentials:
            return credentials
        if isinstance(error, (self._errors.HTTPClientError, self._errors.ConnectionError)):
            # No connection, timeout, TLS. The error names the URL, which may hold a password.
            host = urllib.parse.urlsplit(self._client.meta.endpoint_url).netloc.rpartition("@")[2]
            return f"{failed} {host} cannot be reached. Check region ({self.region}), endpoint_url, proxy and network."
        # The texts of other errors, such as ParamValidationError, repeat parameters: keys may be among them.
        return f"{failed} This is not expected. Check region, profile, prefix, kms_key_id and tags."


def connect(region: str, endpoint_url: str | None, profile: str | None) -> SecretsManager:
    """Secrets Manager by the options, with the credentials of the profile or the environment; nothing is sent yet.

    Raises:
        FleetError: boto3 or the profile is missing, or region or endpoint is invalid.
    """
    try:
        session_module = importlib.import_module("boto3.session")
        errors = importlib.import_module("botocore.exceptions")
        config = importlib.import_module("botocore.config").Config(
            retries={"mode": "standard", "total_max_attempts": aws_errors.ATTEMPTS},
            connect_timeout=aws_errors.CONNECT_SECONDS,
            read_timeout=aws_errors.READ_SECONDS,
            max_pool_connections=CONNECTIONS,
        )
    except ImportError as error:
        raise FleetError(
            f"The key store in AWS Secrets Manager needs the Python library boto3, which {sys.executable} does not "
            f"have ({error.name}). Install requirements/controller.txt there."
        ) from None
    try:
        session = session_module.Session(region_name=region, profile_name=profile)
        return SecretsManager(session.client("secretsmanager", endpoint_url=endpoint_url, config=config))
    except errors.ProfileNotFound:
        raise FleetError(
            f"There is no AWS profile {keys.shown(profile)}. Name one of ~/.aws/config, or leave profile out."
        ) from None
    except (errors.BotoCoreError, ValueError) as error:
        kind = type(error).__name__
        raise FleetError(
            aws_errors.advise_login(kind)
            or f"AWS Secrets Manager cannot be used with region {keys.shown(region)} and this endpoint_url "
            f"({kind}). A region is such as us-east-1, an endpoint such as https://host:443."
        ) from None


def _action(operation: str, said: str) -> str:
    """The IAM action that is missing."""
    named = aws_errors.denied_action(said)
    if named:
        return named
    if "kms" in said.lower():
        return "kms:GenerateDataKey" if operation in _WRITES else "kms:Decrypt"
    return f"secretsmanager:{operation}"
