"""Real engines on one GPU or two, with what the roles deploy: starts, gate, memory, a lost rank, two hosts, a hang.

usage: python3 -m tests.gpu.several STEP... --bundles DIRECTORY --out DIRECTORY --site ENGINE=DIRECTORY...

STEP is gpus, one:ENGINE, pair:ENGINE (two GPUs), both (two GPUs, an engine on each, behind the edge), two (two GPUs, a
vLLM on each), affinity:vllm (the same behind the edge, which chooses), profiles:HOST,HOST,... (the same load for the
settings of each), benchmark:HOST (what benchmark.yml measures, with its client at --client), on:GPU:STEP (a step on one
GPU, beside others), span:ENGINE (two hosts, with a GPU each or, where the machine has one, sharing it), watch:ENGINE
(one GPU, under the watchdog), starts:ENGINE (one GPU, how long a start takes; see starts.py) or facts (the GPUs as
metrics). Run it as root on a machine whose GPUs are idle, with its own Python, which has PyTorch. tests/gpu/render.yml
makes the bundles, docs/testing.md has the rest. Each result is a line of results.jsonl in the output directory as soon
as it is known, beside the journals of the units.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
import typing as t
import urllib.error
from pathlib import Path

from tests.gpu import spaces, units
from tests.gpu.affinity import affinity
from tests.gpu.benchmarks import benchmark
from tests.gpu.client import IDS, Client, Streams, Workload
from tests.gpu.edge import RealEdge
from tests.gpu.facts import facts
from tests.gpu.hosts import CommandError, Host
from tests.gpu.profiles import on, profile, profiles
from tests.gpu.runs import (
    Instance,
    Run,
    ask_gate,
    client_of,
    gate,
    holders,
    rows,
    run_bundle,
    smi,
    stop,
    wait_back,
    wait_ready,
    watch_end,
)
from tests.gpu.starts import starts
from tests.gpu.topology import links
from tests.gpu.watching import watch

MODEL = Path("/opt/models/random-8b")
GPUS_KNOWN = Path("/var/lib/inference/gpus.json")
#: As the machine's own setting may have it, for all processes.
REORDERED = {"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
#: Whether a GPU that this host has can be used, and how many PyTorch sees.
USED = "import torch; print(torch.cuda.device_count(), torch.ones(2, device='cuda').sum().item())"
SEEN = ("--query-gpu=index,uuid", "--format=csv,noheader")


def gpus(run: Run) -> None:
    """What gpu_info makes of two GPUs, of one that is hidden, and of one that an orphan holds."""
    for name, words in {
        "smi-q-x": ["-q", "-x"],
        "smi-topo": ["topo", "-m"],
        "smi-p2p-read": ["topo", "-p2p", "r"],
        "smi-p2p-nvlink": ["topo", "-p2p", "n"],
        "smi-nvlink": ["nvlink", "--status"],
        "smi-L": ["-L"],
    }.items():
        (run.out / f"{name}.txt").write_text(smi(*words), encoding="utf-8")
    run.note("links", links=links((run.out / "smi-topo.txt").read_text(encoding="utf-8")))
    count = len(rows("--query-gpu=uuid"))
    if count > 1:
        code = "import torch; print([torch.cuda.can_device_access_peer(*pair) for pair in ((0, 1), (1, 0))])"
        peers = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        run.note("peer access", pytorch=peers.stdout.strip() or peers.stderr[-300:])
    host = Host(run_bundle(run, "vllm-pair"), run.sites)

    def look(what: str, on: Host = host, **arguments: t.Any) -> dict[str, t.Any]:
        result = on.module("gpu_info", **arguments)
        run.note(
            f"gpu_info: {what}",
            verdict=result.get("verdict"),
            summary=result.get("summary", result.get("msg")),
            report=result.get("report"),
            checks=[reason["check"] for reason in result.get("reasons", [])],
        )
        return result

    all_of_them: dict[str, t.Any] = {"expected_count": count, "expected_name": "H200", "expected_memory": 143771}
    result = look(f"the machine's {count}", **all_of_them)
    (run.out / "gpu_info.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    look("as an instance type with eight", instance_type="p5en.48xlarge")
    look("as an instance type with four L40S", instance_type="g6e.12xlarge")
    look_before(run, host)
    with contextlib.ExitStack() as stack:
        try:
            space = stack.enter_context(spaces.Space("hidden", hide_gpus=[0]))
            print(space.command("nvidia-smi", *SEEN))
            look("one hidden", Host(run_bundle(run, "vllm-pair"), run.sites, space.prefix), **all_of_them)
            run.note("one hidden: PyTorch", sees=space.command(sys.executable, "-c", USED).strip())
        except (CommandError, spaces.SpaceError) as error:
            run.note("gpu_info: one hidden", error=str(error))
    for gpu in range(count):
        holder = subprocess.Popen([sys.executable, "tests/gpu/hold_memory.py", "2048", "60", str(gpu)])
        time.sleep(4)
        look(f"an orphan on GPU {gpu}", **all_of_them, allowed_units=[])
        holder.kill()
        holder.wait()


def look_before(run: Run, host: Host) -> None:
    """What host_preflight says of the machine, and of one whose port and programs are not as they should be."""
    arguments = json.loads(host.bundle.read_text(encoding="utf-8"))["preflight"]
    result = host.module("host_preflight", **arguments)
    run.note("host_preflight", system=result.get("system"), problems=result.get("problems", result.get("msg")))
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", host.instances[0]["engine_port"]))
        stranger.listen()
        large = [{**disk, "free_gib": 1e6, "unless": ""} for disk in arguments["disks"]]
        result = host.module("host_preflight", **{**arguments, "disks": large, "systems": {"debian": ["12"]}})
    run.note("host_preflight: port taken, disk too small, another system", problems=result.get("problems"))


def drain_by_counters(run: Run, what: str, client: Client, streams: int = 8, tokens: int = 400) -> None:
    """The engine's counters while requests run: a drain waits until they are zero."""
    running = Streams(client, streams, tokens)
    seen: list[int | None] = []
    began = time.time()
    while running.run() and time.time() - began < 60:
        seen.append(client.running())
        time.sleep(0.1)
    after = None
    for _look in range(50):
        after = client.running()
        if after == 0:
            break
        time.sleep(0.1)
    run.note(
        what,
        most=max((count for count in seen if count is not None), default=None),
        after=after,
        seconds=round(time.time() - began, 1),
        **running.figures(),
    )


