"""The program of the service that lets hosts of Auto Scaling groups join and leave, as tests start it."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from tests.project import ROOT

PROGRAM = ROOT / "collections/ansible_collections/inference/fleet/roles/fleet_events/files/fleet_events.py"
_SETTINGS = {"hooks": ["join", "leave"], "parallel": 4, "give_up": 3600, "spot_seconds": 90}


def write_settings(place: Path, own: t.Mapping[str, t.Any]) -> Path:
    """Write the settings file into a directory: a test's own settings, and what is the same for all."""
    path = place / "settings.json"
    path.write_text(json.dumps({**_SETTINGS, **own}))
    return path
