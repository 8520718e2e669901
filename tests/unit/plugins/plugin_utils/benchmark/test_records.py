from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import records

from tests.unit.plugins.plugin_utils.benchmark.benchmarks import record


def run(number: int) -> str:
    return f"20261130T10000{number}Z"


def test_the_previous_run_is_of_the_same_kind(tmp_path: Path) -> None:
    for changes in ({}, {"profile": "throughput"}, {"live": True}, {"version": "0.33.0"}, {"host": "gpu-2"}):
        assert records.previous(str(tmp_path), record(id=run(2), **changes)) is None
        records.write(str(tmp_path), record(id=run(1), **changes), 10)
    for changes in ({}, {"profile": "throughput"}, {"live": True}, {"version": "0.33.0"}, {"host": "gpu-2"}):
        found = records.previous(str(tmp_path), record(id=run(2), **changes))
        assert found == record(id=run(1), **changes)


def test_a_record_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    records.write(str(tmp_path), record(id=run(1)), 10)
    Path(records.write(str(tmp_path), record(id=run(2)), 10)).write_text("{")
    found = records.previous(str(tmp_path), record(id=run(3)))
    assert found is not None
    assert found["id"] == run(1)


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    paths = [Path(records.write(str(tmp_path), record(id=run(number)), 3)) for number in range(5)]
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    pages = [Path(records.write_page(str(tmp_path), run(number), "<p>", 2)) for number in range(3)]
    assert [path.exists() for path in pages] == [False, True, True]
    assert oct(pages[2].stat().st_mode)[-3:] == oct(paths[4].stat().st_mode)[-3:] == "600"


def test_names_of_any_kind_stay_below_the_records(tmp_path: Path) -> None:
    path = records.write(str(tmp_path), record(host="../../x", model="../a b", version="1/2"), 3)
    assert Path(path).resolve().is_relative_to(tmp_path)


def test_a_row_gets_the_price_of_what_it_names(tmp_path: Path) -> None:
    place = str(tmp_path)
    records.write(place, record(id=run(1), release="vllm-aaa"), 10)
    records.write(place, record(id=run(2), release="vllm-bbb", usd_per_hour=3.6), 10)
    records.write(place, record(id=run(3), version="0.33.0", release="vllm-ccc", usd_per_hour=18.0), 10)
    records.write(place, record(id=run(4), host="gpu-3", live=True, release="vllm-ddd"), 10)

    def price(**row: object) -> object:
        [found] = records.benchmarked_rows([row], place)
        assert {name: value for name, value in found.items() if name != "usd_per_million"} == row
        return found.get("usd_per_million")

    # What runs: the last run of a kind counts, if it was of this release.
    assert price(host="gpu-1", instance=0, version="0.32.0", release="bbb") == "1.00"
    assert price(host="gpu-1", instance=0, version="0.33.0", release="ccc") == "5.00"
    assert price(host="gpu-1", instance=0, version="0.32.0", release="aaa") is None
    # What would run.
    assert price(host="gpu-1", instance="vllm-0", version="0.32.0", profile="balanced") == "1.00"
    assert price(host="gpu-1", instance="vllm-0", version="0.32.0", profile="throughput") is None
    assert price(host="gpu-1", instance="vllm-0", version="0.32.0") is None
    assert price(host="gpu-9", version="0.32.0", release="bbb") is None
    assert price(host="gpu-1", edge="UNREACHABLE") is None
    # Beside clients' requests nothing has a price.
    assert price(host="gpu-3", version="0.32.0", release="ddd") is None
    assert records.benchmarked_rows([{"host": "gpu-1"}], str(tmp_path / "none")) == [{"host": "gpu-1"}]


def test_there_is_room_for_records(tmp_path: Path) -> None:
    records.check_room(str(tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_place_where_none_can_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FleetError, match=r"Nothing was touched: the results cannot be written to .*benchmark_records"):
        records.check_room(str(tmp_path / "file"))
    monkeypatch.setattr(records, "ROOM_BYTES", 2**60)
    with pytest.raises(FleetError, match=r"MiB free, and results need .*Free the disk"):
        records.check_room(str(tmp_path))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_arguments: object) -> object:
        return open("/dev/full", "wb")

    monkeypatch.setattr(records.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(FleetError, match="No space left"):
        records.check_room(str(tmp_path))
