# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The connections of a gateway that are not protected against others in the network. Pure."""

from __future__ import annotations

import ipaddress
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.gateway import postgresql, redis


def unprotected(edges: t.Sequence[t.Mapping[str, t.Any]], ca: str, redis_url: str, database_url: str) -> list[str]:
    """The unprotected connections of a gateway, each with what to do.

    Args:
        edges: other hosts' edges, each with host or name, and with tls.
        ca: ``edge_tls_ca``.
        redis_url: ``litellm_redis_url``; empty for none.
        database_url: ``litellm_database_url``; empty for none.
    """
    found = []
    plain = [one for one in edges if not one.get("tls") and not _is_here(str(one["address"]))]
    if plain:
        found.append(f"requests to {_names(plain)} are not encrypted (edge_tls_certificate there, edge_tls_ca here)")
    unknown = [one for one in edges if one.get("tls") and not ca]
    if unknown:
        found.append(f"the certificates of {_names(unknown)} are not verified (edge_tls_ca)")
    if redis_url:
        found += _of_store("Redis", redis.parse(redis_url, "litellm_redis_url"), "rediss:// in litellm_redis_url")
    if database_url:
        ways = "sslmode=verify-full and sslrootcert=FILE in litellm_database_url"
        found += _of_store("PostgreSQL", postgresql.parse(database_url), ways)
    return found


def _of_store(kind: str, address: redis.RedisAddress | postgresql.PostgresAddress, way: str) -> list[str]:
    if _is_here(address.host) or (address.tls and address.verified):
        return []
    state = "the certificate is not verified" if address.tls else "the connection need not be encrypted"
    return [f"of {kind} at {address.place} {state} ({way})"]


def _names(edges: t.Iterable[t.Mapping[str, t.Any]]) -> str:
    return ", ".join(dict.fromkeys(str(one.get("host") or one["name"]) for one in edges))


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
