"""A host that an earlier version of this collection deployed is taken over as it is: no restart, no lost key."""

from __future__ import annotations

import json
import subprocess
import typing as t
from pathlib import Path

import pytest

from lab import state
from tests.e2e.conftest import status
from tests.fakes.standin.lab import StandinLab
from tests.project import ROOT, Run, run

#: The last commit with flat modules, the receipts of 0.2.0 not yet among them.
EARLIER = "204addd101b4230afe3b6b45334194fe5c3c6ffd"


class Checkout:
    """The project as it was, whose commands run from its own directory."""

    def __init__(self, commit: str, place: Path) -> None:
        self._place = place
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "--extract", "--directory", str(place)], input=archive, check=True)

    def site(self, environment: t.Mapping[str, str]) -> Run:
        inventories = ["-i", str(self._place / "inventories/lab"), "-i", str(self._place / "tests/fakes/fleet")]
        words = ["ansible-playbook", *inventories, str(self._place / "site.yml"), "-e", "engine=vllm"]
        configured = {
            **environment,
            "ANSIBLE_CONFIG": str(self._place / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self._place / "collections"),
        }
        return run("env", f"--chdir={self._place}", *words, environment=configured)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    known = subprocess.run(["git", "cat-file", "-e", EARLIER], cwd=ROOT, capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"this clone does not have the commit {EARLIER}; git fetch --unshallow brings it")
    return Checkout(EARLIER, tmp_path_factory.mktemp("earlier"))


def test_a_host_of_an_earlier_version_is_taken_over_as_it_is(earlier: Checkout) -> None:
    with StandinLab("upgrade", "10.221.0.0/24", hosts=1) as lab:
        deployed = earlier.site(lab.environment)
        assert deployed.code == 0, deployed.output[-6000:]
        process, release = lab.process("inference-1"), lab.release("inference-1")
        store = state.require(lab.name).directory / "keys.json"
        keys = json.loads(store.read_text(encoding="utf-8"))["clients"]
        taken_over = lab.site()
        assert taken_over.code == 0, taken_over.output[-6000:]
        assert lab.process("inference-1") == process
        assert lab.release("inference-1") == release
        assert json.loads(store.read_text(encoding="utf-8"))["clients"] == keys
        made = state.require(lab.name)
        url = f"http://{made.address(made.host('inference-1'))}:8000/v1/models"
        assert [status(url, client["current"]["key"]) for client in keys.values()] == [200] * len(keys)
        assert status(url, "sk-" + "0" * 48) == 401
        again = lab.site()
        assert again.code == 0, again.output[-6000:]
        assert all(counts["changed"] == 0 for counts in again.recap.values()), again.output[-6000:]
