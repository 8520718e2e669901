from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory import host_keys

ED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGKFA5EiJIwhFwAr1USPL2kO5Nahz1VHGqHTiG1qjAji"
EC = (
    "ecdsa-sha2-nistp256 "
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFHNCmYYvRqC2szrEGrCC54aiWN3ewTr4ND+K+ppYhAGZbYEGfh+gpFcdItr2gjs"
    "tuKLWdIG0XxfQZUjJSSk/ow="
)

#: As the console of an instance with Ubuntu 24.04 shows it.
CONSOLE = f"""\
[   12.345678] cloud-init[812]: Cloud-init v. 24.4 running 'modules:final'
<14>Nov 29 15:00:00 cloud-init: #############################################################
<14>Nov 29 15:00:00 cloud-init: -----BEGIN SSH HOST KEY FINGERPRINTS-----
<14>Nov 29 15:00:00 cloud-init: 256 SHA256:nothing root@ip-10-0-0-7 (ED25519)
<14>Nov 29 15:00:00 cloud-init: -----END SSH HOST KEY FINGERPRINTS-----
-----BEGIN SSH HOST KEY KEYS-----
{EC} root@ip-10-0-0-7
{ED} root@ip-10-0-0-7\r
-----END SSH HOST KEY KEYS-----
[   13.000000] cloud-init[812]: Cloud-init finished
"""


def test_the_keys_are_those_that_cloud_init_prints() -> None:
    assert host_keys.printed_keys(CONSOLE) == [EC, ED]


def test_the_newest_block_counts() -> None:
    older = CONSOLE.replace(ED, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIold").replace(EC, "")
    assert host_keys.printed_keys(older + CONSOLE) == [EC, ED]


@pytest.mark.parametrize(
    "console",
    [
        "",
        "Linux version 6.8",
        CONSOLE.partition("-----END SSH HOST KEY KEYS-----")[0],
        CONSOLE.partition("-----BEGIN SSH HOST KEY KEYS-----")[2],
        # Outside of the block anything may be printed.
        f"{ED} root@elsewhere\n-----BEGIN SSH HOST KEY KEYS-----\n-----END SSH HOST KEY KEYS-----\n{ED}\n",
    ],
)
def test_without_a_whole_block_there_are_no_keys(console: str) -> None:
    assert host_keys.printed_keys(console) == []


def test_a_new_instance_takes_the_place_of_an_old_one_with_its_address() -> None:
    other = "10.0.0.70 ssh-ed25519 AAAAother"
    text = f"# mine\n{other}\n10.0.0.7 ssh-ed25519 AAAAold\n10.0.0.7,10.0.0.8 ssh-rsa AAAAtwo\n@revoked 10.0.0.7 {ED}\n"
    new = host_keys.replaced(text, "10.0.0.7", [EC, ED])
    assert host_keys.keys_of(new, "10.0.0.7") == [EC, ED]
    kept = f"# mine\n{other}\n10.0.0.7,10.0.0.8 ssh-rsa AAAAtwo\n@revoked 10.0.0.7 {ED}\n"
    assert new == f"{kept}10.0.0.7 {EC}\n10.0.0.7 {ED}\n"
    assert host_keys.replaced(new, "10.0.0.7", [EC, ED]) == new


def test_hashed_lines_and_fingerprints_are_those_of_openssh(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"10.0.0.7 {ED}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert "10.0.0.7" not in known.read_text()
    assert host_keys.keys_of(known.read_text(), "10.0.0.7") == [ED]
    assert host_keys.keys_of(known.read_text(), "10.0.0.8") == []
    assert host_keys.replaced(known.read_text(), "10.0.0.7", [EC]) == f"10.0.0.7 {EC}\n"
    (tmp_path / "key.pub").write_text(f"{ED}\n")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True, text=True
    ).stdout
    assert host_keys.fingerprint(ED) == shown.split()[1]


def test_another_port_is_a_name_of_its_own() -> None:
    assert host_keys.known_name("10.0.0.7", 22) == "10.0.0.7"
    assert host_keys.known_name("10.0.0.7", 2222) == "[10.0.0.7]:2222"