def compare_memory(run: Run, what: str, host: Host, instance: Instance, engine: str, parallel: int) -> None:
    """The estimate of vram_fit beside what the engine said at its start, per GPU."""
    bundle = json.loads(host.bundle.read_text(encoding="utf-8"))
    wanted = next(each for each in bundle["releases"] if each["engine"] == engine)
    record = host.module("engine_memory", instances=[dict(instance)])
    info = host.module("gpu_info", expected_count=len(rows("--query-gpu=uuid")))
    cards = [
        {"name": gpu["name"], "memory_mib": gpu["memory_total_mib"], "reserved_mib": gpu["memory_reserved_mib"]}
        for gpu in info["gpus"]
    ]
    shared = {
        "model_path": str(MODEL),
        "engine": engine,
        "engine_version": json.loads(
            host.command("cat", f"/opt/inference/instances/{instance['index']}/current/manifest.json")
        )["version"],
        "options": wanted["shared_options"],
        "gpus": cards,
        "tensor_parallel_size": parallel,
    }
    estimate = host.module("vram_fit", **shared)
    measured = host.module("vram_fit", **shared, reported_file=f"/var/lib/inference/memory/{instance['name']}.json")
    said = (record["instances"][0]["record"] or {}).get("memory", {})
    wanted_gib, said_gib = estimate.get("kv_cache_gib"), said.get("kv_cache_gib")
    run.note(
        what,
        said=said,
        estimate={
            name: estimate.get(name)
            for name in (
                "verdict",
                "kv_cache_gib",
                "kv_cache_tokens",
                "weights_gib",
                "overhead_gib",
                "budget_gib",
                "message",
            )
        },
        error_percent=round((wanted_gib / said_gib - 1) * 100, 2) if wanted_gib and said_gib else None,
        by_product=measured.get("estimate_error_percent"),
        fits=measured.get("message"),
        used_mib=rows("--query-gpu=index,memory.used,memory.total"),
        holders=rows("--query-compute-apps=pid,gpu_uuid,used_memory,process_name"),
        gpu_info={"verdict": info.get("verdict"), "report": info.get("report")},
    )


