# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The console of an EC2 instance."""

from __future__ import annotations

import base64
import binascii

from ansible_collections.inference.fleet.plugins.plugin_utils.aws import session

_USED_BY = "playbooks/join.yml"


def read_console(instance: str, region: str, endpoint: str = "") -> str:
    """The newest part of what the instance printed; empty where there is nothing yet.

    Raises:
        FleetError: AWS refused it, or did not answer.
    """
    ec2 = session.open_service("ec2", region, _USED_BY, endpoint)
    answer = ec2.call("get_console_output", instance, InstanceId=instance, Latest=True)
    output = str(answer.get("Output") or "")
    # boto3 decodes it for some versions of the API.
    try:
        return base64.b64decode(output, validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        return output
