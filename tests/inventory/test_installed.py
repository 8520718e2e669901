"""The collection from an artifact, in the user's own directory, without the checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from tests import installed
from tests.inventory.conftest import ROOT, Answer, Api, copy_for_one_region, run_in

NO_API = "http://127.0.0.1:9"
#: Unreachable hosts.
GONE = {f"gpu-{index}": {"ansible_host": "127.0.0.1", "ansible_port": 1} for index in (1, 2)}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed.build(tmp_path_factory.mktemp("artifact"))


@pytest.fixture(scope="module")
def user(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's directory: ansible.cfg, hosts/, collections/."""
    directory = tmp_path_factory.mktemp("user")
    installed.install(artifact, directory)
    shutil.copytree(directory / installed.FLEET / "inventories" / "sample", directory / "hosts")
    (directory / "hosts" / "hosts.yml").write_text(
        json.dumps({"all": {"children": {"inference": {"hosts": GONE}, "gateway": {}, "gateway_store": {}}}}),
        encoding="utf-8",
    )
    return directory


@pytest.fixture
def play(user: Path) -> t.Callable[..., Answer]:
    def play(*words: str) -> Answer:
        return run_in(user, "ansible-playbook", *words, url=NO_API, HOME=str(user), ANSIBLE_SSH_RETRIES="0")

    return play


def test_the_artifact_has_files_of_the_repository_and_none_beside(artifact: Path) -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    known = set(subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"))
    found = installed.files(artifact) - {"MANIFEST.json", "FILES.json"}
    assert found <= known
    needed = {name for name in known if name.startswith(("plugins/", "roles/", "playbooks/", "meta/", "docs/"))}
    assert {name for name in needed if (ROOT / name).exists()} <= found
    assert not [name for name in found if name.split("/")[0] in ("tests", "molecule", "lab", "script", ".venv")]


def test_a_table_reads_as_in_the_checkout(play: t.Callable[..., Answer]) -> None:
    lines = play("inference.fleet.status").output.splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("host "))
    assert lines[head].split()[:4] == ["host", "edge", "i", "engine"]
    assert [line.split()[:2] for line in lines[head + 1 : head + 3]] == [
        ["gpu-1", "UNREACHABLE"],
        ["gpu-2", "UNREACHABLE"],
    ]


def test_a_wrong_variable_is_refused_with_its_valid_values(play: t.Callable[..., Answer]) -> None:
    answer = play("inference.fleet.site", "-e", "engine=vlm")
    assert answer.status != 0
    assert "engine is 'vlm': valid are vllm, sglang. On gpu-1, gpu-2." in answer.output.splitlines()
    assert "unreachable=0" in answer.output, "a host was asked"


def test_a_part_of_a_playbook_is_refused(play: t.Callable[..., Answer]) -> None:
    answer = play("inference.fleet.site", "--tags", "edge")
    assert answer.status != 0
    assert "This playbook runs as a whole or not at all" in " ".join(answer.said.split())


def test_a_page_finds_its_templates_and_stylesheets(user: Path) -> None:
    folder = "ansible_collections.inference.fleet.plugins.plugin_utils.report"
    code = f"from {folder}.page import render_page; from {folder}.record import fold; print(render_page(fold([])))"
    made = subprocess.run(
        [sys.executable, "-c", code],
        cwd=user,
        env={"PYTHONPATH": str(user / "collections"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert "<title>rollout " in made
    # Of base.css, and of rollout.css.
    assert "\n.card { " in made
    assert "\n.lane { " in made


def test_a_copy_of_the_aws_inventory_finds_the_fleet(user: Path, api: Api) -> None:
    api.launch("g6e.xlarge", {"Name": "gpu-1", "inference:role": "inference", "inference:ring": "canary"})
    api.launch("m7i.large", {"Name": "gateway-1", "inference:role": "gateway"})
    copy_for_one_region(user / installed.FLEET / "inventories" / "aws", user / "aws")
    found = run_in(user, "ansible-inventory", "-i", "aws", "--list", url=api.url)
    assert found.members("ring_canary") == {"gpu-1"}
    assert found.members("gateway") == {"gateway-1"}
    assert found.hosts["gpu-1"]["fleet_engine"] == "vllm"
