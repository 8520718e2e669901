"""Outgoing access, on machines with other firewalls: in the test's own network, with an outside to reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.lab.conftest import ROOT

STEPS = """
set -eu
mount -t tmpfs tmpfs /run
export INFERENCE_FLEET_STATE=$1 INFERENCE_FLEET_LAB=way
lab="$2 -m lab"
ip link set lo up
ip netns add outside
ip link add uplink type veth peer name eth0 netns outside
ip address add 198.51.100.2/24 dev uplink
ip link set uplink mtu 1400 up
ip -n outside address add 198.51.100.1/24 dev eth0
ip -n outside link set eth0 up
ip -n outside route add 10.216.0.0/24 via 198.51.100.2
ip route add default via 198.51.100.1
eval "$3"
iptables-save > "$1.before"
$lab add --subnet 10.216.0.0/24 one
$lab add two
reach() { $lab ssh one -- ping -q -c 1 -W 3 "$1" > /dev/null; }
reach 198.51.100.1 || { echo "no way out"; exit 1; }
reach 10.216.0.12 || { echo "no way to a neighbour"; exit 1; }
knock='import socket; socket.create_connection(("10.216.0.11", 22), timeout=2)'
if ip netns exec outside "$2" -c "$knock" 2> /dev/null; then echo "a way in"; exit 1; fi
test "$($lab ssh one -- cat /sys/class/net/host0/mtu)" = 1400
# A second run adds no rule twice.
iptables-save > "$1.once"
$lab up > /dev/null
iptables-save > "$1.twice"
$lab down
iptables-save > "$1.after"
strip() { grep -v '^#' "$1" | sed 's/\\[.*//' || true; }
test "$(strip "$1.once")" = "$(strip "$1.twice")"
test "$(strip "$1.before" | grep fl- || true)" = "$(strip "$1.after" | grep fl- || true)"
"""


@pytest.mark.parametrize(
    ("firewall", "without"),
    [(":", ""), ("iptables -P FORWARD DROP", ""), (":", "nft")],
    ids=["none", "iptables drops by default", "no nft"],
)
def test_hosts_reach_out_and_nothing_reaches_in(tmp_path: Path, firewall: str, without: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    # A PATH like this machine's, without one program.
    for directory in reversed(os.environ["PATH"].split(":")):
        for program in Path(directory).glob("*") if Path(directory).is_dir() else ():
            link = programs / program.name
            if program.name != without:
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    if not shutil.which("iptables", path=str(programs)):
        pytest.skip("there is no iptables on this machine")
    result = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", STEPS, "sh", str(tmp_path / "state"), sys.executable, firewall],
        cwd=ROOT,
        env={**os.environ, "PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
