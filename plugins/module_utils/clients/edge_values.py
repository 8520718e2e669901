# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A client's value in the edge's map of keys: its name, and the limits that edges and accountants enforce. Pure.

A value is ``v=2|name``, or ``v=2|name|…`` with the limits in the places of ``edge_field`` in schema.py: numbers, the
Unix time of moments and the seconds of periods, 0 for no limit, and models as ``,model,model,``. The fields of limits
that only accountants enforce are left out behind the last one that is set. Further fields may follow. No client's name
has a ``=``, so a value of the first version, which lacks ``v=2|``, cannot be mistaken for a later one.
"""

from __future__ import annotations

import decimal
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.clients import schema
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.clients.schema import Enforcer, Kind, Limit
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: The version of values that this code writes; role edge's configuration also reads the first one.
VERSION = 2

_SEPARATOR = "|"
_PREFIX = f"v={VERSION}{_SEPARATOR}"
_VERSIONED = re.compile(r"v=(\d+)(?:\||\Z)")
_READS = re.compile(r"^\s*description:?\s+\S+ clients=(\d+)\s*$", re.IGNORECASE | re.MULTILINE)


def carried() -> list[Limit]:
    """The limits in a value, in the order of their fields."""
    return sorted((row for row in schema.LIMITS if row.edge_field), key=lambda row: row.edge_field)


def enforced() -> list[Limit]:
    """Those that every edge enforces."""
    return [row for row in carried() if row.enforcer is not Enforcer.GATEWAY]


def render(name: str, limits: Limits) -> str:
    """The map's value."""
    rows = carried()
    fields = [""] * max(row.edge_field for row in rows)
    for row in rows:
        fields[row.edge_field - 1] = _field(row, limits.get(row.name))
    while len(fields) > max(row.edge_field for row in enforced()) and fields[-1] == "0":
        fields.pop()
    return _SEPARATOR.join([f"{_PREFIX}{name}", *(fields if limits.only(rows).values else [])])


def parse(value: str) -> tuple[str, Limits]:
    """The name and limits in a map's value; an unknown value counts as a name."""
    name, *fields = value.removeprefix(_PREFIX).split(_SEPARATOR)
    found = {}
    try:
        for row in carried():
            field = fields[row.edge_field - 1] if row.edge_field <= len(fields) else ""
            if field not in ("", "0"):
                found[row.name] = _parsed(row, field)
        return name, client_limits.read(found)
    except (TypeError, ValueError):
        return name, Limits()


def in_version(value: str, version: int) -> str:
    """The same value in the version that a configuration reads."""
    plain = value.removeprefix(_PREFIX)
    return plain if version < VERSION else f"{_PREFIX}{plain}"


def check_version(value: str, where: str) -> None:
    """Check that this code can read a value.

    Raises:
        FleetError: a later collection wrote it.
    """
    match = _VERSIONED.match(value)
    if match and int(match[1]) != VERSION:
        raise FleetError(
            f"{where} has clients in version {match[1]}; this collection reads versions up to {VERSION}. Nothing was "
            "changed. Use the collection that wrote it, or a later one."
        )


def version_read(text: str) -> int:
    """The latest version that a configuration reads, from its own text or HAProxy's ``show info``."""
    match = _READS.search(text)
    return int(match[1]) if match else 1


def _field(row: Limit, value: t.Any) -> str:
    if row.kind is Kind.MODELS:
        return f",{','.join(value)}," if value else ""
    if row.kind is Kind.MOMENT:
        return str(times.seconds(value)) if value else "0"
    if row.kind is Kind.PERIOD:
        return str(times.duration(value, row.name)) if value else "0"
    # No exponent, whatever the number.
    return format(decimal.Decimal(repr(value)), "f") if isinstance(value, float) else str(value or 0)


def _parsed(row: Limit, field: str) -> t.Any:
    if row.kind is Kind.MODELS:
        if not (field.startswith(",") and field.endswith(",")):
            raise ValueError
        return field.strip(",").split(",")
    if row.kind is Kind.MOMENT:
        return times.moment(int(field))
    if row.kind is Kind.PERIOD:
        return f"{int(field)}s"
    return float(field) if row.kind is Kind.AMOUNT else int(field)