def long_request(run: Run, what: str, client: Client, length: int) -> None:
    """One request of nearly the whole context."""
    tokens = random.Random(5).choices(IDS, k=length)  # noqa: S311
    began = time.time()
    try:
        answer = client.complete(tokens, 16)
        run.note(
            what, seconds=round(time.time() - began, 1), usage=answer["usage"], text=answer["choices"][0]["text"][:80]
        )
    except urllib.error.HTTPError as error:
        run.note(what, status=error.code, error=error.read().decode(errors="replace")[:500])
    except OSError as error:
        run.note(what, error=repr(error))


def load(run: Run, what: str, clients: t.Sequence[Client], gpus_each: int) -> None:
    """Many requests and few, as many for each GPU."""
    if not run.does("load"):
        return
    for seed, (name, requests, at_once) in enumerate((("few", 64, 8), ("many", 256, 64))):
        wanted = Workload(requests * gpus_each, at_once * gpus_each)
        # Another seed for each use, so that no prompt is in a cache.
        run.note(f"{what}, {name}", **wanted.send(clients, seed + int(time.time()) * 10))


def one(run: Run, engine: str) -> None:
    """One instance on one GPU."""
    try_instance(run, engine, "one", f"{engine} on one GPU")


def pair(run: Run, engine: str) -> None:
    """One instance on both GPUs."""
    try_instance(run, engine, "pair", f"{engine} on two GPUs")


def try_instance(run: Run, engine: str, kind: str, name: str) -> None:
    """An instance's start, what it answers, what it takes, and its end."""
    host = run.host(f"{engine}-{kind}")
    (instance,) = host.instances
    try:
        host.start(instance)
        if not wait_ready(run, f"{name}: start", host, instance):
            return
        client = client_of(host, instance)
        gate(run, f"{name}: gate", host, instance)
        compare_memory(run, f"{name}: memory", host, instance, engine, len(instance["gpus"]))
        drain_by_counters(run, f"{name}: counters", client)
        if run.does("long"):
            long_request(run, f"{name}: 256K of context", client, 262144 - 128)
        load(run, f"{name}: load", [client], len(instance["gpus"]))
        if run.does("rank"):
            lose_rank(run, name, host, instance, client)
        stop(run, f"{name}: stop with streams", host, instance, client)
        if run.does("again"):
            host.start(instance)
            wait_ready(run, f"{name}: start after a stop", host, instance)
            stop(run, f"{name}: stop", host, instance)
    finally:
        host.stop(instance)
        run.keep_journals(f"{kind}-{engine}", host)


def lose_rank(run: Run, name: str, host: Host, instance: Instance, client: Client) -> None:
    """SIGKILL of a process that holds a GPU, while streams run."""
    ranks = {gpu: pid for pid, gpu in sorted(holders().items())}
    if not ranks:
        return
    victim = ranks[sorted(ranks)[-1]]
    streams = Streams(client, 4, 1500)
    time.sleep(2)
    command = Path(f"/proc/{victim}/cmdline").read_bytes()[:200].decode(errors="replace").strip("\0")
    run.note(f"{name}: SIGKILL", pid=victim, command=command)
    os.kill(victim, signal.SIGKILL)
    ended = watch_end(run, f"{name}: a rank killed", host, instance, client)
    run.note(f"{name}: streams of the killed rank", **streams.figures(5))
    if ended and run.does("back"):
        wait_back(run, f"{name}: back", host, instance, client)
        gate(run, f"{name}: gate after it came back", host, instance)


def both(run: Run) -> None:
    """An instance for each GPU, one of each engine, after a reboot that numbered the GPUs the other way.

    They start first with an order of GPUs in the environment of all processes, then without one.
    """
    now = {row[0]: row[1] for row in rows("--query-gpu=index,uuid")}
    GPUS_KNOWN.parent.mkdir(parents=True, exist_ok=True)
    GPUS_KNOWN.write_text(json.dumps({"0": now["1"], "1": now["0"]}), encoding="utf-8")
    host = run.host("both", checked=False)
    try:
        with set_environment(REORDERED):
            start_behind_orphan(run, host, host.instances[1], "0")
            host.start(host.instances[0])
        serving = [each for each in host.instances if wait_ready(run, f"both: start of {each['name']}", host, each)]
        for instance in serving:
            gate(run, f"both: gate of {instance['name']}", host, instance)
            look_at_gpu(run, f"both: GPU of {instance['name']}", host, instance, now)
        info = host.module("gpu_info", expected_count=len(now))
        run.note("both: gpu_info", verdict=info.get("verdict"), report=info.get("report"))
        if RealEdge.exists():
            with RealEdge(host, run.out / "edge.log") as edge:
                ask_edge(run, host, edge)
        else:
            for instance in serving:
                drain_by_counters(run, f"both: counters of {instance['name']}", client_of(host, instance))
        for instance in host.instances:
            stop(run, f"both: stop of {instance['name']}", host, instance)
        if run.does("again"):
            for instance in host.instances:
                host.start(instance)
            for instance in host.instances:
                if wait_ready(run, f"both: start of {instance['name']} without an order", host, instance):
                    look_at_gpu(run, f"both: GPU of {instance['name']} without an order", host, instance, now)
                    client = client_of(host, instance)
                    stop(run, f"both: stop of {instance['name']} with streams", host, instance, client)
    finally:
        for instance in host.instances:
            host.stop(instance)
        run.keep_journals("both", host)
        GPUS_KNOWN.unlink()


