"""The verbs of the command line, each convergent: run it again after it was killed at any point."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import typing as t
from pathlib import Path

from lab import (
    balancer,
    cgroups,
    controller,
    ec2,
    files,
    hosts,
    machine,
    network,
    notices,
    processes,
    rootfs,
    scaling,
    settings,
    shell,
    state,
    target_groups,
)
from lab.errors import LabError
from lab.state import Host, Lab
from lab.steps import step

ROLES = ("inference", "gateway", "gateway_store", "monitoring")
RINGS = ("canary", "stable")
DEFAULT_HOSTS = 2
STOP_SECONDS = 60.0
PROGRAMS = ("ip", "ssh", "ssh-keygen", "systemd-nspawn", "mmdebstrap")


@contextlib.contextmanager
def _held(name: str) -> t.Iterator[int]:
    """The lab's lock, for a verb that changes the lab."""
    root = state.state_root()
    path = root / f".{state.check_name(name, 'lab')}.lock"
    with files.locked(path) as lock:
        yield lock
        if not (root / name / "lab.json").exists():
            path.unlink(missing_ok=True)
    if not state.every_lab():
        with contextlib.suppress(OSError):
            root.rmdir()


def up(
    name: str,
    count: int | None,
    subnet: str | None,
    *,
    bare: bool,
    health_interval: str | None,
    balanced_by: str | None,
    metadata: bool,
    host_type: str,
) -> None:
    """Create or repair the lab: network, hosts, EC2 API, balancer."""
    shell.require([*PROGRAMS, *(() if bare else ("haproxy",))])
    with _held(name) as lock:
        lab = _open(name, subnet, bare=bare)
        lab.health_interval = health_interval or lab.health_interval
        lab.balancer = balanced_by or lab.balancer
        lab.metadata = metadata or lab.metadata
        print(f"Lab {lab.name} in {lab.directory}", flush=True)
        _resize(lab, count, host_type, lock)
        _converge(lab, list(lab.hosts.values()), lock)
    rootfs.prune(
        [base for lab in state.every_lab() for host in lab.hosts.values() if (base := hosts.base_of(lab, host))]
    )


def _open(name: str, subnet: str | None, *, bare: bool) -> Lab:
    lab = state.load(name)
    if lab is None:
        subnet = state.check_subnet(subnet or state.DEFAULT_SUBNET)
        # Before anything is recorded: the next try may name another subnet.
        network.refuse_overlap(subnet)
        with machine.held():
            made = state.create(name, subnet, bare=bare)
            # Now, because its ports stay free until its programs start.
            machine.note(made.bridge, made.ec2_port)
        return made
    if subnet not in (None, lab.subnet):
        raise LabError(
            f"Lab {name} has the subnet {lab.subnet}, not {subnet}: take it down before it can have another."
        )
    return lab


def _resize(lab: Lab, count: int | None, host_type: str, lock: int) -> None:
    """Make the number of inference hosts ``count``, the first of them the canary."""
    numbered = {f"inference-{number}" for number in range(1, 255)}
    if count is None:
        count = sum(name in numbered for name in lab.hosts) or (0 if lab.bare else DEFAULT_HOSTS)
    wanted = [f"inference-{number}" for number in range(1, count + 1)]
    for name in [name for name in lab.hosts if name in numbered and name not in wanted]:
        with step(f"host {name}: removed"):
            _forget(lab, lab.host(name))
    for name in wanted:
        if name not in lab.hosts:
            ring = "canary" if name == wanted[0] else "stable"
            lab.new_host(name, role="inference", ring=ring, instance_type=host_type)
    lab.save()


def _converge(lab: Lab, wanted: list[Host], lock: int) -> None:
    """Bring up what the lab shares, then ``wanted``."""
    if not lab.bare:
        ec2.ensure_server(lab, lock)
    with step(f"network: bridge {lab.bridge}, {lab.gateway} in {lab.subnet}"):
        network.ensure(lab)
        _relay(lab, lock)
    started = [host for host in wanted if not host.stopped]
    if started:
        base = rootfs.ensure()
        with step(f"hosts: {', '.join(host.name for host in started)}"):
            hosts.bring_up(lab, started, lambda: base, lock)
    settings.write(lab)
    if lab.bare:
        return
    with step(f"EC2 API: {lab.ec2_endpoint}"):
        ec2.wait(lab)
        changed = ec2.register(lab)
        if lab.balancer == "registration":
            changed += target_groups.ensure(lab)
    for line in changed:
        print(f"            {line}", flush=True)
    with step(f"balancer: {lab.balancer_url}"):
        balancer.ensure(lab, lock)
    if lab.metadata:
        for host in started:
            if host.role:
                notices.ensure(lab, host, lock)


