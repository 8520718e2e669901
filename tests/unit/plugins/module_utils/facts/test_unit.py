from __future__ import annotations

import shlex

from ansible_collections.inference.fleet.plugins.module_utils.facts import look, unit


def command(**changes: object) -> unit.LookCommand:
    values = {
        "program": "/etc/haproxy/facts.pyz",
        "labels": {"host": "gpu-1", "tier": "inference", "engine": "", "ring": "", "model": "100% $HOME's"},
        "certificates": ["/etc/ssl/edge.pem"],
        "gpus": 4,
        "nvidia_smi": "/usr/bin/nvidia-smi",
        "ignored_xids": [31],
        "state": "/var/lib/inference",
        "root": "/opt/inference",
    }
    return unit.LookCommand(**{**values, **changes})  # type: ignore[arg-type]


def started(text: str) -> list[str]:
    """The words that systemd gives the program."""
    [line] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart=").replace("%%", "%").replace("$$", "$"))


def test_the_program_takes_what_the_unit_says() -> None:
    words = started(unit.render_service(command()))
    assert words[:3] == ["/usr/bin/python3", "-I", "/etc/haproxy/facts.pyz"]
    options = look.parse_arguments(words[3:])
    assert (options.host, options.tier, options.engine, options.model) == ("gpu-1", "inference", "", "100% $HOME's")
    assert (options.certificate, options.gpus, options.ignore_xid) == (["/etc/ssl/edge.pem"], 4, [31])
    assert (options.memory, options.output) == ("/var/lib/inference/facts.json", "/var/lib/inference/metrics")


def test_a_value_that_looks_like_an_option_is_none() -> None:
    words = started(unit.render_service(command(labels={"host": "--gpus=9", "tier": "x"}, gpus=0)))
    options = look.parse_arguments(words[3:])
    assert (options.host, options.gpus, options.nvidia_smi) == ("--gpus=9", 0, "")


def test_only_a_host_with_gpus_sees_devices() -> None:
    without, with_gpus = (unit.render_service(command(gpus=count)) for count in (0, 1))
    assert "PrivateDevices=true" in without
    assert "PrivateDevices" not in with_gpus
    assert "DevicePolicy=closed\nDeviceAllow=char-nvidia* rw\n" in with_gpus
