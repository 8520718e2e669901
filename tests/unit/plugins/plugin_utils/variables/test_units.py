from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.plugin_utils.variables import units

ROLES = Path(__file__).resolve().parents[5] / "roles"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (60, 60),
        (0.5, 0.5),
        ("60", 60),
        ("30s", 30),
        ("10m", 600),
        ("24h", 86400),
        ("2d", 172800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("500ms", 0.5),
        (" 10 m ", 600),
        (None, None),
    ],
)
def test_times(value: t.Any, seconds: float | None) -> None:
    assert units.seconds(value) == seconds


@pytest.mark.parametrize("value", ["10 minutes", "m", "10x", "1h30", "-5s", "", True, [60], "10s later"])
def test_what_is_no_time(value: t.Any) -> None:
    with pytest.raises(ValueError, match="a time is a number of seconds"):
        units.seconds(value)


@pytest.mark.parametrize(
    ("value", "unit", "size"),
    [
        (67108864, "B", 67108864),
        ("64MiB", "B", 67108864),
        ("64M", "B", 67108864),
        ("64MB", "B", 64_000_000),
        ("1.5GiB", "MiB", 1536),
        ("1GB", "MiB", 953),
        ("512MiB", "GiB", 0.5),
        ("20gib", "GiB", 20),
        (12, "GiB", 12),
        ("12", "GiB", 12),
        (0.1, "GiB", 0.1),
        ("100B", "B", 100),
        (None, "B", None),
    ],
)
def test_sizes(value: t.Any, unit: str, size: float | None) -> None:
    assert units.size(value, unit) == size


@pytest.mark.parametrize("value", ["20 gigs", "GiB", "-1GiB", "", True, "1GiB2"])
def test_what_is_no_size(value: t.Any) -> None:
    with pytest.raises(ValueError, match="a size is a number of MiB"):
        units.size(value, "MiB")


def test_every_variable_with_a_unit_is_one_of_a_role_and_its_spec_says_so() -> None:
    specs: dict[str, t.Any] = {}
    for path in ROLES.glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            specs.update(entry.get("options") or {})
    for name in [*units.TIMES, *units.SIZES]:
        assert specs[name]["type"] == "raw", name
        assert "Also with a unit" in specs[name]["description"], name
    assert units.TIMES | set(units.SIZES) >= units.FRACTIONS


def test_every_place_that_uses_one_reads_its_unit() -> None:
    """A bare use would take 10m for a text, or for 0."""
    bare = []
    for path in [*ROLES.glob("*/tasks/*.yml"), *ROLES.glob("*/vars/*.yml"), *ROLES.glob("*/templates/**/*.j2")]:
        if path.name == "haproxy.cfg.j2":
            # Its numbers come from __edge_plain_numbers.
            continue
        for line in path.read_text().splitlines():
            for name in [*units.TIMES, *units.SIZES]:
                used = line.count(f"{{{{ {name}") + line.count(f"{{{{ ({name}")
                if used > line.count(f"{name} | inference.fleet."):
                    bare.append((path.parent.parent.name, line.strip()))
    assert bare == []