def _relay(lab: Lab, lock: int) -> None:
    """Relay to the bridge what the hosts need and only our loopback has: a resolver, a proxy."""
    forwards = controller.inherited(lab.gateway, lab.subnet).forwards
    place = lab.directory / "relay"
    argv = [sys.executable, "-m", "lab.relay", lab.gateway]
    argv += sorted({f"{forward.protocol}:{forward.port}={forward.target}" for forward in forwards})
    if processes.read(place / "process.json") is not None and _argv(place) == argv:
        return
    processes.stop(place, f"{lab.name}/relay")
    if forwards:
        processes.start(place, argv, lock=lock, group=f"{lab.name}/relay")


def _argv(place: Path) -> list[str]:
    found: list[str] = json.loads((place / "start.json").read_text(encoding="utf-8"))["argv"]
    return found


def _forget(lab: Lab, host: Host) -> None:
    hosts.halt(lab, host)
    notices.stop(lab, host)
    network.remove_host(lab, host)
    files.remove_tree(hosts.directory(lab, host))
    del lab.hosts[host.name]
    lab.save()


def add(
    lab_name: str, name: str, changes: dict[str, str], *, fresh: bool, subnet: str | None, image: str | None = None
) -> None:
    """Add a host; without a role it is scratch. An existing one is started, with ``changes``.

    With ``subnet`` the lab is created first, bare, if there is none. With ``image`` a new host begins with a copy of
    that host's disk and instance store.
    """
    shell.require(PROGRAMS)
    with _held(lab_name) as lock:
        lab = _open(lab_name, subnet, bare=True) if subnet else state.require(lab_name)
        if changes.get("role") and lab.bare:
            raise LabError(f"Lab {lab_name} is bare: it has no EC2 API that could know a host with a role.")
        source = lab.host(image) if image else None
        if source and name in lab.hosts:
            raise LabError(f"{name} is there already: only a new host begins with another one's disk.")
        host = lab.hosts.get(name) or lab.new_host(name)
        for key, value in changes.items():
            setattr(host, key, value)
        if host.role == "inference" and not host.ring:
            host.ring = "stable"
        if fresh:
            hosts.halt(lab, host)
            hosts.discard(lab, host)
        if source:
            hosts.copy_disk(lab, source, host)
        host.stopped = False
        lab.save()
        _converge(lab, [host], lock)
        print(f"{host.name} {lab.address(host)}")


def remove(lab_name: str, name: str, *, last: bool) -> None:
    """Remove a host; with ``last``, the lab too when it was the last one. A missing one is fine."""
    with _held(lab_name) as lock:
        lab = state.load(lab_name)
        if lab is None:
            return
        if name in lab.hosts:
            with step(f"host {name}: removed"):
                _forget(lab, lab.host(name))
        if last and not lab.hosts:
            _take_down(lab)
        else:
            _converge(lab, [], lock)


def reset(lab_name: str, names: list[str]) -> None:
    """Fresh hosts from the root file system: all their data is erased; name, address and keys stay."""
    with _held(lab_name) as lock:
        lab = state.require(lab_name)
        chosen = [lab.host(name) for name in names]
        for host in chosen:
            hosts.halt(lab, host)
            hosts.discard(lab, host)
            host.stopped = False
        lab.save()
        _converge(lab, chosen, lock)


def stop(lab_name: str, name: str, *, wipe: bool, crash: bool) -> None:
    """Stop a host as EC2 stops an instance; or, with ``crash``, kill it while the EC2 API reports it as running."""
    with _held(lab_name) as lock:
        lab = state.require(lab_name)
        host = lab.host(name)
        if not crash:
            host.stopped = True
            lab.save()
        with step(f"host {name}: {'killed' if crash else 'stopped'}"):
            hosts.halt(lab, host, grace=0.0 if crash else STOP_SECONDS)
        if wipe:
            hosts.wipe_instance_store(lab, host)
        _converge(lab, [], lock)


def start(lab_name: str, name: str, *, wipe: bool) -> None:
    """Start a stopped host, with its disk as it was."""
    with _held(lab_name) as lock:
        lab = state.require(lab_name)
        host = lab.host(name)
        if wipe and not hosts.running(lab, host):
            hosts.wipe_instance_store(lab, host)
        host.stopped = False
        lab.save()
        _converge(lab, [host], lock)


def announce(lab_name: str, name: str, notice: str, seconds: float | None) -> None:
    """Have the host's metadata service say what EC2 announces, or that nothing is."""
    with _held(lab_name) as lock:
        lab = state.require(lab_name)
        host = lab.host(name)
        notices.ensure(lab, host, lock)
        print(notices.announce(lab, host, notice, seconds))


def scale(lab_name: str, group: str, count: int) -> None:
    """Give an Auto Scaling group its number of instances; the first time, make the group."""
    with _held(lab_name) as lock:
        lab = state.require(lab_name)
        for line in scaling.ensure(lab, group, lock):
            print(line)
        scaling.set_capacity(lab, group, count)
        print(f"{group}: {count} wanted")


