"""A host of the lab: a bare cloud machine with outgoing access."""

from __future__ import annotations

import time
import urllib.error

from tests.integration.lab.conftest import Machine
from tests.project import open_directly

MEGABYTE = 1_000_000


def fleet(running: Machine) -> set[str]:
    """The hosts that Ansible finds through the EC2 API."""
    said = running.ansible("inference", "--list-hosts")
    return {word for word in said.split() if word.startswith("inference-")}


def test_systemd_runs_it_and_nothing_failed(running: Machine) -> None:
    assert running.ssh("inference-1", "systemctl is-system-running") == "running"
    assert running.ssh("inference-1", "cat /proc/1/comm") == "systemd"


def test_it_is_bare(running: Machine) -> None:
    assert running.ssh("inference-1", "command -v haproxy uv pip3 gcc || echo none") == "none"


def test_packages_install_without_an_update(running: Machine) -> None:
    running.ssh("inference-1", "apt-get install --quiet=2 --yes --download-only libnuma1")


def test_its_disks_are_mounts_of_their_own(running: Machine) -> None:
    running.ssh("inference-1", "mountpoint --quiet /opt/dlami/nvme")
    running.ssh("inference-1", "touch /opt/dlami/nvme/x /var/cache/uv-shared/.lab-test")
    assert running.ssh("inference-2", "ls /opt/dlami/nvme") == ""
    # The cache is one for all hosts.
    running.ssh("inference-2", "rm /var/cache/uv-shared/.lab-test")


def test_shared_things_are_read_only(running: Machine) -> None:
    assert "Read-only" in running.ssh("inference-1", "touch /srv/wheelhouse/x 2>&1", fails=True)
    assert "Read-only" in running.ssh("inference-1", "touch /srv/lab-model/x 2>&1", fails=True)


def test_hosts_see_only_their_own_services(running: Machine) -> None:
    running.ssh("inference-1", "systemd-run --quiet --unit=marker sleep 600")
    assert running.ssh("inference-1", "systemctl is-active marker") == "active"
    assert running.ssh("inference-2", "systemctl is-active marker", fails=True) == "inactive"
    running.ssh("inference-1", "systemctl stop marker")


def test_hosts_see_only_their_own_network(running: Machine) -> None:
    assert running.ssh("inference-1", "ls /sys/class/net") == "host0\nlo"


def test_hosts_reach_each_other(running: Machine) -> None:
    running.ssh("inference-1", "ping -c 1 -W 2 10.216.1.12")


def test_reset_forgets_all_and_is_still_known(running: Machine) -> None:
    running.ssh("inference-2", "touch /etc/forgotten /opt/dlami/nvme/forgotten")
    running("reset", "inference-2")
    assert running.ssh("inference-2", "ls /etc/forgotten /opt/dlami/nvme/forgotten 2>/dev/null || echo gone") == "gone"
    assert running.ansible("inference-2", "-m", "ping").count("pong") == 1


def test_stop_and_start_empty_the_instance_store_and_keep_the_disk(running: Machine) -> None:
    running.ssh("inference-2", "sync; touch /etc/kept /opt/dlami/nvme/weights")
    running("stop", "inference-2", "--wipe-instance-store")
    assert fleet(running) == {"inference-1"}
    running("start", "inference-2")
    assert fleet(running) == {"inference-1", "inference-2"}
    assert running.ssh("inference-2", "ls /etc/kept /opt/dlami/nvme") == "/etc/kept\n\n/opt/dlami/nvme:"


def test_a_crashed_host_stays_in_the_fleet_and_up_brings_it_back(running: Machine) -> None:
    running("stop", "inference-2", "--crash")
    assert fleet(running) == {"inference-1", "inference-2"}
    assert "UNREACHABLE" in running.ansible("inference-2", "-m", "ping")
    running("up")
    assert running.ansible("inference-2", "-m", "ping").count("pong") == 1


def test_a_reboot_from_inside_comes_back(running: Machine) -> None:
    booted = "cat /proc/sys/kernel/random/boot_id"
    before = running.ssh("inference-2", booted)
    running.ssh("inference-2", "touch /etc/kept; systemd-run --quiet --on-active=1 systemctl reboot")
    deadline = time.monotonic() + 60
    said = before
    while said == before or not said:
        time.sleep(0.5)
        process = running.start("ssh", "inference-2", "--", booted, "2>/dev/null")
        said = process.communicate(timeout=60)[0].strip() if process.wait(timeout=60) == 0 else ""
        assert time.monotonic() < deadline
    running("up")
    assert running.ssh("inference-2", "ls /etc/kept") == "/etc/kept"


def test_scratch_hosts_are_not_the_fleets(running: Machine) -> None:
    running("add", "scratch-1")
    assert fleet(running) == {"inference-1", "inference-2"}
    said = running.ansible("-i", str(running.state / running.name / "scratch.json"), "scratch-1", "-m", "ping")
    assert "pong" in said
    running("remove", "scratch-1")


def test_a_host_costs_little_memory(running: Machine) -> None:
    for line in running("status").splitlines():
        if line.startswith("inference-"):
            assert int(line.split()[-2]) <= 60, line


def get(url: str) -> int:
    try:
        with open_directly(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


def answers(url: str, expected: int) -> None:
    deadline = time.monotonic() + 30
    while get(url) != expected:
        assert time.monotonic() < deadline, f"{url} does not answer {expected}"
        time.sleep(0.2)


def test_the_balancer_follows_health_and_membership(running: Machine) -> None:
    url = next(line for line in running("status").splitlines() if line.startswith("balancer")).split()[1]
    answers(f"{url}/x", 503)
    running.ssh("inference-1", f"systemd-run --quiet --unit=server python3 -c '{SERVER}'")
    answers(f"{url}/x", 200)
    running.ssh("inference-1", "systemctl stop server")
    answers(f"{url}/x", 503)
    running("add", "extra", "--role", "inference")
    running.ssh("extra", f"systemd-run --quiet --unit=server python3 -c '{SERVER}'")
    answers(f"{url}/x", 200)
    running("remove", "extra")
    answers(f"{url}/x", 503)
