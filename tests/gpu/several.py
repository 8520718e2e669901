"""Real engines on one GPU or two, with what the roles deploy: starts, gate, memory, a lost rank, two hosts.

usage: python3 -m tests.gpu.several STEP... --bundles DIRECTORY --out DIRECTORY --site ENGINE=DIRECTORY...

STEP is gpus, one:ENGINE, pair:ENGINE (two GPUs), both (two GPUs) or span:ENGINE (two hosts, with a GPU each or, where
the machine has one, sharing it). Run it as root on a machine whose GPUs are idle, with its own Python,
which has PyTorch. tests/gpu/render.yml makes the bundles, docs/testing.md has the rest. Each result is a line of
results.jsonl in the output directory as soon as it is known, beside the journals of the units.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import load

from tests.gpu import spaces, units
from tests.gpu.hosts import CommandError, Host
from tests.project import open_directly

MODEL = Path("/opt/models/random-8b")
GPUS_KNOWN = Path("/var/lib/inference/gpus.json")
START_LIMIT = 300
SEEN = ("--query-gpu=index,uuid", "--format=csv,noheader")
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
        self._began = time.time()
        self.sites = dict((word.split("=")[0], Path(word.split("=")[1])) for word in options.site)
        self.out.mkdir(parents=True, exist_ok=True)

    def does(self, part: str) -> bool:
        """Whether a part that takes long is wanted."""
        return part not in self._skipped

    def note(self, what: str, **figures: t.Any) -> None:
        """Write a result down at once: the machine may be gone a moment later."""
        line = json.dumps({"at": round(time.time() - self._began, 1), "what": what, **figures})
        with (self.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line[:600], flush=True)

    def host(self, name: str, prefix: t.Sequence[str] = (), checked: bool = True) -> Host:
        """A host with its releases deployed."""
        host = Host(self._bundles / f"{name}.json", self.sites, prefix)
        began = time.time()
        host.deploy(self._without, checked and not self._unchecked)
        self.note(f"{name}: deployed", seconds=round(time.time() - began, 1))
        return host

    def keep_journals(self, name: str, host: Host) -> None:
        for instance in host.instances:
            with contextlib.suppress(CommandError):
                (self.out / f"{name}-{instance['name']}.log").write_text(host.journal(instance), encoding="utf-8")


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
    print((run.out / "smi-topo.txt").read_text())
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
    with contextlib.ExitStack() as stack:
        try:
            space = stack.enter_context(spaces.Space("hidden", hide_gpus=[0]))
            print(space.command("nvidia-smi", *SEEN))
            look("one hidden", Host(run_bundle(run, "vllm-pair"), run.sites, space.prefix), **all_of_them)
        except (CommandError, spaces.SpaceError) as error:
            run.note("gpu_info: one hidden", error=str(error))
    for gpu in range(count):
        holder = subprocess.Popen([sys.executable, "tests/gpu/hold_memory.py", "2048", "60", str(gpu)])
        time.sleep(4)
        look(f"an orphan on GPU {gpu}", **all_of_them, allowed_units=[])
        holder.kill()
        holder.wait()


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
    """The gate, but for what a model with random weights cannot know: any answer is right."""
    began = time.time()
    result = host.module(
        "chat_smoke",
        model=instance["served_name"],
        instances=[dict(instance)],
        api_key_file="/etc/inference/engine_key.env",
        checks=host.checks,
        expect_text=[],
        expect_text_regex=r"\S",
        expect_image={"red": [], "blue": []},
        record_dir="/var/lib/inference/gate",
    )
    targets = result.get("targets") or [{}]
    run.note(
        what,
        passed=not result.get("failed"),
        seconds=round(time.time() - began, 1),
        figures=targets[0].get("figures"),
        checks={check["name"]: check.get("reason") or "passed" for check in targets[0].get("checks", [])},
        **({"msg": result["msg"][:2500]} if result.get("failed") else {}),
    )
    return not result.get("failed")


class Client:
    """Sends requests to an instance's own port.

    Args:
        host: where it runs.
        instance: the instance.
    """

    def __init__(self, host: Host, instance: Instance) -> None:
        self._host = host
        self._port = instance["engine_port"]
        self._model = instance["served_name"]
        self._headers = {"Authorization": f"Bearer {host.key()}", "Content-Type": "application/json"}

    def open(self, path: str, document: t.Any = None, timeout: float = 300) -> t.Any:
        body = None if document is None else json.dumps({"model": self._model, **document}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", body, self._headers)
        return open_directly(request, timeout=timeout)

    def complete(self, tokens: list[int], answer: int, timeout: float = 300) -> dict[str, t.Any]:
        document = {"prompt": tokens, "max_tokens": answer, "temperature": 0, "ignore_eos": True}
        with self.open("/v1/completions", document, timeout) as response:
            result: dict[str, t.Any] = json.load(response)
            return result

    def stream(self, tokens: int) -> tuple[int, bool]:
        """Chunks of a streamed answer, and whether it came to its end."""
        messages = [{"role": "user", "content": f"Count without end, from {random.random()}."}]  # noqa: S311
        document = {"messages": messages, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        chunks, ended = 0, False
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            self.open("/v1/chat/completions", document) as response,
        ):
            for line in response:
                chunks += line.startswith(b"data: {")
                ended = ended or line.startswith(b"data: [DONE]")
        return chunks, ended

    def running(self) -> int | None:
        with self.open("/metrics") as response:
            found = load(response.read().decode())
        return found.running + found.waiting if found else None

    def health(self) -> int | None:
        try:
            with self.open("/health", timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None


def drain_by_counters(run: Run, what: str, client: Client, streams: int = 8, tokens: int = 400) -> None:
    """The engine's counters while requests run: a drain waits until they are zero."""
    ends: list[tuple[int, bool]] = []
    threads = [threading.Thread(target=lambda: ends.append(client.stream(tokens))) for _ in range(streams)]
    for thread in threads:
        thread.start()
    seen: list[int | None] = []
    began = time.time()
    while any(thread.is_alive() for thread in threads) and time.time() - began < 60:
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
        complete=sum(ended for _chunks, ended in ends),
        streams=streams,
        chunks=sum(chunks for chunks, _ended in ends),
        seconds=round(time.time() - began, 1),
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
    tokens = random.Random(5).choices(range(2000, 150000), k=length)  # noqa: S311
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