def follow(lab_name: str) -> None:
    """Have a host for each instance of the Auto Scaling groups, and none for those that ended. One look."""
    lab = state.require(lab_name)
    instances = ec2.grouped_instances(lab)
    for name in scaling.leaving(lab) & lab.hosts.keys():
        notices.mark_leaving(lab, lab.host(name))
    if not scaling.differs(lab, instances):
        return
    with _held(lab_name) as lock:
        lab = state.require(lab_name)
        missing, ended = scaling.compare(lab, instances)
        for host in ended:
            with step(f"host {host.name}: its group {host.group} ended it"):
                _forget(lab, host)
        for instance in missing:
            scaling.admit(lab, instance)
        lab.save()
        started = [host for host in lab.hosts.values() if host.group and not hosts.running(lab, host)]
        _converge(lab, started, lock)


def down(name: str, *, cache: bool) -> None:
    """Remove everything that the lab created, and nothing else."""
    with _held(name):
        lab = state.load(name)
        if lab is None:
            print(f"There is no lab {name} in {state.state_root()}: nothing to take down.")
        else:
            _take_down(lab)
    if cache:
        _drop_cache()


def _take_down(lab: Lab) -> None:
    with step(f"lab {lab.name}: hosts, balancer, EC2 API"):
        scaling.stop(lab)
        for host in lab.hosts.values():
            hosts.halt(lab, host)
            notices.stop(lab, host)
        balancer.stop(lab)
        ec2.stop_server(lab)
        processes.stop(lab.directory / "relay", f"{lab.name}/relay")
        cgroups.remove_parents(lab.name)
    with step(f"lab {lab.name}: network"):
        network.remove(lab)
    with step(f"lab {lab.name}: {lab.directory}"):
        # The lab's own record last: while it exists, a killed `down` can be run again.
        for path in lab.directory.iterdir():
            if path.name != "lab.json":
                files.remove_tree(path) if path.is_dir() else path.unlink()
        files.remove_tree(lab.directory)


def _drop_cache() -> None:
    used = [lab.name for lab in state.every_lab()]
    if used:
        raise LabError(f"{state.cache_root()} is in use by lab {', '.join(used)}: take it down first.")
    with step(f"cache {state.cache_root()}"):
        files.remove_tree(state.cache_root())


def status(name: str) -> None:
    """A table of the lab's hosts and services."""
    lab = state.require(name)
    print(f"lab {lab.name}: {lab.subnet} on {lab.bridge}, state {lab.directory}, cache {state.cache_root()}")
    for service, address in (("ec2", lab.ec2_endpoint), ("balancer", lab.balancer_url)):
        if not lab.bare:
            record = processes.read(lab.directory / service / "process.json")
            print(f"{service:9} {address:28} {f'pid {record.pid}' if record else 'NOT RUNNING'}")
    print(f"{'host':22} {'address':15} {'role':13} {'ring':7} {'engine':7} {'state':8} {'MB':>5} {'processes':>9}")
    for host in lab.hosts.values():
        cost = hosts.memory(lab, host)
        runs = "running" if hosts.running(lab, host) else "stopped" if host.stopped else "DEAD"
        print(
            f"{host.name:22} {lab.address(host):15} {host.role or '(scratch)':13} {host.ring or '-':7} "
            f"{host.engine or '-':7} {runs:8} {cost.proportional / 1e6:5.0f} {cost.processes:9}"
        )
    if lab.balancer == "registration" and processes.read(lab.directory / "ec2" / "process.json"):
        for line in target_groups.states(lab):
            print(line)


def env(name: str, client: str) -> None:
    """Shell exports: the lab, and its URL and key for OpenAI clients."""
    lab = state.require(name)
    exports = {
        "INFERENCE_FLEET_STATE": str(state.state_root()),
        "INFERENCE_FLEET_LAB": lab.name,
        "LAB_EC2_ENDPOINT": lab.ec2_endpoint,
    }
    if lab.balancer == "registration":
        # boto3's own names: target groups are reached as on AWS.
        exports["AWS_ENDPOINT_URL"] = lab.ec2_endpoint
        exports["AWS_DEFAULT_REGION"] = ec2.REGION
        exports |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "lab")
    if not lab.bare:
        exports["OPENAI_BASE_URL"] = f"{lab.balancer_url}/v1"
        if any(host.role == "gateway" for host in lab.fleet()):
            exports["GATEWAY_BASE_URL"] = f"http://{lab.gateway}:{balancer.GATEWAY_PORT}/v1"
        key = _client_key(lab, client)
        if key:
            exports["OPENAI_API_KEY"] = key
        else:
            print(f"# The key store has no client {client!r} yet: run site.yml first.", file=sys.stderr)
    for variable, value in exports.items():
        print(f"export {variable}={shlex.quote(value)}")


def _client_key(lab: Lab, client: str) -> str:
    """The current key of a client in the lab's key store, or nothing."""
    try:
        document = json.loads((lab.directory / "keys.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    current = document["clients"].get(client, {}).get("current") or {}
    return str(current.get("key", ""))


def shell_on(lab_name: str, name: str, command: list[str]) -> int:
    """Open a shell, or run one command, on a host."""
    lab = state.require(lab_name)
    return subprocess.run(hosts.ssh(lab, lab.host(name), *command), check=False).returncode
