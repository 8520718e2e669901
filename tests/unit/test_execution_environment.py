"""The execution environment's definition."""

from __future__ import annotations

import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import yaml

from tests.project import ROOT

DEFINITION = ROOT / "execution-environment.yml"


def load(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_ansible_builder_accepts_it(tmp_path: Path) -> None:
    shutil.copy(DEFINITION, tmp_path)
    (tmp_path / "dist").mkdir()
    artifact = tmp_path / load(DEFINITION)["dependencies"]["galaxy"]["collections"][0]["name"]
    artifact.touch()
    builder = Path(sys.executable).parent / "ansible-builder"
    command = [str(builder), "create", "--output-filename", "Containerfile"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "context" / "_build" / "dist" / artifact.name).exists()
    assert "ansible-core>=2.21" in (tmp_path / "context" / "Containerfile").read_text(encoding="utf-8")


def test_it_installs_the_artifact_of_this_version() -> None:
    galaxy = load(ROOT / "galaxy.yml")
    artifact = f"dist/{galaxy['namespace']}-{galaxy['name']}-{galaxy['version']}.tar.gz"
    definition = load(DEFINITION)
    assert definition["dependencies"]["galaxy"]["collections"] == [{"name": artifact, "type": "file"}]
    assert definition["additional_build_files"] == [{"src": artifact, "dest": "dist"}]


def test_the_collection_names_the_packages_that_its_plugins_import() -> None:
    packages = load(ROOT / "meta/execution-environment.yml")["dependencies"]["python"]
    assert {package.split(">")[0] for package in packages} == {"aiohttp", "boto3", "botocore"}