def stop(run: Run, what: str, host: Host, instance: Instance) -> None:
    began = time.time()
    host.stop(instance)
    took = round(time.time() - began, 2)
    tail = [line for line in host.journal(instance).splitlines() if line.startswith("systemd:")][-2:]
    time.sleep(1)
    run.note(what, seconds=took, journal=tail, holders_left=len(holders()), used=rows("--query-gpu=index,memory.used"))


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
        client = Client(host, instance)
        gate(run, f"{name}: gate", host, instance)
        compare_memory(run, f"{name}: memory", host, instance, engine, len(instance["gpus"]))
        drain_by_counters(run, f"{name}: counters", client)
        if run.does("long"):
            long_request(run, f"{name}: 256K of context", client, 262144 - 128)
        ranks = {gpu: pid for pid, gpu in sorted(holders().items())}
        victim = ranks[sorted(ranks)[-1]] if ranks else None
        if victim is not None:
            run.note(
                f"{name}: SIGKILL",
                pid=victim,
                command=Path(f"/proc/{victim}/cmdline").read_bytes()[:200].decode(errors="replace"),
            )
            os.kill(victim, signal.SIGKILL)
            if watch_end(run, f"{name}: a rank killed", host, instance, client) and run.does("back"):
                wait_back(run, f"{name}: back", host, instance, client)
                gate(run, f"{name}: gate after it came back", host, instance)
        stop(run, f"{name}: stop", host, instance)
    finally:
        host.stop(instance)
        run.keep_journals(kind, host)


def both(run: Run) -> None:
    """An instance for each GPU, one of each engine, after a reboot that numbered the GPUs the other way."""
    now = {row[0]: row[1] for row in rows("--query-gpu=index,uuid")}
    GPUS_KNOWN.parent.mkdir(parents=True, exist_ok=True)
    GPUS_KNOWN.write_text(json.dumps({"0": now["1"], "1": now["0"]}), encoding="utf-8")
    host = run.host("both", checked=False)
    try:
        for instance in host.instances:
            host.start(instance)
        served = [wait_ready(run, f"both: start of {each['name']}", host, each) for each in host.instances]
        for instance in (each for each, ready in zip(host.instances, served) if ready):
            gate(run, f"both: gate of {instance['name']}", host, instance)
            pids = units.descendants(units.state_of(instance["unit"])["supervisor"])
            held = {gpu for pid, gpu in holders().items() if pid in pids}
            wanted = json.loads(GPUS_KNOWN.read_text())[str(instance["gpus"][0])]
            environment = (
                Path(f"/proc/{host.state(instance)['MainPID']}/environ").read_text(errors="replace").split("\0")
            )
            run.note(
                f"both: GPU of {instance['name']}",
                right=held == {wanted},
                held=sorted(held),
                wanted=wanted,
                numbered=[index for index, uuid in now.items() if uuid == wanted],
                visible=[line for line in environment if line.startswith("CUDA_VISIBLE")],
            )
            drain_by_counters(run, f"both: counters of {instance['name']}", Client(host, instance))
        info = host.module("gpu_info", expected_count=len(rows("--query-gpu=uuid")))
        run.note("both: gpu_info", verdict=info.get("verdict"), report=info.get("report"))
        for instance in host.instances:
            stop(run, f"both: stop of {instance['name']}", host, instance)
    finally:
        for instance in host.instances:
            host.stop(instance)
        run.keep_journals("both", host)
        GPUS_KNOWN.unlink()


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
    run = Run(argparse.Namespace(out=out, bundles=first.parent, without=[], site=[], unchecked=True, skip=[]))
    host = Host(first, {})
    other = Host(second, {}, spaces.prefix_of(second_pid))
    instance, further = host.instances[0], other.instances[0]
    client = Client(host, instance)
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


STEPS: dict[str, t.Callable[..., None]] = {"gpus": gpus, "one": one, "pair": pair, "both": both, "span": span}


def main(words: list[str]) -> int:
    if words[:1] == ["_span"]:
        ask_span(Path(words[1]), Path(words[2]), words[3], Path(words[4]), words[5])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", metavar="STEP")
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--site", action="append", default=[])
    parser.add_argument("--without", action="append", default=[], help="ENGINE:OPTION that the brought version lacks")
    parser.add_argument("--unchecked", action="store_true", help="the brought version's parser is another one")
    parser.add_argument("--skip", action="append", default=[], choices=["long", "back"], help="to save time")
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
