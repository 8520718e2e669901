"""What tests/gpu/render.yml takes to a machine with GPUs is what the roles deploy."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Release

from tests.project import ROOT

Bundles = dict[str, dict[str, t.Any]]


@pytest.fixture(scope="module")
def bundles(rendered: Path) -> Bundles:
    return {path.stem: json.loads(path.read_text()) for path in rendered.glob("*.json")}


def hosts_of(group: dict[str, t.Any]) -> set[str]:
    below = [hosts_of(child) for name, child in (group.get("children") or {}).items() if name != "variants"]
    return set(group.get("hosts") or {}).union(*below)


def test_every_host_but_the_variants_is_there(bundles: Bundles) -> None:
    inventory = yaml.safe_load((ROOT / "tests/gpu/inventory.yml").read_text())
    assert set(bundles) == hosts_of(inventory["all"])


def test_a_release_has_every_argument_that_the_role_gives(bundles: Bundles) -> None:
    (task,) = yaml.safe_load((ROOT / "roles/engine/tasks/release.yml").read_text())
    given = task["inference.fleet.engine_release"]
    # The runtime is another one there, and with it the version.
    wanted = set(given) - {"state", "root", "version", "runtime"} | {"shared_options"}
    assert {frozenset(release) for bundle in bundles.values() for release in bundle["releases"]} == {frozenset(wanted)}


def test_each_instance_has_its_gpus(bundles: Bundles) -> None:
    def visible(host: str) -> list[list[str]]:
        releases = bundles[host]["releases"]
        return [[item["environment"]["CUDA_VISIBLE_DEVICES"] for item in release["instances"]] for release in releases]

    assert visible("both") == [["0"], ["1"]]
    assert visible("vllm-pair") == visible("sglang-pair") == [["0,1"]]
    assert bundles["vllm-pair"]["releases"][0]["instances"][0]["options"]["tensor-parallel-size"] == 2
    assert bundles["sglang-pair"]["releases"][0]["instances"][0]["options"]["tp-size"] == 2


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_nodes_of_an_instance_agree(bundles: Bundles, engine: str) -> None:
    def agreement(host: str) -> str:
        (release,) = bundles[host]["releases"]
        (instance,) = release["instances"]
        own = {name: release[name] for name in ("engine", "model", "model_path", "draft_path", "revision", "unit")}
        return Release(version="1", runtime="any", **own, **instance).agreement

    assert agreement(f"{engine}-first") == agreement(f"{engine}-second")


def test_the_gate_asks_all_that_it_asks_of_an_instance(bundles: Bundles) -> None:
    defaults = yaml.safe_load(Path(ROOT / "roles/gate/defaults/main.yml").read_text())
    assert {tuple(bundle["checks"]) for bundle in bundles.values()} == {
        (*defaults["gate_checks"], *defaults["gate_capabilities"])
    }


def test_the_edge_has_a_port_and_a_name_for_each_engine(bundles: Bundles) -> None:
    edge = bundles["both"]["edge"]
    assert [(target["url"].rpartition(":")[2], target["model"]) for target in edge["targets"]] == [
        ("8000", "Qwen/Qwen3-VL-8B-Instruct"),
        ("8001", "sglang-8b"),
    ]
    assert [line.split()[1:3] for line in edge["config"].splitlines() if line.startswith("    server engine-")][
        ::2
    ] == [
        ["engine-0", "127.0.0.1:8100"],
        ["engine-1", "127.0.0.1:8101"],
    ]
    assert "@STAMP@" not in edge["config"]


def test_the_preflight_has_every_argument_that_the_role_gives(bundles: Bundles) -> None:
    tasks = yaml.safe_load((ROOT / "roles/preflight/tasks/host.yml").read_text())
    given = next(task["inference.fleet.host_preflight"] for task in tasks if "inference.fleet.host_preflight" in task)
    assert {frozenset(bundle["preflight"]) for bundle in bundles.values()} == {frozenset(given)}
