# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Reads alarms from CloudWatch."""

from __future__ import annotations

import importlib
import sys
import typing as t
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core import aws_errors, keys, times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.alarms import Alarm

#: Without them CloudWatch answers with metric alarms only.
_TYPES = ("MetricAlarm", "CompositeAlarm")
_RIGHT = "cloudwatch:DescribeAlarms"


def regions_of(hosts: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """The regions of hosts by their variables; without any, that of this shell's AWS settings.

    Raises:
        FleetError: neither says one.
    """
    regions = sorted({str(one["fleet_region"]) for one in hosts if one.get("fleet_region")})
    if regions:
        return regions
    own = _session(None)[1]
    if not own:
        raise FleetError(
            "It is not known in which region the alarms of rollout_stop_on_alarms are: no host has fleet_region, and "
            "this shell has no AWS_REGION. Set one of them."
        )
    return [own]


def read_alarms(names: t.Sequence[str], regions: t.Sequence[str]) -> list[Alarm]:
    """The alarms of these names, in each region that has them.

    Args:
        names: at most 100.
        regions: where to look.

    Raises:
        FleetError: AWS refused it, or did not answer; the message names region and right.
    """
    return [alarm for region in regions for alarm in _read_region(names, region)]


def _session(region: str | None) -> tuple[t.Any, str]:
    """A new session and its region, for each look: credentials on disk may have been renewed since the last one."""
    try:
        module = importlib.import_module("boto3.session")
        errors = importlib.import_module("botocore.exceptions")
    except ImportError as error:
        raise FleetError(
            f"rollout_stop_on_alarms needs the Python library boto3, which {sys.executable} does not have "
            f"({error.name}). Install requirements/controller.txt there."
        ) from None
    try:
        session = module.Session(region_name=region)
        return session, str(session.region_name or "")
    except errors.ProfileNotFound:
        raise FleetError("There is no AWS profile as AWS_PROFILE names it. Name one of ~/.aws/config.") from None


def _read_region(names: t.Sequence[str], region: str) -> list[Alarm]:
    session, _region = _session(region)
    errors: t.Any = importlib.import_module("botocore.exceptions")
    config: t.Any = importlib.import_module("botocore.config")
    try:
        cloudwatch = session.client(
            "cloudwatch",
            config=config.Config(
                retries={"mode": "standard", "total_max_attempts": aws_errors.ATTEMPTS},
                connect_timeout=aws_errors.CONNECT_SECONDS,
                read_timeout=aws_errors.READ_SECONDS,
            ),
        )
    except (errors.BotoCoreError, ValueError) as error:
        kind = type(error).__name__
        raise FleetError(
            aws_errors.advise_login(kind) or f"CloudWatch cannot be used in region {keys.shown(region)} ({kind})."
        ) from None
    try:
        pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNames=list(names), AlarmTypes=list(_TYPES))
        found = [one for page in pages for kind in _TYPES for one in page.get(f"{kind}s", ())]
    except errors.ClientError as error:
        raise FleetError(_refused(error.response.get("Error", {}), region)) from None
    except errors.BotoCoreError as error:
        raise FleetError(_unanswered(error, region, cloudwatch.meta.endpoint_url)) from None
    return [_alarm(one, region) for one in found]


def _alarm(one: t.Mapping[str, t.Any], region: str) -> Alarm:
    # A new reason in the same state moves StateUpdatedTimestamp only.
    since = one.get("StateTransitionedTimestamp") or one.get("StateUpdatedTimestamp")
    return Alarm(
        name=str(one["AlarmName"]),
        region=region,
        state=str(one.get("StateValue", "")),
        reason=str(one.get("StateReason", "")),
        since=times.moment(since.timestamp()) if since else "",
    )


def _refused(error: t.Mapping[str, t.Any], region: str) -> str:
    code, said = str(error.get("Code", "")), str(error.get("Message", ""))
    failed = f"DescribeAlarms in {region} failed ({code})."
    if aws_errors.is_denied(code) or aws_errors.denied_action(said):
        action = aws_errors.denied_action(said) or _RIGHT
        return f"{failed} The credentials lack the right {action} on *: allow that IAM action, then run again."
    words = keys.redacted(said).rstrip(".")
    return f"{failed} {aws_errors.advise(code, region) or f'AWS says: {words}.'}"


def _unanswered(error: Exception, region: str, url: str) -> str:
    kind = type(error).__name__
    failed = f"DescribeAlarms in {region} was not answered ({kind})."
    # The URL may hold a password.
    host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    login = aws_errors.advise_login(kind)
    return f"{failed} {login or f'{host} cannot be reached. Check region, proxy and network, then run again.'}"
