# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What AWS's services have in common when they refuse a call, in words. Pure."""

from __future__ import annotations

import re

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: Attempts of one call: boto3 waits longer and longer between them.
ATTEMPTS = 5
CONNECT_SECONDS = 5
READ_SECONDS = 20

_DENIED = ("AccessDeniedException", "AccessDenied", "UnauthorizedOperation")
_STRANGER = (
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "AuthFailure",
)
_EXPIRED = ("ExpiredTokenException", "ExpiredToken", "RequestExpired")
_THROTTLED = (
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestThrottled",
)
_NO_LOGIN = (
    "CredentialRetrievalError",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
)
_ACTION = re.compile(r"not authorized to perform:? ([\w-]+:\w+)")


class AwsFailure(FleetError):
    """A call that AWS answered with an error.

    Args:
        message: what failed and what to do.
        code: AWS's name of the error.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def is_expired(code: str) -> bool:
    """Whether AWS's error says that the credentials were valid and no longer are."""
    return code in _EXPIRED


def is_denied(code: str) -> bool:
    """Whether AWS's error says that a right is missing."""
    return code in _DENIED


def denied_action(said: str) -> str:
    """The IAM action that AWS's message says is missing; empty where it names none."""
    match = _ACTION.search(said)
    return match[1] if match else ""


def advise(code: str, region: str) -> str:
    """What to do about an error that any service may answer with; empty for others.

    Args:
        code: AWS's name of the error.
        region: where the call was made.
    """
    if code in _STRANGER:
        return f"AWS does not know these credentials in {region}. Check profile, AWS_* variables and region."
    if code in _EXPIRED:
        return "The credentials have expired. Log in again (aws sso login, or renew the session), then run again."
    if code in _THROTTLED:
        return f"AWS throttles the calls, also after {ATTEMPTS} attempts. Wait a minute, then run again."
    return ""


def advise_login(kind: str) -> str:
    """What to do about one of boto3's own errors, by its name, if it is about the credentials; empty for others."""
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        return (
            f"There are no complete AWS credentials ({kind}). Give a profile, set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run on a machine with an instance role."
        )
    if kind in _NO_LOGIN:
        return f"The AWS credentials cannot be obtained ({kind}). Log in again (aws sso login), then run again."
    return ""
