"""The units of a monitoring host's status page."""

from __future__ import annotations

import shlex

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.services.hardening import HARDENING
from ansible_collections.inference.fleet.plugins.plugin_utils.status import service, units

WANTED = units.StatusUnits(
    "/etc/inference/monitoring/status.pyz", "http://127.0.0.1:9090", "/etc/x/targets", "100% $WATCH's", 9095
)


def started(text: str) -> list[str]:
    """The words that systemd gives the program."""
    [line] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart=").replace("%%", "%").replace("$$", "$"))


def test_the_program_takes_what_the_units_say() -> None:
    made = units.render_units(WANTED)
    assert set(made) == {units.TIMER, units.SERVICE, units.SERVER}
    write, serve = (started(made[name]) for name in (units.SERVICE, units.SERVER))
    assert write[:3] == serve[:3] == ["/usr/bin/python3", "-I", WANTED.program]
    options = service.parse_arguments(write[3:])
    assert (options.verb, options.prometheus, options.targets) == ("write", WANTED.prometheus, WANTED.targets)
    assert (options.host, options.page) == (WANTED.host, units.PAGE)
    options = service.parse_arguments(serve[3:])
    assert (options.verb, options.port, options.page) == ("serve", 9095, units.PAGE)


@pytest.mark.parametrize("name", [units.SERVICE, units.SERVER])
def test_both_give_up_what_every_service_of_ours_does(name: str) -> None:
    lines = units.render_units(WANTED)[name].splitlines()
    assert set(HARDENING.splitlines()) <= set(lines)
    assert {"DynamicUser=true", "IPAddressDeny=any", "IPAddressAllow=localhost", "CapabilityBoundingSet="} <= set(lines)


def test_the_timer_renews_the_page_every_30_seconds() -> None:
    assert "OnUnitActiveSec=30\n" in units.render_units(WANTED)[units.TIMER]
