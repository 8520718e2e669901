"""A run of steps: its results, and what the steps have in common."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import time
import typing as t
from pathlib import Path

from tests.gpu.client import Client, Streams
from tests.gpu.hosts import CommandError, Host

START_LIMIT = 300
Instance = t.Mapping[str, t.Any]


class Run:
    """One run of some steps.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.out: Path = options.out
        self._bundles: Path = options.bundles
        self._without: list[str] = options.without
        self._unchecked: bool = options.unchecked
        self._skipped: list[str] = options.skip
        self.quick: bool = options.quick
        self.client: Path = options.client
        self._began = time.time()
        self.sites = dict((word.split("=")[0], Path(word.split("=")[1])) for word in options.site)
        self.out.mkdir(parents=True, exist_ok=True)

    @property
    def words(self) -> list[str]:
        """The options of the command line, for a step that runs elsewhere."""
        sites = [f"--site={engine}={place}" for engine, place in self.sites.items()]
        without = [f"--without={option}" for option in self._without]
        flags = [*(["--unchecked"] if self._unchecked else []), *(["--quick"] if self.quick else [])]
        return [f"--bundles={self._bundles}", f"--out={self.out}", f"--client={self.client}", *sites, *without, *flags]

    def does(self, part: str) -> bool:
        """Whether a part that takes long is wanted."""
        return part not in self._skipped

    def note(self, what: str, **figures: t.Any) -> None:
        """Write a result down at once: the machine may be gone a moment later."""
        line = json.dumps({"at": round(time.time() - self._began, 1), "what": what, **figures})
        with (self.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line[:600], flush=True)

    def host(self, name: str, prefix: t.Sequence[str] = (), checked: bool = True, bundle: Path | None = None) -> Host:
        """A host with its releases deployed; those of a bundle instead of its own."""
        host = Host(bundle or self._bundles / f"{name}.json", self.sites, prefix)
        began = time.time()
        host.deploy(self._without, checked and not self._unchecked)
        self.note(f"{name}: deployed", seconds=round(time.time() - began, 1))
        return host

    def keep_journals(self, name: str, host: Host) -> None:
        for instance in host.instances:
            with contextlib.suppress(CommandError):
                # Some versions write their keys.
                journal = host.journal(instance).replace(host.key(), "sk-...")
                (self.out / f"{name}-{instance['name']}.log").write_text(journal, encoding="utf-8")


def smi(*words: str) -> str:
    return subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=60, check=False).stdout


def rows(what: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split(",")] for line in smi(what, "--format=csv,noheader,nounits").splitlines()
    ]


def holders() -> dict[int, str]:
    """The GPU of each process that holds memory on one."""
    found = rows("--query-compute-apps=pid,gpu_uuid,used_memory")
    return {int(row[0]): row[1] for row in found if len(row) == 3 and row[0].isdigit()}


def run_bundle(run: Run, name: str) -> Path:
    return run._bundles / f"{name}.json"


def wait_ready(run: Run, what: str, host: Host, instance: Instance, limit: float = START_LIMIT) -> bool:
    """Wait with the product's own module, and note how long it took."""
    began = time.time()
    result = host.module("engine_ready", instances=[dict(instance)], timeout=int(limit))
    failed = {"failed": result["msg"][-1500:]} if result.get("failed") else {}
    run.note(what, seconds=round(time.time() - began, 1), said=result.get("seconds"), **failed)
    return not failed


def gate(run: Run, what: str, host: Host, instance: Instance) -> bool:
    """The gate of an instance on its own port."""
    own = {"instances": [dict(instance)], "api_key_file": "/etc/inference/engine_key.env"}
    return ask_gate(run, what, host, model=instance["served_name"], checks=host.checks, **own)


def ask_gate(run: Run, what: str, host: Host, **asked: t.Any) -> bool:
    """The gate, but for what a model with random weights cannot know: any answer is right."""
    began = time.time()
    result = host.module(
        "chat_smoke",
        expect_text=[],
        expect_text_regex=r"\S",
        expect_image={"red": [], "blue": []},
        record_dir="/var/lib/inference/gate",
        **asked,
    )
    for target in result.get("targets") or [{}]:
        run.note(
            what,
            target=target.get("name"),
            passed=not result.get("failed"),
            seconds=round(time.time() - began, 1),
            figures=target.get("figures"),
            checks={check["name"]: check.get("reason") or "passed" for check in target.get("checks", [])},
            **({"msg": result["msg"][:2500]} if result.get("failed") else {}),
        )
    return not result.get("failed")


def serve(run: Run, name: str, measure: t.Callable[[Host, Instance], None]) -> None:
    """One host with one instance: its start, its gate, what is measured of it, and its stop."""
    host = run.host(name, checked=False)
    (instance,) = host.instances
    try:
        host.start(instance)
        if not wait_ready(run, f"{name}: start", host, instance):
            return
        gate(run, f"{name}: gate", host, instance)
        measure(host, instance)
        stop(run, f"{name}: stop", host, instance)
    finally:
        host.stop(instance)
        run.keep_journals(name, host)


def client_of(host: Host, instance: Instance) -> Client:
    """A client of an instance's own port."""
    return Client(instance["engine_port"], instance["served_name"], host.key())


def watch_end(run: Run, what: str, host: Host, instance: Instance, client: Client, limit: float = 90) -> bool:
    """How long until an instance that lost something has ended, and its port is closed."""
    began = time.time()
    before = host.state(instance)
    closed = ended = None
    while time.time() - began < limit and ended is None:
        if closed is None and client.health() != 200:
            closed = round(time.time() - began, 2)
        state = host.state(instance)
        if state["MainPID"] != before["MainPID"] or state["NRestarts"] != before["NRestarts"]:
            ended = round(time.time() - began, 2)
        time.sleep(0.1)
    run.note(what, health_gone_after=closed, ended_after=ended, limit=limit, state=host.state(instance))
    return ended is not None


def wait_back(run: Run, what: str, host: Host, instance: Instance, client: Client, limit: float = START_LIMIT) -> bool:
    """How long until systemd's restart serves."""
    began = time.time()
    while time.time() - began < limit:
        if client.health() == 200:
            run.note(what, seconds=round(time.time() - began, 1), restarts=host.state(instance)["NRestarts"])
            return True
        time.sleep(0.25)
    run.note(what, failed=f"not within {limit} s", state=host.state(instance))
    return False


def stop(run: Run, what: str, host: Host, instance: Instance, client: Client | None = None) -> None:
    """Stop it as systemd does; with a client while streams run."""
    streams = Streams(client, 4, 1500) if client else None
    time.sleep(2 if streams else 0)
    began = time.time()
    host.stop(instance)
    took = round(time.time() - began, 2)
    tail = [line for line in host.journal(instance).splitlines() if line.startswith("systemd:")][-2:]
    time.sleep(1)
    run.note(
        what,
        seconds=took,
        journal=tail,
        holders_left=len(holders()),
        used=rows("--query-gpu=index,memory.used"),
        **(streams.figures() if streams else {}),
    )
