# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The list prices of EC2 instances that ship with the collection, by region and instance type."""

from __future__ import annotations

import dataclasses
import functools
import json
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import write_atomically

FILE = Path(__file__).with_name("ec2.json")


@dataclasses.dataclass(frozen=True)
class Region:
    """The prices of a region.

    Attributes:
        date: the day that the prices are from, as YYYY-MM-DD.
        source: where they were read.
        prices: US dollars per hour by instance type: on demand, Linux, shared tenancy, without taxes.
    """

    date: str
    source: str
    prices: t.Mapping[str, float]


PriceTable = t.Mapping[str, Region]


@functools.cache
def load(path: Path = FILE) -> PriceTable:
    """The prices by region. A region or type that is missing has no known price.

    Raises:
        FleetError: the list cannot be read.
    """
    try:
        return {name: Region(**region) for name, region in json.loads(path.read_text("utf-8"))["regions"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetError(
            f"The list of prices {path} cannot be read ({error}). Restore it, or write a new one with script/prices."
        ) from error


def write(table: PriceTable, path: Path = FILE) -> None:
    """Replace the file."""
    regions = {name: dataclasses.asdict(table[name]) for name in sorted(table)}
    what = "US dollars per hour of one instance: on demand, Linux, shared tenancy, without taxes"
    write_atomically(str(path), json.dumps({"what": what, "regions": regions}, indent=2) + "\n", mode=0o644)
