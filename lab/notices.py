"""The hosts' metadata service at EC2's address, and what is announced there."""

from __future__ import annotations

import datetime
import json
import sys

from lab import ec2, files, network, processes, shell
from lab.aws import metadata
from lab.state import Host, Lab

ADDRESS = "169.254.169.254"
PORT = 80
NOTHING = "nothing"
#: As far ahead as AWS announces it, in seconds.
AHEAD = {"spot": 120.0, "rebalance": 0.0, "maintenance": 3600.0, "asg": 0.0, NOTHING: 0.0}

#: EventBridge hears of these from EC2 itself.
EVENTS = {"spot": "EC2 Spot Instance Interruption Warning", "rebalance": "EC2 Instance Rebalance Recommendation"}
DETAILS = {"spot": {"instance-action": "terminate"}}


def group(lab: Lab, host: Host) -> str:
    return f"{lab.name}/metadata-{host.name}"


def ensure(lab: Lab, host: Host, lock: int) -> None:
    """Run the service of the host, in its network name space; it needs no program on the host."""
    place = lab.host_directory(host) / "metadata"
    said = place / "said.json"
    if not said.exists():
        _say(lab, host, {})
    space = lab.port_of(host)
    shell.run(["ip", "-n", space, "address", "replace", f"{ADDRESS}/32", "dev", "lo"])
    if processes.read(place / "process.json") is None:
        processes.stop(place, group(lab, host))
        argv = [sys.executable, "-m", "lab.aws.metadata", ADDRESS, str(PORT), str(said)]
        processes.start(place, argv, lock=lock, group=group(lab, host), network=str(network.NAMESPACES / space))


def stop(lab: Lab, host: Host) -> None:
    processes.stop(lab.host_directory(host) / "metadata", group(lab, host))


def announce(lab: Lab, host: Host, notice: str, seconds: float | None) -> str:
    """Announce a notice, or nothing any more; return the words for it."""
    ahead = AHEAD[notice] if seconds is None else seconds
    when = datetime.datetime.now(tz=datetime.UTC) + datetime.timedelta(seconds=ahead)
    _say(lab, host, {} if notice == NOTHING else metadata.announcement(notice, when))
    instance = _instance_id(lab, host)
    if host.role:
        ec2.schedule(lab, instance, [_event(when)] if notice == "maintenance" else [])
        if notice in EVENTS:
            ec2.put_event(lab, EVENTS[notice], {"instance-id": instance, **DETAILS.get(notice, {})})
    return f"{host.name} ({instance}): {notice}" + ("" if notice == NOTHING else f", {when:%Y-%m-%dT%H:%M:%SZ}")


def mark_leaving(lab: Lab, host: Host) -> None:
    """Have the service say that the host's group ends it, beside what it says already."""
    path = lab.host_directory(host) / "metadata" / "said.json"
    if path.exists():
        said = json.loads(path.read_text(encoding="utf-8"))
        files.write_changed(path, json.dumps({**said, metadata.TARGET_STATE: "Terminated"}, indent=2) + "\n")


def _instance_id(lab: Lab, host: Host) -> str:
    """The id of the host's instance; a made up one for a scratch host, which the EC2 API does not know."""
    return ec2.find_instance(lab, host) if host.role else f"i-{host.number:017x}"


def _say(lab: Lab, host: Host, announced: dict[str, str]) -> None:
    """Write what the service says: what it always knows, and what is announced."""
    place = lab.host_directory(host) / "metadata"
    place.mkdir(parents=True, exist_ok=True)
    always = {
        "instance-id": _instance_id(lab, host),
        "instance-type": host.instance_type,
        "instance-life-cycle": "on-demand",
        "local-ipv4": lab.address(host),
        "placement/region": ec2.REGION,
        metadata.MAINTENANCE: "[]",
    }
    if host.group:
        always[metadata.TARGET_STATE] = "InService"
    files.write(place / "said.json", json.dumps({**always, **announced}, indent=2) + "\n")


def _event(when: datetime.datetime) -> dict[str, str]:
    """The same maintenance, as the API says it: with another form of dates."""
    return {
        "InstanceEventId": "instance-event-0d59937288b749b32",
        "Code": "system-reboot",
        "Description": "scheduled reboot",
        "NotBefore": f"{when:%Y-%m-%dT%H:%M:%SZ}",
        "NotAfter": f"{when + datetime.timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}",
    }
