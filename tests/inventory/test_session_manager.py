"""SSH through Session Manager, as inventories/aws offers it: which command ssh runs, for which host."""

from __future__ import annotations

import re
import shutil
import stat
import typing as t
from pathlib import Path

import pytest
import yaml

from tests.inventory.conftest import REGION, ROOT, Api, ask, environment, run

INVENTORY = ROOT / "inventories" / "aws"
CONNECTION = Path("group_vars") / "all" / "connection.yml"
OPTION = re.compile(r"^# (ansible_ssh_host: .*\n)# (ansible_ssh_common_args: .*\n)((?:#   .*\n)+)", re.MULTILINE)

#: Stands in for the AWS CLI: it notes its arguments and opens no session.
AWS = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done > "$SEEN/$4"
exit 1
"""


def switched_on(text: str) -> str:
    """The file with the lines of the option uncommented."""
    changed, count = OPTION.subn(lambda found: found[0].replace("# ", "", 1).replace("\n# ", "\n"), text)
    assert count == 1, "the lines of the option are not where the documentation says"
    return changed.replace("\n#   ", "\n  ")


class Session:
    """A copy of the inventory with the option on, and what the AWS CLI was called with."""

    def __init__(self, directory: Path, api: Api) -> None:
        self.inventory = directory / "aws"
        shutil.copytree(INVENTORY, self.inventory)
        connection = self.inventory / CONNECTION
        connection.write_text(switched_on(connection.read_text()))
        source = self.inventory / "aws_ec2.yml"
        source.write_text(source.read_text().replace("regions: []", f"regions: [{REGION}]"))
        self.api = api
        self.seen = directory / "seen"
        self.seen.mkdir()
        programs = directory / "bin"
        programs.mkdir()
        (programs / "aws").write_text(AWS)
        (programs / "aws").chmod(stat.S_IRWXU)
        self.variables = {
            "SEEN": str(self.seen),
            "PATH": f"{programs}:{environment(api.url)['PATH']}",
            "HOME": str(directory),
            "ANSIBLE_SSH_RETRIES": "0",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(directory / "cp"),
        }

    def calls(self, *words: str, program: str = "ansible") -> dict[str, list[str]]:
        """Run one of Ansible's programs; return the arguments of the AWS CLI by instance."""
        answer = run(program, "-i", str(self.inventory), *words, url=self.api.url, **self.variables)
        assert "UNREACHABLE" in answer.output or "unreachable=1" in answer.output, answer.output + answer.said
        return {path.name: path.read_text().splitlines() for path in self.seen.iterdir()}


@pytest.fixture
def session(tmp_path: Path, api: Api) -> Session:
    return Session(tmp_path, api)


def command(instance: str) -> list[str]:
    """As AWS documents it for ~/.ssh/config, with the region."""
    document = ["--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=22"]
    return ["ssm", "start-session", "--target", instance, *document, "--region", REGION]


def fleet(api: Api) -> dict[str, str]:
    return {
        "gpu-1": api.launch("g6e.xlarge", {"Name": "gpu-1", "inference:role": "inference"}),
        "gateway-1": api.launch("m7i.large", {"Name": "gateway-1", "inference:role": "gateway"}),
    }


def test_each_host_is_reached_by_its_instance_id_in_its_region(session: Session) -> None:
    ids = fleet(session.api)
    called = session.calls("all", "-m", "ansible.builtin.ping")
    assert called == {instance: command(instance) for instance in ids.values()}


def test_a_delegated_task_goes_to_the_other_host(session: Session, tmp_path: Path) -> None:
    ids = fleet(session.api)
    task = {"name": "Look", "ansible.builtin.ping": {}, "delegate_to": "gpu-1"}
    play = [{"name": "Play", "hosts": "gateway", "gather_facts": False, "tasks": [task]}]
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump(play))
    assert session.calls(str(playbook), program="ansible-playbook") == {ids["gpu-1"]: command(ids["gpu-1"])}


def test_hosts_still_reach_each_other_by_their_private_addresses(session: Session) -> None:
    ids = fleet(session.api)
    described: t.Any = session.api.client().describe_instances(InstanceIds=[ids["gpu-1"]])
    address = described["Reservations"][0]["Instances"][0]["PrivateIpAddress"]
    answer = ask(session.inventory, session.api.url)
    assert answer.status == 0, answer.said
    assert answer.hosts["gpu-1"]["ansible_host"] == {"__ansible_unsafe": address}


def test_the_option_is_off_unless_it_is_switched_on(api: Api) -> None:
    settings = yaml.safe_load((INVENTORY / CONNECTION).read_text())
    assert not {"ansible_ssh_host", "ansible_ssh_common_args"} & set(settings)


@pytest.mark.parametrize("page", ["docs/aws.md", "docs/aws.zh-CN.md"])
def test_the_page_shows_the_lines_of_the_inventory(page: str) -> None:
    on = switched_on((INVENTORY / CONNECTION).read_text())
    lines = on[on.index("ansible_ssh_host") :]
    assert f"{CONNECTION}\n{lines}```" in (ROOT / page).read_text()
