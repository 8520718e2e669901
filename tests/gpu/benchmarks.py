"""What benchmark.yml would measure of a host, with its client and its scenarios, on a machine without Ansible.

``benchmark:HOST`` writes a record as benchmark.yml keeps it; ``python -m tests.gpu.benchmarks RECORD... > PAGE`` makes
the page of some of them.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import typing as t
from pathlib import Path

from tests.gpu.hosts import ROOT, Host
from tests.gpu.runs import Instance, Run, rows, serve

#: A load for the stand-in.
QUICK = {"scenarios": ["at_1", "picture"], "requests": 1, "prompt_tokens": 12, "output_tokens": 4, "repeats": 1}
#: Seconds for one repeat of a scenario.
PATIENCE = 240.0
Record = dict[str, t.Any]


def benchmark(run: Run, name: str) -> None:
    """One host with one instance: every scenario that fits, and the record."""

    def write_record(host: Host, instance: Instance) -> None:
        record = measure(run, name, host, instance)
        (run.out / f"record-{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    serve(run, name, write_record)


def measure(run: Run, name: str, host: Host, instance: Instance) -> Record:
    """Measure the scenarios as role benchmark does, and note each as soon as it is known."""
    from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import scenarios

    checked = host.module("benchmark_client", state="checked", instances=[dict(instance)])
    run.note(f"{name}: checked", problems=checked.get("problems", checked.get("msg")))
    served = checked["instances"][instance["name"]]
    settings = scenarios.read_settings(QUICK if run.quick else {})
    plan = scenarios.plan(settings, int(served["context"]), pictures=True, live=False)
    began = time.gmtime()
    number = time.strftime("%Y%m%dT%H%M%SZ", began)
    measured: dict[str, t.Any] = {}
    for load in plan.scenarios:
        result = host.module(
            "benchmark_client",
            state="measured",
            client=str(run.client),
            url=f"http://127.0.0.1:{instance['engine_port']}",
            model=served["served_name"],
            # The stand-in has none.
            tokenizer=str(ROOT / "lab/model/tiny") if run.quick else served["tokenizer"],
            gpus=instance["gpus"],
            run=number,
            scenario=dataclasses.asdict(load),
            repeats=settings.repeats,
            timeout=PATIENCE,
        )
        failed: Record = {"scenario": dataclasses.asdict(load), "repeats": [], "problem": result.get("msg")}
        found = measured[load.name] = result.get("measured") or failed
        run.note(f"{name}: {load.name}", **found)
    return {
        "schema": 1,
        "id": number,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", began),
        "host": name,
        "instance": instance["name"],
        **{key: served[key] for key in ("engine", "version", "model", "revision", "release", "context")},
        "profile": name.partition("-")[2],
        "hardware": ", ".join(sorted({row[0] for row in rows("--query-gpu=name")})),
        "gpus": instance["gpus"],
        "live": False,
        "usd_per_hour": None,
        "price_of": "",
        "price_problem": "no price: the machine is lent",
        "left_out": plan.left_out,
        "measured": measured,
    }


def main(paths: t.Sequence[str]) -> None:
    """Print the page of some records."""
    from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.page import render_page

    records: list[Record] = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    print(render_page(records[0]["id"], records[0]["at"], records, [None for _record in records]))


if __name__ == "__main__":
    main(sys.argv[1:])
