"""The program before each start that runs as the engines' user: the config with the keys, for that user alone."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

PROGRAM = Path(__file__).parents[3] / "roles/engine/files/instance_prepare.py"
KEYS = "ENGINE_API_KEY=sk-now\nENGINE_API_KEY_NEXT=sk-next\nENGINE_API_KEY_NEXT_KNOWN_BY=1\n"


def prepare(place: Path, engine: str, keys: str = KEYS) -> subprocess.CompletedProcess[str]:
    release = place / "instances" / "0" / "current"
    release.mkdir(parents=True, exist_ok=True)
    manifest = {
        "release": f"{engine}-1",
        "key_options": dict(ENGINES[engine].launch.key_options),
    }
    (release / "manifest.json").write_text(json.dumps(manifest))
    (release / "config.yaml").write_text("port: 8100\n")
    (place / "engine_key").write_text(keys)
    (place / "run").mkdir(exist_ok=True)
    environment = {"RUNTIME_DIRECTORY": str(place / "run"), "CREDENTIALS_DIRECTORY": str(place)}
    return subprocess.run(
        [sys.executable, PROGRAM, str(place), "0"], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("engine", "keys", "expected"),
    [
        ("vllm", KEYS, ["sk-now", "sk-next"]),
        ("vllm", "ENGINE_API_KEY=sk-now\n", ["sk-now"]),
        ("sglang", KEYS, "sk-now"),
    ],
)
def test_an_engine_gets_the_keys_that_it_takes(
    tmp_path: Path, engine: str, keys: str, expected: list[str] | str
) -> None:
    done = prepare(tmp_path, engine, keys)
    assert done.returncode == 0, done.stderr
    config = tmp_path / "run" / "config.yaml"
    read = yaml.safe_load(config.read_text())
    assert (read["port"], read["api-key"]) == (8100, expected)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert (tmp_path / "run" / "release").read_text() == f"{engine}-1\n"
    assert "sk-" not in done.stdout + done.stderr


def test_sglangs_admin_key_is_new_at_each_start(tmp_path: Path) -> None:
    made = set()
    for _start in range(2):
        prepare(tmp_path, "sglang")
        made.add(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["admin-api-key"])
    assert len(made) == 2
    assert not made & {"sk-now", "sk-next"}
    assert all(len(key) > 40 for key in made)
