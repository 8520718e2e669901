"""What of a file is in memory is what the kernel says, and reading brings in the rest."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import page_cache

from tests.page_cache import drop

SIZE = 3 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of which nothing is in memory."""
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(SIZE - 100))
    drop(path)
    return path


def test_a_file_that_was_dropped_is_not_in_memory(file: Path) -> None:
    assert page_cache.bytes_in_memory(str(file)) == 0


def test_a_file_that_was_read_is_in_memory(file: Path) -> None:
    assert page_cache.read_file(str(file), time.monotonic() + 60) == SIZE - 100
    assert page_cache.bytes_in_memory(str(file)) == SIZE - 100


def test_pages_that_a_program_read_count(file: Path) -> None:
    with file.open("rb", buffering=0) as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        opened.seek(1 << 20)
        opened.read(8192)
    assert page_cache.bytes_in_memory(str(file)) == 8192


def test_an_empty_file_has_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert page_cache.bytes_in_memory(str(tmp_path / "empty")) == 0
    assert page_cache.read_file(str(tmp_path / "empty"), time.monotonic() + 60) == 0


def test_reading_ends_when_its_time_is_over(file: Path) -> None:
    assert page_cache.read_file(str(file), time.monotonic()) == 0
    assert page_cache.bytes_in_memory(str(file)) == 0


def test_the_memory_for_programs_is_what_the_kernel_says() -> None:
    lines = ["MemTotal:       32000 kB\n", "MemFree:         1000 kB\n", "MemAvailable:   20000 kB\n"]
    assert page_cache.available_memory(lines) == 20000 * 1024
    assert page_cache.available_memory(lines[:2]) == 0