@contextlib.contextmanager
def set_environment(values: t.Mapping[str, str]) -> t.Iterator[None]:
    """Set variables for the processes that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def start_behind_orphan(run: Run, host: Host, instance: Instance, gpu: str) -> None:
    """Start an instance whose GPU a process holds that belongs to no unit; the start goes on once that has ended."""
    order = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu}
    holder = subprocess.Popen([sys.executable, "tests/gpu/hold_memory.py", "4096", "60", "0"], env=order)
    try:
        time.sleep(5)
        host.start(instance)
        time.sleep(5)
        waits = [line for line in host.journal(instance).splitlines() if "the start waits" in line]
        run.note("an orphan on the GPU of an instance", waits=waits, state=host.state(instance)["SubState"])
    finally:
        holder.kill()
        holder.wait()


def look_at_gpu(run: Run, what: str, host: Host, instance: Instance, now: t.Mapping[str, str]) -> None:
    """On which GPU an instance's processes are, and which they can see."""
    pids = units.descendants(units.state_of(instance["unit"])["supervisor"])
    held = {gpu for pid, gpu in holders().items() if pid in pids}
    wanted = json.loads(GPUS_KNOWN.read_text())[str(instance["gpus"][0])]
    environment = Path(f"/proc/{host.state(instance)['MainPID']}/environ").read_text(errors="replace").split("\0")
    run.note(
        what,
        right=held == {wanted},
        held=sorted(held),
        wanted=wanted,
        numbered=[index for index, uuid in now.items() if uuid == wanted],
        visible=[line for line in environment if line.startswith("CUDA_VISIBLE")],
    )


def ask_edge(run: Run, host: Host, edge: RealEdge) -> None:
    """Each engine by its own name at its own port of the edge, both at the same time."""
    run.note("both: edge", serves=edge.serve())
    asked = {"targets": edge.targets, "model": edge.targets[0]["model"], "api_key": edge.key, "checks": edge.checks}
    ask_gate(run, "both: gate through the edge", host, **asked)
    for target, other in zip(edge.targets, reversed(edge.targets)):
        client = edge.client(target)
        run.note(
            f"both: names at {target['name']}",
            models=client.models(),
            own=client.refusal({}),
            of_the_other=client.refusal({"model": other["model"]}),
        )
    before = len(edge.instances_of())
    streams = [Streams(edge.client(target), 8, 400) for target in edge.targets]
    counters = [client_of(host, instance) for instance in host.instances]
    most = [0 for _client in counters]
    while any(each.run() for each in streams):
        most = [max(seen, client.running() or 0) for seen, client in zip(most, counters)]
        time.sleep(0.1)
    figures = [each.figures() for each in streams]
    answered = edge.instances_of(before)
    run.note(
        "both: streams through the edge at the same time",
        most=most,
        figures=figures,
        answered={name: answered.count(name) for name in sorted(set(answered))},
    )


def two(run: Run) -> None:
    """A vLLM on each GPU, for what they do in a second beside one on both."""
    host = run.host("vllm-two", checked=False)
    try:
        for instance in host.instances:
            host.start(instance)
        ready = [wait_ready(run, f"two: start of {each['name']}", host, each) for each in host.instances]
        if not all(ready):
            return
        load(run, "two: load", [client_of(host, instance) for instance in host.instances], 1)
        if RealEdge.exists():
            with RealEdge(host, run.out / "edge-two.log") as edge:
                edge.serve()
                load(run, "two: load through the edge", [edge.client(edge.targets[0])], 2)
        for instance in host.instances:
            stop(run, f"two: stop of {instance['name']}", host, instance)
    finally:
        for instance in host.instances:
            host.stop(instance)
        run.keep_journals("two", host)


