"""How long an instance's start takes, what of, and what makes it shorter: one engine on one GPU.

usage as a step of tests/gpu/several.py: starts:ENGINE, or starts:ENGINE:START,START...

A START is a name of VARIANTS, or several with ``+``; without any it is those of DEFAULT. Before them come a start with
the caches as they are and one after it, with which the others compare. Each is a start of the unit, from ``systemctl
start`` to the first 200 of ``/health``, and has to pass the gate afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from tests.gpu import units
from tests.gpu.hosts import Host
from tests.gpu.runs import START_LIMIT, Instance, Run, client_of, gate
from tests.gpu.stages import heaviest, import_seconds, split
from tests.page_cache import drop

SAMPLING = Path(__file__).parent / "sampling"
#: Where the engines' user finds what samples a process, and where it writes.
SAMPLER = Path("/opt/inference/sampling")
SAMPLES = Path("/var/cache/inference/samples")
CACHE = Path("/var/cache/inference")
#: Of a process that is worth a result.
LEAST_SAMPLES = 40
#: Besides the engine, what an engine imports most of.
PACKAGES = ("torch", "transformers", "triton", "torchvision", "numpy")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A change to an instance whose start is measured.

    Attributes:
        environment: added to that of the process.
        options: added to the engine's.
        cold: whether the runtime is taken out of the page cache first.
        empty: whether the engines' caches are emptied first.
    """

    environment: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    cold: bool = False
    empty: bool = False


_COMMON = {
    # Where the time goes. It costs some, so its seconds are no measure.
    "profiled": Variant(
        {"START_SAMPLES": str(SAMPLES), "PYTHONPATH": f"{SAMPLER}:/opt/inference/instances/0/current"},
    ),
    "imports": Variant({"PYTHONPROFILEIMPORTTIME": "1"}),
    "cold": Variant(cold=True),
    "empty": Variant(empty=True),
}
VARIANTS: dict[str, dict[str, Variant]] = {
    "vllm": {
        **_COMMON,
        # The core has what the server imported already.
        "fork": Variant({"VLLM_WORKER_MULTIPROC_METHOD": "fork"}),
        # The memory as it was measured at an earlier start, where all that determines it is the same. Its first start
        # writes the plan; the next one has 1 % less KV cache.
        "plan": Variant({"VLLM_ENABLE_STARTUP_PLAN": "1"}),
        # Later versions do so themselves while they process pictures at a start; on an H200 it was slower.
        "threads": Variant({"OMP_NUM_THREADS": "1"}),
        # Fewer graphs: prefill without any.
        "decode": Variant(options={"compilation-config": {"cudagraph_mode": "FULL_DECODE_ONLY"}}),
        "graphs": Variant(options={"max-cudagraph-capture-size": 256}),
    },
    "sglang": {
        **_COMMON,
        # The gate asks more than its own first question.
        "unasked": Variant(options={"skip-server-warmup": True}),
        "graphs": Variant(options={"cuda-graph-max-bs": 128}),
    },
}
#: Those which fit in six minutes.
DEFAULT: dict[str, tuple[str, ...]] = {"vllm": ("fork", "profiled"), "sglang": ("unasked", "profiled")}


class StartError(Exception):
    """A start cannot be measured; its message has the reason."""


def starts(run: Run, argument: str) -> None:
    """Measure the starts of one engine."""
    engine, _colon, names = argument.partition(":")
    wanted = parse(engine, names)
    name = f"{engine}-one"
    title = f"starts of {engine}"
    compile_bytecode(run, title, engine)
    host = run.host(name, checked=False)
    measure(run, f"{title}: first", host, engine)
    if run.does("again"):
        measure(run, f"{title}: second", host, engine)
    for label, variants in wanted:
        varied = run.out / f"bundle-{label}.json"
        document = json.loads(host.bundle.read_text(encoding="utf-8"))
        varied.write_text(json.dumps(vary(document, variants)), encoding="utf-8")
        prepare(run, f"{title}: {label}", variants, engine)
        changed = run.host(name, checked=False, bundle=varied)
        measure(run, f"{title}: {label}", changed, engine)
        if "profiled" in label:
            keep_samples(run, f"{title}: {label}")


