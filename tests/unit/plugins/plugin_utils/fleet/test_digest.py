from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet import digest
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.digest import (
    collection_digest,
    digest_of,
    file_digest,
    files_in,
    files_of,
    is_template,
    own_variables,
)


def test_the_order_of_names_does_not_count_and_every_value_does() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": "1"})
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})


def test_what_tasks_found_and_what_a_run_needs_is_not_of_the_host() -> None:
    raw = dict.fromkeys(["vllm_port", "ansible_host", "rollout_waves", "gate_image", "groups", "engine_staged", "mine"])
    assert own_variables(raw, {"engine_staged"}) == ["mine", "vllm_port"]


def test_a_host_that_joins_is_as_it_will_be_as_a_member() -> None:
    member = {"vllm_port": 1, "aws_ec2_tags": {"Name": "fleet"}, "fleet_state": "running", "fleet_state_tag": ""}
    joins = {
        **member,
        "fleet_admit": "i-0a",
        "join_host_keys": "known",
        "scaling_outcome": "/x",
        "fleet_state_tag": "j",
    }
    assert own_variables(joins, {}) == own_variables(member, {}) == ["vllm_port"]


@pytest.mark.parametrize("value", ["{{ a }}", "x{% if a %}", ["a", "{{ b }}"], {"a": {"b": "{{ c }}"}}, Path("/x")])
def test_what_has_to_be_rendered_is_seen(value: object) -> None:
    assert is_template(value)


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "a { b }", ["a"], {"a": [1]}])
def test_plain_values_are_not_rendered(value: object) -> None:
    assert not is_template(value)


def test_files_that_a_value_names_count_with_their_content(tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    path.write_text("one")
    value = {"certificate": str(path), "text": "a/b\nc", "none": str(tmp_path / "none"), "list": [str(path)]}
    before = list(files_in(value))
    assert [name for name, _content in before] == [str(path), str(path)]
    path.write_text("two")
    assert list(files_in(value)) != before


def test_the_files_of_a_directory_count_where_a_variable_is_one(tmp_path: Path) -> None:
    (tmp_path / "vllm.txt").write_text("one")
    before = list(files_of("engine_locks_dir", str(tmp_path)))
    assert [name for name, _content in before] == ["vllm.txt"]
    (tmp_path / "vllm.txt").write_text("two")
    assert list(files_of("engine_locks_dir", str(tmp_path))) != before
    assert list(files_of("fleet_rollout_records", str(tmp_path))) == []
    assert list(files_of("engine_locks_dir", "")) == []


def test_a_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key.pem").write_text("x")
    assert [name for name, _content in files_in("~/key.pem")] == [str(tmp_path / "key.pem")]


def test_large_files_count_by_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_READ_BYTES", 10)
    path = tmp_path / "weights"
    path.write_bytes(b"0" * 11)
    before = file_digest(str(path))
    os.utime(path, (1, 1))
    assert file_digest(str(path)) != before
    assert file_digest(str(path)).startswith("11 ")


def test_any_line_of_the_collections_code_counts(tmp_path: Path) -> None:
    role = tmp_path / "roles/edge/tasks"
    role.mkdir(parents=True)
    (role / "main.yml").write_text("---\n")
    before = collection_digest(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("x")
    (role / "main.pyc").write_text("x")
    assert collection_digest(tmp_path) == before
    (role / "main.yml").write_text("---\n# x\n")
    changed = collection_digest(tmp_path)
    assert changed != before
    (role / "main.yml").rename(role / "other.yml")
    assert collection_digest(tmp_path) != changed
