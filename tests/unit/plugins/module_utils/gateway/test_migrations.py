"""A database's pending migrations, and the error for one that did not finish."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gateway.migrations import (
    Applied,
    Migration,
    found_in,
    pending,
)

KNOWN = [Migration(name, f"CREATE TABLE {name} ();") for name in ("a", "b", "c")]


def test_those_that_were_applied_are_not_applied_again() -> None:
    assert pending(KNOWN, [Applied("a", True, False)]) == KNOWN[1:]
    assert pending(KNOWN, [Applied(name, True, False) for name in "abc"]) == []


def test_one_that_was_taken_back_is_applied_again() -> None:
    assert pending(KNOWN, [Applied("a", False, True)]) == KNOWN
    assert pending(KNOWN, [Applied("a", False, True), Applied("a", True, False)]) == KNOWN[1:]


def test_those_of_a_later_version_stay() -> None:
    assert pending(KNOWN, [Applied("z", True, False)]) == KNOWN


def test_one_that_did_not_end_is_named_and_nothing_goes_on() -> None:
    with pytest.raises(FleetError, match=r"says that b began and did not end\. See what became of it"):
        pending(KNOWN, [Applied("a", True, False), Applied("b", False, False)])


def test_they_are_found_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "lib/python3.11/site-packages/litellm_proxy_extras/migrations"
    for name in ("20260102_second", "20250326_first"):
        (folder / name).mkdir(parents=True)
        (folder / name / "migration.sql").write_text(f"-- {name}\n")
    first, second = found_in(str(tmp_path))
    assert (first.name, second.name) == ("20250326_first", "20260102_second")
    assert first.checksum == hashlib.sha256(b"-- 20250326_first\n").hexdigest()


def test_a_runtime_without_migrations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="has no migrations"):
        found_in(str(tmp_path))
