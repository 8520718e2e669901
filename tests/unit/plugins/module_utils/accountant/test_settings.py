"""The settings' file, the unit and the figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.accountant import exposition, unit
from ansible_collections.inference.fleet.plugins.module_utils.accountant.settings import (
    AccountantSettings,
    read_settings,
)
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "accountant.json"
    wanted = AccountantSettings(gateways=2, prices={"a": (0.5, 1.0)}, redis_url="redis://:secret@store:6379/0")
    path.write_text(wanted.render())
    assert read_settings(str(path)) == wanted
    assert "secret" not in repr(wanted)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"prices": {"a": 1}}), json.dumps({"prices": {}, "x": 1})])
def test_another_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "accountant.json"
    if text:
        path.write_text(text)
    with pytest.raises(FleetError, match=str(path)):
        read_settings(str(path))


def test_the_unit_may_write_its_state_and_its_sockets_and_nothing_else() -> None:
    text = unit.render_unit("/etc/inference/a%.pyz", "/etc/inference/accountant.json", AccountantSettings())
    assert "ExecStart=/usr/bin/python3 -I /etc/inference/a%%.pyz --config /etc/inference/accountant.json\n" in text
    assert "ReadWritePaths=/var/lib/haproxy /var/lib/inference /var/lib/inference/metrics\n" in text
    assert "redis" not in text


def test_the_figures_have_a_text_and_a_type_each() -> None:
    text = exposition.render(exposition.AccountFigures({"a": 0.5}, {"a": 50.0}, {}, 3, True, 0, 1, 1796000000.7))
    assert 'fleet_budget_spent_ratio{client="a"} 0.5\n' in text
    assert "fleet_accountant_bookings 3\n" in text
    assert "fleet_accountant_store_up 1\n" in text
    assert "fleet_accountant_last_look_timestamp_seconds 1796000000\n" in text
    assert "fleet_tokens_last_minute" not in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert names == [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
