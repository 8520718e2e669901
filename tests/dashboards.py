"""Writes dashboards/*.json from plugins/plugin_utils/monitoring/dashboards.py: ``python -m tests.dashboards``."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.dashboards import DASHBOARDS  # noqa: E402
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.panel import grafana  # noqa: E402

FOLDER = ROOT / "dashboards"


def written() -> dict[str, str]:
    """The content of each file by its name."""
    return {
        f"{dashboard.name}.json": json.dumps(grafana(dashboard), indent=1, ensure_ascii=False) + "\n"
        for dashboard in DASHBOARDS
    }


def main() -> t.NoReturn:
    FOLDER.mkdir(exist_ok=True)
    for name, text in written().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    sys.exit()


if __name__ == "__main__":
    main()
