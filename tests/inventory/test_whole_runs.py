"""Partial runs of every playbook, as a user might start them."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import pytest
import yaml

from tests.inventory.conftest import ROOT, Answer, run

PLAYBOOKS = sorted(path.stem for path in ROOT.glob("playbooks/*.yml"))
NO_API = "http://127.0.0.1:9"
NOTHING_DONE = "This playbook runs as a whole or not at all, and nothing was done:"


def play(*words: str, **variables: str) -> Answer:
    return run("ansible-playbook", "-i", "inventories/sample", *words, url=NO_API, **variables)


def refused(answer: Answer) -> str:
    """Ansible's message when it did nothing."""
    assert answer.status != 0, answer.output
    assert "PLAY [" not in answer.output
    return " ".join(answer.said.split())


def plays_of(playbook: str) -> list[dict[str, t.Any]]:
    found: list[dict[str, t.Any]] = yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_names_the_groups_that_it_works_on(playbook: str) -> None:
    begin, *plays = plays_of(playbook)
    assert begin["ansible.builtin.import_playbook"] == "plays/begin.yml"
    patterns = [one["hosts"] for one in plays]
    works_on = {group for pattern in patterns if "{{" not in pattern for group in pattern.split(":")} - {"localhost"}
    assert set(begin["vars"]["begin_groups"]) == works_on
    # Plays on a part of these take it from the groups that role receipt makes in the run, or depend on there being a
    # monitoring host.
    made = [pattern for pattern in patterns if "{{" in pattern]
    known = re.compile(r"groups\['(fleet_(differing|converged)_\w+|monitoring)'\]")
    assert [pattern for pattern in made if not known.search(pattern)] == []


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_no_part_of_a_playbook_is_run(playbook: str) -> None:
    last = plays_of(playbook)[-1]["tasks"][-1]["name"]
    options = ("--tags", "edge", "--skip-tags", "always", "--start-at-task", last)
    said = refused(play(f"playbooks/{playbook}.yml", *options))
    assert f"{NOTHING_DONE} --tags edge, --skip-tags always, --start-at-task '{last}' would leave out" in said


@pytest.mark.parametrize(
    ("words", "variables", "named"),
    [
        (["--tags", "always"], {}, "--tags always"),
        (["--skip-tags", "edge"], {}, "--skip-tags edge"),
        (["--start-at-task", "Prove that every gateway answers"], {}, "--start-at-task 'Prove that"),
        (["--step"], {}, "--step"),
        ([], {"ANSIBLE_RUN_TAGS": "edge"}, "--tags edge"),
        ([], {"ANSIBLE_STRATEGY": "free"}, "strategy = free"),
    ],
)
def test_a_part_of_site_is_refused_with_a_configuration_of_ones_own(
    words: list[str], variables: dict[str, str], named: str, tmp_path: Path
) -> None:
    own = tmp_path / "ansible.cfg"
    own.write_text(f"[defaults]\ncollections_path = {ROOT}/collections\n", encoding="utf-8")
    said = refused(play("site.yml", *words, ANSIBLE_CONFIG=str(own), **variables))
    assert f"{NOTHING_DONE} {named}" in said


@pytest.mark.parametrize(
    ("playbook", "limit", "named"),
    [
        ("site", "gpu-1,gpu-9", "--limit names gpu-9, which the inventory does not have. Its hosts are: gpu-1, gpu-2."),
        ("smoke", "gpu-1,ring_canery", "--limit names ring_canery"),
        ("drain", "gpu-1:gpu-x", "--limit names gpu-x"),
        ("verify_gpu", "inference[0:4]", "and inference has 2 hosts"),
        ("show_key", "gpu-1", "works on no host"),
    ],
)
def test_a_limit_that_misses_a_host_is_refused(playbook: str, limit: str, named: str) -> None:
    said = refused(play(f"playbooks/{playbook}.yml", "-l", limit, "-e", "client=gateway"))
    assert "Nothing was done." in said
    assert named in said


@pytest.mark.parametrize(
    ("limit", "named"),
    [
        ("", "--limit '' names nothing, and Ansible would take every host."),
        (",", "--limit ',' names nothing"),
        (" : ", "names nothing"),
        ("@empty", "names nothing"),
        ("inference[", "has a bracket without its other one"),
        ("inference[0", "has a bracket without its other one"),
        ("~[", "has a bracket without its other one"),
        ("~", "a pattern without a word"),
    ],
)
def test_a_limit_that_ansible_takes_as_every_host_is_refused(limit: str, named: str, tmp_path: Path) -> None:
    """https://github.com/ansible/ansible/issues/83264 and 85278."""
    empty = tmp_path / "empty.retry"
    empty.write_text("\n\n", encoding="utf-8")
    said = refused(play("playbooks/drain.yml", f"--limit={limit.replace('empty', str(empty))}"))
    assert "Nothing was done." in said
    assert named in said


def test_a_limit_to_what_does_not_run_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "hosts.json"
    groups: dict[str, t.Any] = {
        "inference": {"hosts": {"gpu-1": {}}},
        "gateway": {},
        "not_running": {"hosts": {"gpu-2": {}}},
    }
    source.write_text(json.dumps({"all": {"children": groups}}), encoding="utf-8")
    answer = run("ansible-playbook", "-i", str(source), "playbooks/status.yml", "-l", "gpu-2", url=NO_API)
    assert "--limit names gpu-2, which does not run. Start it first." in refused(answer)


def test_roles_have_no_tags_that_would_seem_to_work() -> None:
    tagged = [
        str(path.relative_to(ROOT))
        for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]
        if "tags:" in [line.split("#")[0].strip()[:5] for line in path.read_text(encoding="utf-8").splitlines()]
    ]
    assert tagged == []
