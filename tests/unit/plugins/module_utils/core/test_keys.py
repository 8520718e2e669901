from __future__ import annotations

import re

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

DIGEST = "ab12cd34" + "0" * 56
OTHER = "ef56ab78" + "0" * 56


def test_a_key_has_256_random_bits() -> None:
    keys = {api_keys.new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", key) for key in keys)


def test_a_fingerprint_is_the_hashs_first_digits() -> None:
    # What `printf %s sk-test | sha256sum` prints.
    assert api_keys.sha256("sk-test").startswith("f3abf2a6")
    assert api_keys.fingerprint("sk-test") == "sk-…f3abf2a6"
    assert api_keys.hash_fingerprint(DIGEST) == "sk-…ab12cd34"


@pytest.mark.parametrize("name", ["a", "team-a", "team.b_2", "0", "x" * 63])
def test_a_name_of_a_client(name: str) -> None:
    assert api_keys.check_client_name(name) == name


@pytest.mark.parametrize("name", ["", "Team", "-a", "a b", "a/b", "a\n", "x" * 64, None, 7])
def test_what_is_no_name(name: object) -> None:
    with pytest.raises(FleetError, match="cannot be a client's name"):
        api_keys.check_client_name(name)


def test_a_key_in_the_place_of_a_name_is_not_repeated() -> None:
    with pytest.raises(FleetError) as caught:
        api_keys.check_client_name("sk-SECRET")
    assert "SECRET" not in caught.value.message


def test_a_name_stands_once() -> None:
    with pytest.raises(FleetError, match="team-a is given twice"):
        api_keys.check_client_names(["team-a", "team-b", "team-a"])


def test_hashes_are_sorted_and_a_repeated_one_counts_once() -> None:
    items = [{"name": "b", "sha256": OTHER}, {"name": "a", "sha256": DIGEST}, {"name": "b", "sha256": OTHER}]
    assert api_keys.check_hashes(items) == [("a", DIGEST), ("b", OTHER)]


def test_a_key_in_the_place_of_a_hash_is_not_repeated() -> None:
    with pytest.raises(FleetError, match="client a is not 64") as caught:
        api_keys.check_hashes([{"name": "a", "sha256": "sk-SECRET"}])
    assert "SECRET" not in caught.value.message


def test_two_clients_cannot_share_a_key() -> None:
    with pytest.raises(FleetError, match="a and b have the same key sk-…ab12cd34"):
        api_keys.check_hashes([{"name": "a", "sha256": DIGEST}, {"name": "b", "sha256": DIGEST}])


def test_a_client_has_two_keys_at_most() -> None:
    two = [{"name": "a", "sha256": f"{number:064x}"} for number in range(2)]
    assert len(api_keys.check_hashes(two)) == 2
    with pytest.raises(FleetError, match="a has more than 2 keys"):
        api_keys.check_hashes([*two, {"name": "a", "sha256": DIGEST}])
