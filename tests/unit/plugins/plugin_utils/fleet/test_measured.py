"""Measured profiles: selected like those of the collection, and refused where they do not belong."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.filter.engines import engine_profile
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet import measured
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.measured import ProfileUse
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import (
    check_profile,
    find_settings,
    name_profile,
    profile_settings,
)

NAME = "measured-l40s-interactive"
PART: dict[str, t.Any] = {
    "version": "0.32.0",
    "model": "Qwen/Qwen3-VL-8B-Instruct",
    "gpu": "L40S",
    "base": "throughput",
    "tune_for": "interactive",
    "run": "20261130T101500Z",
    "at": "2026-11-30T10:42:00Z",
    "host": "gpu-1",
    "settings": [{"name": "max_num_seqs", "value": 64, "why": "Run 20261130T101500Z: -51% better."}],
}
HERE = {"gpu": "NVIDIA L40S", "model": "Qwen/Qwen3-VL-8B-Instruct", "version": "0.32.0"}


def write(folder: Path, name: str = NAME, **changes: t.Any) -> Path:
    document = {"schema": 1, "profile": name, "engines": {"vllm": {**PART, **changes}}}
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(document))
    return path


def use(folder: Path, **changes: str) -> ProfileUse:
    return ProfileUse(directory=str(folder), **{**HERE, **changes})


def test_a_measured_profile_has_its_settings_over_those_of_its_base(tmp_path: Path) -> None:
    write(tmp_path)
    found = find_settings(NAME, "vllm", "L40S", use(tmp_path))
    assert found.values == {**profile_settings("throughput", "vllm", "L40S"), "max_num_seqs": 64}
    assert found.note == ""


def test_a_null_is_a_value(tmp_path: Path) -> None:
    write(tmp_path, settings=[{"name": "max_num_seqs", "value": None, "why": "Run 1."}])
    assert find_settings(NAME, "vllm", "L40S", use(tmp_path)).values["max_num_seqs"] is None


def test_a_file_of_a_newer_version_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("schema: 1", "schema: 2"))
    with pytest.raises(FleetError, match=r"has schema 2, .* reads schema 1\. Install the newer version") as refused:
        find_settings(NAME, "vllm", "L40S", use(tmp_path))
    assert "measure again" not in refused.value.message


@pytest.mark.parametrize(
    ("engine", "changes", "message"),
    [
        ("sglang", {}, "was measured with vllm, and this host runs sglang"),
        ("vllm", {"gpu": "L4"}, "was measured on L40S, and this host has L4"),
        ("vllm", {"gpu": "cpu"}, "was measured on L40S, and this host has no GPU"),
        ("vllm", {"model": "Qwen/Qwen3-8B"}, "with Qwen/Qwen3-VL-8B-Instruct, and this host serves Qwen/Qwen3-8B"),
    ],
)
def test_what_was_measured_for_something_else_is_refused(
    tmp_path: Path, engine: str, changes: dict[str, str], message: str
) -> None:
    write(tmp_path)
    with pytest.raises(FleetError, match=message) as raised:
        find_settings(NAME, engine, "L40S", use(tmp_path, **changes))
    assert f"engine_profile {NAME} " in raised.value.message
    assert "playbooks/tune.yml" in raised.value.message


def test_what_is_not_known_of_the_host_is_not_compared(tmp_path: Path) -> None:
    write(tmp_path)
    assert find_settings(NAME, "vllm", "", use(tmp_path, gpu="", model="", version="")).values["max_num_seqs"] == 64


def test_another_version_is_a_note_and_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    note = find_settings(NAME, "vllm", "L40S", use(tmp_path, version="0.33.0")).note
    assert note.startswith(f"engine_profile {NAME} was measured with vllm 0.32.0, and 0.33.0 runs here")
    said: list[str] = []
    monkeypatch.setattr("ansible.utils.display.Display.warning", lambda _self, text: said.append(text))
    directory = {"directory": str(tmp_path)}
    assert engine_profile(NAME, "vllm", "L40S", {**directory, **HERE, "version": "0.33.0"})["max_num_seqs"] == 64
    assert said == [note]
    engine_profile(NAME, "vllm", "L40S", {**directory, **HERE})
    assert said == [note]


def test_an_unknown_profile_is_refused_with_the_measured_ones_as_well(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "other.yml").write_text("")
    for name in ("fast", "measured-l40s-throughput"):
        with pytest.raises(FleetError) as raised:
            check_profile(name, str(tmp_path))
        message = raised.value.message
        assert message.startswith(f"engine_profile is {name!r}, which is no profile. Valid are: balanced, interactive,")
        assert message.endswith(f"measured, in {tmp_path}: {NAME}.")
    with pytest.raises(FleetError, match="none is measured in -"):
        check_profile("fast")
    check_profile("balanced", str(tmp_path / "absent"))
    check_profile(NAME, str(tmp_path))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has no schema: 1"),
        ("schema: 0", "it has no schema: 1"),
        ("a: [", "it is no YAML"),
        ("{schema: 1, profile: measured-other}", "it says that it is the profile 'measured-other'"),
        (f"{{schema: 1, profile: {NAME}}}", "it has no engines"),
        (f"{{schema: 1, profile: {NAME}, engines: {{triton: {{}}}}}}", "it has the engine 'triton'; known are"),
        (f"{{schema: 1, profile: {NAME}, engines: {{vllm: [1]}}}}", "its part of vllm is no mapping"),
        (f"{{schema: 1, profile: {NAME}, engines: {{vllm: {{model: x}}}}}}", "its part of vllm has no version, no gpu"),
    ],
)
def test_a_file_that_is_not_valid_is_named_with_what_is_wrong(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / f"{NAME}.yml").write_text(text)
    with pytest.raises(FleetError) as raised:
        find_settings(NAME, "vllm", "L40S", use(tmp_path))
    assert raised.value.message.startswith(f"The measured profile {tmp_path}/{NAME}.yml is not valid: {why}")
    assert raised.value.message.endswith("Restore it, or measure again: playbooks/tune.yml.")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base": "fast"}, "has the base 'fast'; valid are balanced"),
        ({"settings": []}, "has no settings"),
        ({"settings": [{"name": "max_num_seqs"}]}, "has a setting that is not name, value and why"),
        ({"settings": [{"name": "max_sequences", "value": 1, "why": "x"}]}, "has the setting 'max_sequences', which"),
    ],
)
def test_a_part_that_is_not_valid_is_named(tmp_path: Path, changes: dict[str, t.Any], why: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(FleetError, match=why):
        measured.read(str(tmp_path), NAME)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.yml").mkdir()
    with pytest.raises(FleetError, match=r"measured-l40s-interactive\.yml cannot be read: .*Is a directory"):
        measured.read(str(tmp_path), NAME)


def test_the_facts_change_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    own = {"engine_profile": NAME, "engine_profiles": str(tmp_path)}
    before = name_profile(own)
    assert before.startswith(f"{NAME} ")
    path.write_text(path.read_text() + "# a comment\n")
    assert name_profile(own) != before
    assert name_profile({}) == ""
    assert name_profile({"engine_profile": "throughput"}) == "throughput"
    with pytest.raises(FleetError, match="which is no profile"):
        name_profile({"engine_profile": "measured-h200-interactive", "engine_profiles": str(tmp_path)})


def test_the_directory_is_beside_what_names_it(tmp_path: Path) -> None:
    assert measured.directory_of({"inventory_dir": "/etc/fleet"}) == "/etc/fleet/group_vars/engine_profiles"
    assert measured.directory_of({"inventory_dir": "/etc/fleet", "engine_profiles": "~/p"}) == str(Path.home() / "p")
    assert measured.directory_of({}) == ""


@pytest.mark.parametrize("name", ["interactive", "measured-", "measured-L40S", "measured-a/b", "measured-../x"])
def test_a_name_that_is_no_file_of_the_directory_is_refused(name: str) -> None:
    with pytest.raises(FleetError, match="tune_profile is"):
        measured.check_name(name, "tune_profile")
    assert measured.check_name(NAME, "tune_profile") == NAME
