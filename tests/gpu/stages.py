"""What the time of a start goes to, from the lines of the engine's journal."""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

#: Lines of a journal with their times.
Lines = t.Sequence[tuple[float, str]]


@dataclasses.dataclass(frozen=True)
class Mark:
    """A line that an engine writes at the end of a stage.

    Attributes:
        stage: what it ends.
        pattern: of the line.
        last: whether the last such line ends it; else the first.
        took: whether the line itself says how long that took, because it goes on beside other stages.
    """

    stage: str
    pattern: str
    last: bool = False
    took: bool = False


#: In the order in which an engine goes through them.
MARKS: dict[str, tuple[Mark, ...]] = {
    "vllm": (
        Mark("imports, arguments", r"non-default args:|█ +version "),
        Mark("model's configuration", r"Using max model len \d"),
        Mark("core: process, imports", r"^\(EngineCore pid=\d+\) \S+ \d\d-\d\d "),
        Mark("core: device", r"Loading model from scratch|Starting to load model "),
        Mark("core: weights", r"Model loading took ", last=True),
        Mark("core: compile", r"torch\.compile took |Directly load (?:AOT|the compiled graph)", last=True),
        Mark("core: memory", r" KV cache size: [\d,]+ tokens", last=True),
        Mark("core: CUDA graphs", r"Graph capturing finished in ", last=True),
        Mark("core: kernels", r"Kernel JIT monitor activated|init engine \(profile, create kv cache", last=True),
        Mark("core: scheduler", r"Supported tasks: "),
        Mark("pictures", r"[Mm]ulti-modal warmup completed in (?P<took>[\d.]+)s", took=True),
        Mark("server", r"Application startup complete\."),
    ),
    "sglang": (
        Mark("imports, arguments", r"^\[\d{4}-\d\d-\d\d [\d:]+\] "),
        Mark("tokenizer, pictures", r"Using default HuggingFace chat template|Multimodal processor concurrency"),
        Mark("scheduler: process, imports", r"Init (?:parallel|torch distributed) begin\."),
        Mark("scheduler: device", r"Load weight begin\."),
        Mark("scheduler: weights", r"Load weight end\.", last=True),
        Mark("scheduler: memory", r"Memory pool end\.|KV pool holds \d+ tokens", last=True),
        Mark("scheduler: CUDA graphs", r"Capture (?:\w+ )+[A-Za-z]+ graph end\.", last=True),
        Mark("server", r"Application startup complete\."),
        Mark("own question", r"The server is fired up and ready to roll!"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Stages:
    """A start, split.

    Attributes:
        seconds: of the whole start.
        parts: seconds of each stage, one after the other; their sum is ``seconds``.
        beside: seconds of what goes on beside them.
    """

    seconds: float
    parts: dict[str, float]
    beside: dict[str, float]

    def __str__(self) -> str:
        parts = [f"{stage} {took:.1f}" for stage, took in self.parts.items() if took >= 0.05]
        aside = [f"; beside that {stage} {took:.1f}" for stage, took in self.beside.items()]
        return " + ".join(parts) + "".join(aside)

    def as_dict(self) -> dict[str, t.Any]:
        """Rounded, for a result."""
        tenths = [{name: round(took, 1) for name, took in each.items()} for each in (self.parts, self.beside)]
        return {"seconds": round(self.seconds, 1), "parts": tenths[0], "beside": tenths[1]}


def split(lines: Lines, engine: str, began: float, ended: float) -> Stages:
    """Split a start into what the engine's journal tells apart.

    Args:
        lines: of the journal, oldest first.
        engine: whose start it is.
        began: when the unit was started.
        ended: when it served.
    """
    found: dict[str, float] = {}
    beside: dict[str, float] = {}
    for at, text in lines:
        if not began <= at <= ended:
            continue
        for mark in MARKS[engine]:
            match = re.search(mark.pattern, text)
            if not match:
                continue
            if mark.took:
                beside[mark.stage] = beside.get(mark.stage, 0.0) + float(match["took"])
            elif mark.last or mark.stage not in found:
                found[mark.stage] = at
    parts = {}
    before = began
    for stage, at in sorted(found.items(), key=lambda item: item[1]):
        parts[stage] = at - before
        before = at
    parts["answers /health"] = ended - before
    return Stages(ended - began, parts, beside)


def journal_lines(text: str) -> list[tuple[float, str]]:
    """The lines of ``journalctl --output json`` with their times."""
    lines = []
    for line in text.splitlines():
        entry = json.loads(line)
        message = entry.get("MESSAGE") or ""
        # Bytes, where they are no text or have control characters.
        said = bytes(message).decode(errors="replace") if isinstance(message, list) else message
        lines.append((int(entry["__REALTIME_TIMESTAMP"]) / 1e6, said))
    return lines


_IMPORT = re.compile(r"import time: +(?P<own>\d+) \| +\d+ \| *(?P<module>[\w.]+)")


def import_seconds(lines: Lines, most: int = 25) -> dict[str, float]:
    """Seconds that each package's own modules took, by ``-X importtime``; the heaviest first, of all processes.

    Args:
        lines: of a journal.
        most: packages.
    """
    taken: dict[str, float] = {}
    for _at, text in lines:
        found = _IMPORT.search(text)
        if found:
            package = found["module"].partition(".")[0]
            taken[package] = taken.get(package, 0.0) + int(found["own"]) / 1e6
    return dict(sorted(((name, round(took, 2)) for name, took in taken.items()), key=lambda item: -item[1])[:most])


def heaviest(samples: t.Iterable[str], most: int = 25) -> dict[str, dict[str, float]]:
    """Where a process spent its time, from samples of its stack.

    Args:
        samples: lines of tests/gpu/sampling: a time, and the frames from the outermost to the innermost.
        most: rows of each table.

    Returns:
        Seconds by the innermost frame, by its package, and of whole imports by module.
    """
    tables: dict[str, dict[str, float]] = {"function": {}, "package": {}, "import": {}}
    pieces = [line.strip().partition(" ") for line in samples]
    times = [float(at) for at, _space, _stack in pieces]
    for (_at, _space, stack), before, at in zip(pieces[1:], times, times[1:]):
        frames = stack.split(";")
        # A call into a library may hold the interpreter's lock for long; the next sample then stands for all of it.
        took = at - before
        for table, names in (
            ("function", {frames[-1]}),
            ("package", {frames[-1].partition(":")[0].partition(".")[0]}),
            ("import", {name.partition(":")[0] for name in frames if name.endswith(":<module>")}),
        ):
            for name in names:
                tables[table][name] = tables[table].get(name, 0.0) + took
    return {
        table: dict(sorted(((name, round(took, 2)) for name, took in rows.items()), key=lambda item: -item[1])[:most])
        for table, rows in tables.items()
    }
