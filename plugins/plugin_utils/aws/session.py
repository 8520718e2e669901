# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""One service of AWS in one region, and what its refusals mean for a person.

A service is opened for each look, with a new session of boto3: credentials on disk may have been renewed since. While
one is open, credentials that expired are read once more before the call fails.
"""

from __future__ import annotations

import importlib
import sys
import typing as t
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core import aws_errors, keys
from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws import rights

#: The services' names for people.
_TITLES = {
    "autoscaling": "Auto Scaling",
    "cloudwatch": "CloudWatch",
    "ec2": "EC2",
    "elbv2": "Elastic Load Balancing",
    "sqs": "SQS",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_STAND_IN = "lab"

_T = t.TypeVar("_T")


class AwsService:
    """A service in a region.

    Args:
        make: makes boto3's client, from the credentials as they are now.
        service: boto3's name of it.
        region: for messages.
    """

    def __init__(self, make: t.Callable[[], t.Any], service: str, region: str) -> None:
        self._make = make
        self._client = make()
        self._service = service
        self._errors: t.Any = importlib.import_module("botocore.exceptions")
        self.region = region

    def call(self, method: str, about: str = "", **parameters: t.Any) -> dict[str, t.Any]:
        """One call, which boto3 repeats where that can help.

        Args:
            method: boto3's name, such as ``describe_target_health``.
            about: what it is about, for messages, such as ``target group fleet``.
            parameters: the call's.

        Raises:
            AwsFailure: AWS refused it.
            FleetError: there was no answer.
        """
        return self._ask(method, about, lambda: dict(getattr(self._client, method)(**parameters)))

    def pages(self, method: str, *lists: str, about: str = "", **parameters: t.Any) -> list[dict[str, t.Any]]:
        """The items of all pages of a call's answer.

        Args:
            method: as for call.
            lists: the names of the lists in a page.
            about: as for call.
            parameters: the call's.

        Raises:
            AwsFailure: AWS refused it.
            FleetError: there was no answer.
        """

        def read() -> list[dict[str, t.Any]]:
            pages = self._client.get_paginator(method).paginate(**parameters)
            return [one for page in pages for name in lists for one in page.get(name, ())]

        return self._ask(method, about, read)

    def _ask(self, method: str, about: str, ask: t.Callable[[], _T], again: bool = True) -> _T:
        operation = self._client.meta.method_to_api_mapping[method]
        failed = f"{operation}{f' of {about}' if about else ''} in {self.region}"
        try:
            return ask()
        except self._errors.ClientError as error:
            said = error.response.get("Error", {})
            if again and aws_errors.is_expired(str(said.get("Code", ""))):
                self._client = self._make()
                return self._ask(method, about, ask, again=False)
            raise self._refused(failed, method, about, said) from None
        except self._errors.BotoCoreError as error:
            raise FleetError(self._unanswered(failed, error)) from None

    def _refused(self, failed: str, method: str, about: str, error: t.Mapping[str, t.Any]) -> AwsFailure:
        code, said = str(error.get("Code", "")), str(error.get("Message", ""))
        failed = f"{failed} failed ({code})."
        if aws_errors.is_denied(code) or aws_errors.denied_action(said):
            right = rights.of_call(self._service, method)
            action = aws_errors.denied_action(said) or right.actions[0]
            where = "*" if right.scope.resources == ("*",) else about or " or ".join(right.scope.resources)
            advice = f"The credentials lack the right {action} on {where}: allow that IAM action, then run again."
        else:
            advice = aws_errors.advise(code, self.region) or f"AWS says: {keys.redacted(said).rstrip('.')}."
        return AwsFailure(f"{failed} {advice}", code)

    def _unanswered(self, failed: str, error: Exception) -> str:
        kind = type(error).__name__
        failed = f"{failed} was not answered ({kind})."
        login = aws_errors.advise_login(kind)
        if login:
            return f"{failed} {login}"
        if isinstance(error, (self._errors.HTTPClientError, self._errors.ConnectionError)):
            # The URL may hold a password.
            host = urllib.parse.urlsplit(self._client.meta.endpoint_url).netloc.rpartition("@")[2]
            return f"{failed} {host} cannot be reached. Check region, proxy and network, then run again."
        words = " ".join(str(error).split())
        return f"{failed} {keys.redacted(words).rstrip('.')}."


def open_service(
    service: str, region: str, used_by: str, endpoint: str = "", read_seconds: int = aws_errors.READ_SECONDS
) -> AwsService:
    """A service in a region, with the credentials of this shell or this machine; nothing is sent yet.

    Args:
        service: boto3's name of it, such as ``elbv2``.
        region: its name.
        used_by: the variable or playbook that needs it, for messages.
        endpoint: the URL of a stand-in for AWS (``fleet_aws_endpoint``); empty for AWS. One on this machine gets the
            credentials of the lab, and never those of a person.
        read_seconds: how long an answer may take.

    Raises:
        FleetError: boto3 or the profile is missing, or region or endpoint is invalid.
    """

    def make() -> t.Any:
        session, errors = _session(region, used_by)
        config: t.Any = importlib.import_module("botocore.config")
        try:
            return session.client(
                service,
                endpoint_url=endpoint or None,
                config=config.Config(
                    retries={"mode": "standard", "total_max_attempts": aws_errors.ATTEMPTS},
                    connect_timeout=aws_errors.CONNECT_SECONDS,
                    read_timeout=read_seconds,
                ),
                **_credentials(endpoint),
            )
        except (errors.BotoCoreError, ValueError) as error:
            kind = type(error).__name__
            at = f" at {endpoint.rpartition('@')[2]}" if endpoint else ""
            title = _TITLES.get(service, service)
            raise FleetError(
                aws_errors.advise_login(kind) or f"{title} cannot be used in region {keys.shown(region)}{at} ({kind})."
            ) from None

    return AwsService(make, service, region)


def own_region(used_by: str) -> str:
    """The region of this shell's AWS settings; empty for none.

    Raises:
        FleetError: boto3 or the profile is missing.
    """
    return str(_session(None, used_by)[0].region_name or "")


def _session(region: str | None, used_by: str) -> tuple[t.Any, t.Any]:
    """A new session, and the exceptions of boto3's calls."""
    try:
        module: t.Any = importlib.import_module("boto3.session")
        errors: t.Any = importlib.import_module("botocore.exceptions")
    except ImportError as error:
        raise FleetError(
            f"{used_by} needs the Python library boto3, which {sys.executable} does not have ({error.name}). Install "
            "requirements/controller.txt there."
        ) from None
    try:
        return module.Session(region_name=region), errors
    except errors.ProfileNotFound:
        raise FleetError("There is no AWS profile as AWS_PROFILE names it. Name one of ~/.aws/config.") from None


def _credentials(endpoint: str) -> dict[str, str]:
    if endpoint and urllib.parse.urlsplit(endpoint).hostname in _LOOPBACK:
        return {"aws_access_key_id": _STAND_IN, "aws_secret_access_key": _STAND_IN}
    return {}
