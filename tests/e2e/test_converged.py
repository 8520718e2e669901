"""A converged host: taken over from an earlier version, left alone, and repaired after a manual change."""

from __future__ import annotations

import json
import shlex
import subprocess
import typing as t
from pathlib import Path

import pytest

from lab import state
from tests.e2e.conftest import status
from tests.fakes.standin.lab import StandinLab, inventories
from tests.project import ROOT, Run, run

#: The last commit without folders in module_utils, and without receipts.
EARLIER = "204addd101b4230afe3b6b45334194fe5c3c6ffd"
HOST = "inference-1"
CLEAR_MAP = """
import socket
admin = socket.socket(socket.AF_UNIX)
admin.connect("/run/haproxy/admin.sock")
admin.sendall(b"clear map /etc/haproxy/maps/keys.map\\n")
admin.recv(9)
"""
#: Manual changes on a host, and the reasons that the look reports. All of them at once; the engine keeps running.
DRIFT = (
    ("echo '# by hand' >> /etc/haproxy/haproxy.cfg", "file /etc/haproxy/haproxy.cfg: sha256:"),
    ("chmod 0666 /etc/haproxy/key_usage.py", "file /etc/haproxy/key_usage.py: 0666, was 0"),
    ("chown nobody /opt/inference/libexec/instance_wait.py", "instance_wait.py: nobody:root, was root:root"),
    ("systemctl --quiet disable haproxy", "unit haproxy.service: disabled, was enabled"),
    ("dpkg --force-depends --remove python3-venv", "package python3-venv: absent, was installed"),
    (
        f"python3 -c {shlex.quote(CLEAR_MAP)}",
        "edge /etc/haproxy/maps/keys.map: sha256:",
    ),
    ("rm /opt/inference/releases/*/manifest.json", "manifest.json: missing"),
    ("truncate --size=-1 /opt/dlami/nvme/models/*/*/model.safetensors", "model.safetensors: "),
)


class Checkout:
    """The project at an earlier commit, whose commands run from its own directory."""

    def __init__(self, commit: str, place: Path) -> None:
        self._place = place
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "--extract", "--directory", str(place)], input=archive, check=True)

    def site(self, environment: t.Mapping[str, str]) -> Run:
        sources = ["-i", str(self._place / "inventories/lab"), "-i", str(self._place / "tests/fakes/fleet")]
        words = ["ansible-playbook", *sources, str(self._place / "site.yml"), "-e", "engine=vllm"]
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


@pytest.fixture(scope="module")
def lab(earlier: Checkout) -> t.Iterator[StandinLab]:
    with StandinLab("converged", "10.221.0.0/24", hosts=1) as made:
        deployed = earlier.site(made.environment)
        assert deployed.code == 0, deployed.output[-6000:]
        yield made


def clients(lab: StandinLab) -> dict[str, t.Any]:
    store = state.require(lab.name).directory / "keys.json"
    return dict(json.loads(store.read_text(encoding="utf-8"))["clients"])


def answers(lab: StandinLab) -> list[int]:
    """The host's answer to each client's key, and to an unknown key."""
    made = state.require(lab.name)
    url = f"http://{made.address(made.host(HOST))}:8000/v1/models"
    keys = [client["current"]["key"] for client in clients(lab).values()]
    return [status(url, key) for key in [*keys, "sk-" + "0" * 48]]


def test_a_host_of_an_earlier_version_is_taken_over_with_all_that_it_has(lab: StandinLab) -> None:
    """Its engine gets further options, so it is restarted, once; on a lone host that has to be accepted."""
    release, keys = lab.release(HOST), clients(lab)
    refused = lab.site()
    assert "downtime" in refused.text
    assert lab.release(HOST) == release
    taken_over = lab.site("-e", "rollout_accept_downtime=true")
    assert taken_over.code == 0, taken_over.output[-6000:]
    assert lab.release(HOST) != release
    assert clients(lab) == keys
    assert answers(lab) == [200] * len(keys) + [401]


def test_a_converged_host_only_answers_the_gate(lab: StandinLab) -> None:
    again = lab.site()
    assert again.code == 0, again.output[-6000:]
    assert again.recap[HOST]["changed"] == 0
    assert "TASK [inference.fleet.gate : ask | Ask and judge]" in again.output
    assert "TASK [prepare_host | Configure the edge]" not in again.output


def test_a_changed_setting_of_the_host_is_not_converged(lab: StandinLab) -> None:
    foreseen = lab.site("--check", "--diff", "-e", "edge_queue_limit=7")
    assert foreseen.code == 0, foreseen.output[-6000:]
    assert "what is wanted of the host has changed" in foreseen.text
    assert foreseen.recap[HOST]["changed"] > 0


def test_drift_is_named_and_repaired(lab: StandinLab) -> None:
    for command, _line in DRIFT:
        lab.on(HOST, command)
    repaired = lab.site("--diff")
    assert repaired.code == 0, repaired.output[-6000:]
    for _command, line in DRIFT:
        assert line in repaired.output
    assert "-# by hand" in repaired.output
    assert answers(lab) == [200] * len(clients(lab)) + [401]
    again = lab.site()
    assert again.code == 0, again.output[-6000:]
    assert again.recap[HOST]["changed"] == 0
    assert "TASK [prepare_host | Configure the edge]" not in again.output


@pytest.mark.long
def test_without_receipts_roles_look_by_themselves(lab: StandinLab) -> None:
    # Part long deselects the tests before it, so it may be the one that takes the host over.
    converged = lab.site("-e", "rollout_accept_downtime=true")
    assert converged.code == 0, converged.output[-6000:]
    words = [*inventories(), "site.yml", "-e", "receipt_use=false", "--check"]
    looked = run("ansible-playbook", *words, environment=lab.environment)
    assert looked.code == 0, looked.output[-6000:]
    assert looked.recap[HOST]["changed"] == 0
    assert "TASK [prepare_host | Configure the edge]" in looked.output
