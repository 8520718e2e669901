"""The balancer's configuration, the EC2 tags and Ansible's variables."""

from __future__ import annotations

import json
import re

import pytest

from lab import balancer, ec2, hosts, settings, verbs
from lab.state import Lab


def test_the_balancer_keeps_inference_hosts_and_gateways_apart(lab: Lab) -> None:
    fleet, gateways = balancer.configuration(lab).split("frontend gateways")
    servers = re.findall(r"^  server (\S+) (\S+)", fleet, re.MULTILINE)
    assert servers == [("inference-1", "10.99.0.11:8000"), ("inference-2", "10.99.0.12:8000")]
    assert re.findall(r"^  server (\S+) (\S+)", gateways, re.MULTILINE) == [("gateway-1", "10.99.0.13:4000")]
    assert "bind 10.99.0.1:4000\n" in gateways


def test_without_gateways_nothing_listens_for_them(lab: Lab) -> None:
    del lab.hosts["gateway-1"]
    assert "gateways" not in balancer.configuration(lab)


def test_the_balancer_never_tries_twice(lab: Lab) -> None:
    text = balancer.configuration(lab)
    assert "  retries 0\n" in text
    assert "  no option redispatch\n" in text
    assert "retry-on" not in text


def test_the_balancer_checks_as_often_as_the_lab_says(lab: Lab) -> None:
    lab.health_interval = "250ms"
    assert "inter 250ms " in balancer.configuration(lab)


def test_a_balancer_that_follows_target_groups_has_no_servers_and_a_socket(lab: Lab) -> None:
    lab.balancer = "registration"
    text = balancer.configuration(lab)
    assert re.findall(r"^backend (\S+)", text, re.MULTILINE) == ["fleet", "fleet-gateways"]
    assert "  server " not in text
    assert "httpchk" not in text
    assert f"stats socket {lab.balancer_socket} " in text
    # A new host changes nothing: a reload would lose the servers.
    lab.new_host("inference-3", role="inference")
    del lab.hosts["gateway-1"]
    assert balancer.configuration(lab) == text


def test_tags_say_what_the_host_is(lab: Lab) -> None:
    assert ec2.tags(lab.host("inference-2")) == {
        "Name": "inference-2",
        "inference:role": "inference",
        "inference:ring": "stable",
        "inference:engine": "sglang",
    }
    assert ec2.tags(lab.host("gateway-1")) == {"Name": "gateway-1", "inference:role": "gateway"}


def test_scratch_hosts_have_an_inventory_of_their_own(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "engine_environment", lambda lab: {"UV_CACHE_DIR": "/cache"})
    lab.save()
    settings.write(lab)
    scratch = json.loads((lab.directory / "scratch.json").read_text())["scratch"]
    assert scratch["hosts"] == {"scratch-1": {"ansible_host": "10.99.0.14"}}
    assert str(lab.known_hosts) in scratch["vars"]["ansible_ssh_common_args"]
    assert "StrictHostKeyChecking=no" not in json.dumps(scratch)
    assert json.loads((lab.directory / "vars.json").read_text()) == {
        "engine_pip_environment": {"UV_CACHE_DIR": "/cache"},
        "fleet_url": f"{lab.balancer_url}/v1",
        "fleet_aws_endpoint": lab.ec2_endpoint,
        "fleet_target_groups": [],
        "edge_lame_duck": 8,
    }
    lab.balancer = "registration"
    settings.write(lab)
    written = json.loads((lab.directory / "vars.json").read_text())
    assert written["fleet_target_groups"] == [
        {"name": "fleet", "role": "inference"},
        {"name": "fleet-gateways", "role": "gateway"},
    ]
    checks = settings.HEALTH_CHECK
    assert written["edge_lame_duck"] > checks["HealthCheckIntervalSeconds"] * checks["UnhealthyThresholdCount"]


def test_env_prints_the_clients_key_when_the_store_has_one(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.save()
    verbs.env("trial", "demo")
    before = capsys.readouterr()
    assert "OPENAI_API_KEY" not in before.out
    assert "no client 'demo'" in before.err
    (lab.directory / "keys.json").write_text(
        json.dumps({"version": 1, "clients": {"demo": {"current": {"key": "sk-it's"}}}})
    )
    verbs.env("trial", "demo")
    exports = capsys.readouterr().out.splitlines()
    assert "export OPENAI_API_KEY='sk-it'\"'\"'s'" in exports
    assert "export OPENAI_BASE_URL=http://127.0.0.1:8080/v1" in exports
    assert not any("AWS_" in line for line in exports)
    lab.balancer = "registration"
    lab.save()
    verbs.env("trial", "demo")
    assert f"export AWS_ENDPOINT_URL={lab.ec2_endpoint}" in capsys.readouterr().out.splitlines()


def test_a_host_begins_with_a_copy_of_another_ones_disk(lab: Lab) -> None:
    source, host = lab.host("inference-1"), lab.new_host("inference-9")
    for name in ("upper", "instance-store"):
        place = hosts.directory(lab, source) / name / "opt"
        place.mkdir(parents=True)
        (place / "runtime").symlink_to("engine")
        (place / "file").write_text(name)
        (place / "file").chmod(0o640)
    hosts.copy_disk(lab, source, host)
    for name in ("upper", "instance-store"):
        copy = hosts.directory(lab, host) / name / "opt"
        assert (copy / "file").read_text() == name
        assert (copy / "file").stat().st_mode & 0o777 == 0o640
        assert (copy / "runtime").is_symlink()
