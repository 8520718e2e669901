from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.prices.advice import advice
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.hourly import Cost
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.table import load

PRICES = load()["us-east-1"].prices
ONE_EACH = [{"name": f"vllm-{index}", "gpus": [index]} for index in range(4)]
TOGETHER = [{"name": "vllm-0", "gpus": [0, 1, 2, 3]}]
FIGURES = (
    "g6e.12xlarge costs 10.493 $/h. 4 x g6e.xlarge have as many of these GPUs for 7.444 $/h, 29 % less (us-east-1, "
    "2026-07-20)."
)


def cost(host: str = "gpu-1", kind: str = "g6e.12xlarge", single: str = "g6e.xlarge", gpus: int = 4) -> Cost:
    return Cost(
        host,
        kind,
        gpus,
        usd=PRICES[kind],
        source="us-east-1, 2026-07-20",
        single=single,
        single_usd=PRICES.get(single),
    )


def test_four_hosts_of_one_gpu_cost_less_and_can_serve_the_same() -> None:
    assert advice([cost("gpu-1"), cost("gpu-2")], {"gpu-1": ONE_EACH, "gpu-2": ONE_EACH}) == [
        f"gpu-1, gpu-2: {FIGURES} They can serve the same, because each instance here has one GPU, without tensor "
        "parallelism. First compare CPU, memory, disk and network of both types."
    ]


def test_an_instance_that_needs_several_gpus_is_named() -> None:
    lines = advice([cost("gpu-1"), cost("gpu-2")], {"gpu-1": TOGETHER, "gpu-2": ONE_EACH})
    assert lines[0] == (
        f"gpu-1: {FIGURES} That is for instances of one GPU, without tensor parallelism; here vllm-0 has 4 GPUs."
    )
    assert lines[1].startswith(f"gpu-2: {FIGURES} They can serve the same")
    spans: t.Any = [{"name": "vllm-0", "gpus": [0], "span": {"rank": 0}}]
    assert advice([cost()], {"gpu-1": spans})[0].endswith("here vllm-0 spans hosts.")


def test_nothing_is_said_where_nothing_is_saved_or_known() -> None:
    # Eight p5.4xlarge cost exactly what one p5.48xlarge does.
    assert advice([cost(kind="p5.48xlarge", single="p5.4xlarge", gpus=8)], {}) == []
    assert advice([cost(kind="g6e.xlarge", gpus=1)], {}) == []
    assert advice([cost(kind="p4d.24xlarge", single="", gpus=8)], {}) == []
    assert advice([Cost("gpu-1", "g6e.12xlarge", 4, single="g6e.xlarge", single_usd=1.861)], {}) == []
