"""site.yml for a monitoring host of its own: the files for a Prometheus that exists, on this machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.table import ALERTS

from tests.debian import program
from tests.project import ROOT, Run, run

CLIENTS = [{"name": "gate"}, {"name": "gateway"}, {"name": "monitoring"}]


class Controller:
    """Runs playbooks for the sample inventory with a monitoring host, which is this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = directory / "files"
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "/usr/bin/python3",
            "monitoring_prometheus": "external",
            "monitoring_directory": str(self.files),
            "monitoring_group": "root",
        }
        (directory / "inventory.yml").write_text(
            json.dumps({"all": {"children": {"monitoring": {"hosts": {"watch-1": host}}}}})
        )
        (directory / "variables.yml").write_text(
            json.dumps(
                {
                    "fleet_key_store": str(directory / "keys.json"),
                    "fleet_rollout_records": str(directory / "records"),
                    "fleet_clients": CLIENTS,
                }
            )
        )
        (directory / "keys.yml").write_text(
            json.dumps(
                [
                    {
                        "hosts": "localhost",
                        "connection": "local",
                        "gather_facts": False,
                        "tasks": [
                            {
                                "inference.fleet.api_key": {
                                    "path": str(directory / "keys.json"),
                                    "state": "present",
                                    "clients": CLIENTS,
                                }
                            }
                        ],
                    }
                ]
            )
        )

    def play(self, playbook: str | Path, *words: str) -> Run:
        inventories = ("-i", "inventories/sample", "-i", str(self.directory / "inventory.yml"))
        own = ("-e", f"@{self.directory}/variables.yml")
        environment = {**os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}
        return run("ansible-playbook", *inventories, str(playbook), *own, *words, environment=environment)


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Controller:
    if os.geteuid() != 0:
        pytest.skip("needs root, whose file the key is")
    made = Controller(tmp_path_factory.mktemp("controller"))
    assert made.play(made.directory / "keys.yml").code == 0
    return made


@pytest.fixture(scope="module")
def first(controller: Controller) -> Run:
    """The run that writes the files."""
    return controller.play("site.yml", "-l", "monitoring", "--diff")


def test_the_files_are_written_and_a_second_run_changes_nothing(controller: Controller, first: Run) -> None:
    assert first.code == 0
    assert first.recap["watch-1"]["changed"] > 0
    second = controller.play("site.yml", "-l", "monitoring")
    assert (second.code, second.recap["watch-1"]["changed"]) == (0, 0)

    key = controller.files / "monitoring.key"
    assert key.stat().st_mode & 0o777 == 0o640
    assert key.read_text().startswith("sk-")
    assert key.read_text() not in first.output + second.output

    # All hosts of the inventory, whatever the limit.
    engines = json.loads((controller.files / "targets" / "engine.json").read_text())
    assert {(one["labels"]["host"], one["labels"]["ring"], one["labels"]["engine"]) for one in engines} >= {
        ("gpu-1", "canary", "vllm"),
        ("gpu-2", "stable", "sglang"),
    }
    assert {path.stem for path in (controller.files / "dashboards").glob("*.json")} == {
        "fleet",
        "host",
        "engine",
        "gateway",
        "gpu",
    }


def test_promtool_takes_jobs_targets_and_rules_together(controller: Controller, first: Run) -> None:
    assert first.code == 0
    jobs = yaml.safe_load((controller.files / "scrape_configs.yml").read_text())
    config = controller.files / "prometheus.yml"
    config.write_text(yaml.safe_dump({**jobs, "rule_files": [str(controller.files / "rules.yml")]}))
    done = subprocess.run(
        [program("promtool"), "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"monitoring_prometheus": "remote"}, "monitoring_prometheus"),
        ({"monitoring_receivers": [{"name": "x", "severities": ["critical"]}]}, "valid are page, ticket, none"),
        ({"monitoring_retention": "long"}, 'monitoring_retention is "long", valid is a time such as 12h'),
    ],
)
def test_a_wrong_value_is_refused_by_name(controller: Controller, variables: dict[str, object], message: str) -> None:
    done = controller.play("site.yml", "-l", "monitoring", "-e", json.dumps(variables))
    assert done.code != 0
    assert message in done.text