def parse(engine: str, names: str) -> list[tuple[str, list[Variant]]]:
    """The starts that were asked for.

    Raises:
        StartError: one of them is unknown.
    """
    known = VARIANTS[engine]
    labels = names.split(",") if names else DEFAULT[engine]
    unknown = {name for label in labels for name in label.split("+")} - set(known)
    if unknown:
        raise StartError(f"{engine} has no start {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    return [(label, [known[name] for name in label.split("+")]) for label in labels]


def vary(document: dict[str, t.Any], variants: t.Sequence[Variant]) -> dict[str, t.Any]:
    """A bundle whose instances start differently."""
    releases = [
        {
            **release,
            "instances": [
                {
                    **instance,
                    "environment": {
                        **instance["environment"],
                        **{name: value for variant in variants for name, value in variant.environment.items()},
                    },
                    "options": {
                        **instance["options"],
                        **{name: value for variant in variants for name, value in variant.options.items()},
                    },
                }
                for instance in release["instances"]
            ],
        }
        for release in document["releases"]
    ]
    return {**document, "releases": releases}


def prepare(run: Run, what: str, variants: t.Sequence[Variant], engine: str) -> None:
    """What has to be there, or must not, before a start."""
    shutil.copytree(SAMPLING, SAMPLER, dirs_exist_ok=True)
    owner = CACHE.stat()
    SAMPLES.mkdir(exist_ok=True)
    os.chown(SAMPLES, owner.st_uid, owner.st_gid)
    if any(variant.empty for variant in variants):
        for path in CACHE.iterdir():
            if path != SAMPLES:
                shutil.rmtree(path, ignore_errors=True)
    if any(variant.cold for variant in variants):
        began = time.time()
        dropped = sum(drop(place) for place in packages(run, engine))
        run.note(f"{what}: out of the page cache", mib=dropped >> 20, seconds=round(time.time() - began, 1))


def packages(run: Run, engine: str) -> list[Path]:
    """The directories that an engine imports from."""
    found = [run.sites[engine]]
    for name in PACKAGES:
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name)
            found += [Path(place) for place in (spec.submodule_search_locations or [] if spec else [])]
    return found


def compile_bytecode(run: Run, title: str, engine: str) -> None:
    """What an installation does, and what the engines' user could not do here."""
    began = time.time()
    places = packages(run, engine)
    before = {place.name: share_compiled(place) for place in places}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for place in places:
        if before[place.name] < 1:
            words = [sys.executable, "-m", "compileall", "-q", "-j", "0", str(place)]
            # A package may have files for another Python.
            subprocess.run(words, env=environment, capture_output=True, check=False)
    after = {place.name: share_compiled(place) for place in places}
    run.note(f"{title}: bytecode", before=before, after=after, seconds=round(time.time() - began, 1))


def share_compiled(place: Path) -> float:
    """Which part of the modules below a directory has bytecode for this Python."""
    sources = list(place.rglob("*.py"))
    compiled = sum(Path(importlib.util.cache_from_source(str(path))).exists() for path in sources)
    return round(compiled / len(sources), 3) if sources else 1.0


def measure(run: Run, what: str, host: Host, engine: str) -> None:
    """One start, from the unit's to the first answer, its gate, and its stop."""
    (instance,) = host.instances
    client = client_of(host, instance)
    before = sizes(CACHE)
    began = time.time()
    host.start(instance)
    try:
        ended = None
        while ended is None and time.time() - began < START_LIMIT and not units.state_of(instance["unit"])["NRestarts"]:
            if client.health() == 200:
                ended = time.time()
            time.sleep(0.05)
        lines = units.journal_of(instance["unit"], began)
        if ended is None:
            seconds = round(time.time() - began, 1)
            run.note(
                what, failed=f"it does not serve after {seconds} s", end=[text[-300:] for _at, text in lines[-15:]]
            )
            return
        run.note(what, **split(lines, engine, began, ended).as_dict(), caches_mib=[before, sizes(CACHE)])
        imports = import_seconds(lines)
        if imports:
            run.note(f"{what}: imports", seconds=round(sum(imports.values()), 1), packages=imports)
        gate(run, f"{what}: gate", host, instance)
    finally:
        stop(run, what, host, instance)


def stop(run: Run, what: str, host: Host, instance: Instance) -> None:
    """Stop it, and keep its journal with the times."""
    host.stop(instance)
    name = what.rpartition(": ")[2]
    # Some versions write their keys.
    key = host.key()
    lines = [f"{at:.3f} {text}\n".replace(key, "sk-...") for at, text in units.journal_of(instance["unit"])]
    (run.out / f"start-{instance['engine']}-{name}.log").write_text("".join(lines), encoding="utf-8")


def sizes(place: Path) -> dict[str, int]:
    """MiB of each cache."""
    found: dict[str, int] = {}
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                below = path.relative_to(place).parts
                name = "/".join(below[: 2 if below[0] == "vllm" else 1])
                found[name] = found.get(name, 0) + path.stat().st_size
    return {name: size >> 20 for name, size in sorted(found.items()) if size >> 20}


def keep_samples(run: Run, what: str) -> None:
    """Keep the samples of each process, and note where the heaviest ones spent their time."""
    place = run.out / "samples"
    place.mkdir(exist_ok=True)
    written = sorted(SAMPLES.glob("*.txt"), key=lambda path: -path.stat().st_size)
    for path in written:
        lines = path.read_text(encoding="utf-8").splitlines()
        shutil.copy(path, place / path.name)
        # A process may become another program.
        command = [line for line in lines if line.startswith("#")][-1]
        samples = [line for line in lines if not line.startswith("#")]
        if len(samples) > LEAST_SAMPLES:
            run.note(f"{what}: time of {path.stem}", command=command[2:200], **heaviest(samples))
        path.unlink()
