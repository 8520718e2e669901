# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that this host can use what the gateways share."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_store_info
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Check that this host can use the gateways' Redis and PostgreSQL
description:
  - Connects to the gateways' Redis with the password, and reads its version. Fails with host, port and error where it
    cannot be used, so that a gateway detects it before any change.
  - For PostgreSQL it only checks that a server answers. M(inference.fleet.litellm_migration), which has a client for
    it, checks the password.
  - A password is never returned or part of a message.
attributes:
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
    description: It changes nothing.
options:
  redis_url:
    description: The address, V(redis://:PASSWORD@HOST:PORT/0), or V(rediss://...) with TLS. Empty for none.
    type: str
  redis_option:
    description: The name of the variable with the address, for messages.
    type: str
    default: litellm_redis_url
  database_url:
    description: The address, V(postgresql://USER:PASSWORD@HOST:PORT/DATABASE). Empty for none.
    type: str
  timeout:
    description: Seconds for each step.
    type: float
    default: 5
"""

EXAMPLES = r"""
- name: Check that the gateways' Redis can be used
  inference.fleet.gateway_store_info:
    redis_url: "{{ litellm_redis_url }}"
  no_log: true
"""

RETURN = r"""
redis:
  description: The server, C(place) (host and port) and C(version).
  returned: with O(redis_url)
  type: dict
  sample: {"place": "10.0.0.7:6379", "version": "7.0.15"}
database:
  description: The database, C(place) (host, port and name).
  returned: with O(database_url)
  type: dict
  sample: {"place": "10.0.0.7:5432/litellm"}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.gateway import postgresql
from ansible_collections.inference.fleet.plugins.module_utils.gateway import redis as gateway_redis

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "redis_url": {"type": "str", "no_log": True},
    "redis_option": {"type": "str", "default": "litellm_redis_url"},
    "database_url": {"type": "str", "no_log": True},
    "timeout": {"type": "float", "default": 5},
}


def run(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Do what the parameters say; the module's result."""
    result: dict[str, t.Any] = {"changed": False}
    if params["redis_url"]:
        redis = gateway_redis.parse(params["redis_url"], params["redis_option"])
        version = gateway_redis.check(redis, params["redis_option"], params["timeout"])
        result["redis"] = {"place": redis.place, "version": version}
    if params["database_url"]:
        database = postgresql.parse(params["database_url"])
        postgresql.look(database, params["timeout"])
        result["database"] = {"place": database.place}
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