def span(run: Run, engine: str) -> None:
    """One instance on two hosts with a GPU each."""
    names = [f"{engine}-first", f"{engine}-second"]
    addresses = ["10.98.0.1", "10.98.0.2"]
    several = len(rows("--query-gpu=uuid")) > 1
    with contextlib.ExitStack() as stack:
        both_spaces = [
            stack.enter_context(spaces.Space(name, hide_gpus=[1 - rank] if several else [], own=True))
            for rank, name in enumerate(names)
        ]
        spaces.connect(both_spaces, addresses)
        hosts = [run.host(name, space.prefix, checked=False) for name, space in zip(names, both_spaces)]
        instances = [host.instances[0] for host in hosts]
        title = f"{engine} on two hosts"
        try:
            for host, instance in zip(hosts, instances):
                print(host.command("hostname"), host.command("nvidia-smi", *SEEN), sep="")
                host.start(instance)
            if not wait_ready(run, f"{title}: start", hosts[0], instances[0]):
                return
            questions = [
                sys.executable, "-m", "tests.gpu.several", "_span", str(hosts[0].bundle), str(hosts[1].bundle),
                both_spaces[1].pid, str(run.out), title,
            ]  # fmt: skip
            print(hosts[0].command(*questions), end="")
            for host, instance in zip(hosts, instances):
                began = time.time()
                host.stop(instance)
                run.note(
                    f"{title}: stop of {instance['span']['nodes'][instance['span']['rank']]}",
                    seconds=round(time.time() - began, 2),
                )
        finally:
            for name, host, instance in zip(names, hosts, instances):
                host.stop(instance)
                run.keep_journals(f"span-{name}", host)


def ask_span(first: Path, second: Path, second_pid: str, out: Path, title: str) -> None:
    """The questions to an instance on two hosts, inside of the first one's network."""
    options = {"without": [], "site": [], "unchecked": True, "skip": [], "quick": False, "client": None}
    run = Run(argparse.Namespace(out=out, bundles=first.parent, **options))
    host = Host(first, {})
    other = Host(second, {}, spaces.prefix_of(second_pid))
    instance, further = host.instances[0], other.instances[0]
    client = client_of(host, instance)
    gate(run, f"{title}: gate", host, instance)
    drain_by_counters(run, f"{title}: counters", client)
    run.note(
        f"{title}: holders",
        first=rows("--query-compute-apps=pid,gpu_uuid,used_memory"),
        second=other.command("nvidia-smi", "--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv,noheader"),
    )
    state = json.loads(other.command("cat", str(units.STATE / further["unit"] / "state.json")))
    for pid in sorted(units.descendants(state["supervisor"])):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if watch_end(run, f"{title}: second host's processes killed", host, instance, client):
        wait_back(run, f"{title}: back", host, instance, client)
        gate(run, f"{title}: gate after it came back", host, instance)


STEPS: dict[str, t.Callable[..., None]] = {
    "gpus": gpus,
    "one": one,
    "pair": pair,
    "both": both,
    "two": two,
    "affinity": affinity,
    "profile": profile,
    "profiles": profiles,
    "benchmark": benchmark,
    "on": on,
    "span": span,
    "watch": watch,
    "starts": starts,
    "facts": facts,
}


def main(words: list[str]) -> int:
    if words[:1] == ["_span"]:
        ask_span(Path(words[1]), Path(words[2]), words[3], Path(words[4]), words[5])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", metavar="STEP")
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--site", action="append", default=[])
    parser.add_argument("--client", type=Path, default=Path("/opt/aiperf/bin/aiperf"), help="the client of benchmarks")
    parser.add_argument("--without", action="append", default=[], help="ENGINE:OPTION that the brought version lacks")
    parser.add_argument("--unchecked", action="store_true", help="the brought version's parser is another one")
    parser.add_argument(
        "--skip", action="append", default=[], choices=["long", "back", "load", "rank", "again"], help="to save time"
    )
    parser.add_argument("--quick", action="store_true", help="small loads and short times, for the stand-in")
    run = Run(parser.parse_args(words))
    failed = 0
    for step in parser.parse_args(words).steps:
        name, _colon, argument = step.partition(":")
        try:
            STEPS[name](run, *([argument] if argument else []))
        except Exception as error:  # The other steps still run.
            failed += 1
            run.note(f"{step}: broke off", error=repr(error)[-1500:], trace=traceback.format_exc()[-1500:])
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
