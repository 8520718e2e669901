"""The status page's questions to a real Prometheus, whose history promtool makes from expositions with timestamps."""

from __future__ import annotations

import subprocess
import time
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure
from ansible_collections.inference.fleet.plugins.plugin_utils.status import history
from ansible_collections.inference.fleet.plugins.plugin_utils.status.history import History
from ansible_collections.inference.fleet.plugins.plugin_utils.status.prometheus import read_history

from tests.debian import program
from tests.integration.edge.conftest import eventually, free_port

STEP = 15
SECONDS = 3600
#: In the past: blocks that end now would still be written to.
END = float(int(time.time()) // 60 * 60 - 7200)

Values = t.Callable[[int], float]


def family(name: str, kind: str, *series: tuple[str, Values]) -> str:
    """A metric family with a sample each STEP."""
    lines = [f"# TYPE {name.removesuffix('_total') if kind == 'counter' else name} {kind}"]
    for labels, value in series:
        lines += [
            f"{labels} {value(number):g} {END - SECONDS - 600 + number * STEP:.0f}"
            for number in range((SECONDS + 600) // STEP + 1)
        ]
    return "\n".join(lines) + "\n"


def growing(a_second: float) -> Values:
    return lambda number: a_second * STEP * number


def exposition() -> str:
    vllm = 'engine="0",model_name="m",host="gpu-1",tier="front"'
    sglang = [f'engine_type="unified",model_name="m",host="gpu-2",tp_rank="{rank}"' for rank in (0, 1)]
    front = 'host="gw-1",tier="front",proxy="instances_4000"'
    behind = 'host="gpu-1",tier="engine",proxy="instances_8000"'
    answers, aborts = "haproxy_backend_http_responses_total", "haproxy_backend_server_aborts_total"
    first = "vllm:time_to_first_token_seconds"
    buckets = [("0.1", 5.0), ("1.0", 10.0), ("+Inf", 10.0)]
    return "".join(
        [
            family("vllm:num_requests_running", "gauge", (f"vllm:num_requests_running{{{vllm}}}", lambda _n: 3)),
            family("vllm:num_requests_waiting", "gauge", (f"vllm:num_requests_waiting{{{vllm}}}", lambda _n: 1)),
            # Two ranks of one instance, and a priority that repeats the total.
            family(
                "sglang:num_running_reqs",
                "gauge",
                *((f'sglang:num_running_reqs{{{one},priority=""}}', lambda _n: 4.0) for one in sglang),
                (f'sglang:num_running_reqs{{{sglang[0]},priority="1"}}', lambda _n: 4),
            ),
            family(
                "vllm:generation_tokens_total",
                "counter",
                (f"vllm:generation_tokens_total{{{vllm}}}", growing(200)),
            ),
            family(
                "sglang:realtime_tokens_total",
                "counter",
                (f'sglang:realtime_tokens_total{{{sglang[0]},mode="decode"}}', growing(50)),
                (f'sglang:realtime_tokens_total{{{sglang[0]},mode="prefill_compute"}}', growing(900)),
            ),
            family(
                first,
                "histogram",
                *((f'{first}_bucket{{{vllm},le="{bound}"}}', growing(rate)) for bound, rate in buckets),
                (f"{first}_count{{{vllm}}}", growing(10)),
                (f"{first}_sum{{{vllm}}}", growing(2)),
            ),
            family(
                answers,
                "counter",
                (f'{answers}{{{front},code="2xx"}}', growing(9)),
                (f'{answers}{{{front},code="5xx"}}', growing(1)),
                (f'{answers}{{{behind},code="2xx"}}', growing(70)),
            ),
            family(aborts, "counter", (f"{aborts}{{{front}}}", growing(1)), (f"{aborts}{{{behind}}}", growing(5))),
            "# EOF\n",
        ]
    )


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    place = tmp_path_factory.mktemp("prometheus")
    (place / "metrics.txt").write_text(exposition())
    (place / "prometheus.yml").write_text("global: {}\n")
    made = [
        program("promtool"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        str(place / "metrics.txt"),
        str(place / "data"),
    ]
    subprocess.run(made, check=True, capture_output=True)
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={place}/prometheus.yml",
        f"--storage.tsdb.path={place}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (place / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: is_ready(url), 30)
            yield url
        finally:
            process.terminate()


def is_ready(url: str) -> bool:
    try:
        return HttpClient(url, timeout=2).get("/-/ready").status == 200
    except HttpFailure:
        return False


@pytest.fixture(scope="module")
def found(prometheus: str) -> History:
    return read_history(prometheus, END, SECONDS)


def test_every_question_is_understood_and_answered(found: History) -> None:
    assert found.problem == ""
    silent = {(query.chart, query.label) for query, points in found.found.items() if not points}
    # The stand-in of the second engine has no such metrics.
    assert silent == {("first_token", "SGLang p50"), ("first_token", "SGLang p95")}


@pytest.mark.parametrize(
    ("chart", "label", "value"),
    [
        ("load", "running", 7.0),
        ("load", "waiting", 1.0),
        ("requests", "all", 10.0),
        ("errors", "share", 0.2),
        ("first_token", "vLLM p50", 0.1),
        ("first_token", "vLLM p95", 0.91),
        ("tokens", "vLLM", 200.0),
        ("tokens", "SGLang", 50.0),
    ],
)
def test_the_answers_are_what_the_engines_and_edges_did(found: History, chart: str, label: str, value: float) -> None:
    (points,) = [points for query, points in found.found.items() if (query.chart, query.label) == (chart, label)]
    assert len(points) > 100
    assert points[-1][1] == pytest.approx(value, rel=0.01)


def test_they_are_drawn(found: History) -> None:
    charts = history.draw_charts(found.found, found.span)
    assert [chart.title for chart in charts] == [kind.title for kind in history.CHARTS.values()]


def test_a_time_without_samples_is_said(prometheus: str) -> None:
    empty = read_history(prometheus, END - 40 * 86400, SECONDS)
    assert empty.problem == f"Prometheus at {prometheus} has no metric of the fleet."
