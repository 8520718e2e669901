from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import (
    Hardware,
    alternatives,
    expected_hardware,
    hardware_of,
    is_named,
)


@pytest.mark.parametrize(
    ("instance_type", "count", "name", "memory_mib"),
    [
        ("g6e.xlarge", 1, "L40S", 46068),
        ("g6e.2xlarge", 1, "L40S", 46068),
        ("g6e.4xlarge", 1, "L40S", 46068),
        ("g6e.8xlarge", 1, "L40S", 46068),
        ("g6e.16xlarge", 1, "L40S", 46068),
        ("g6e.12xlarge", 4, "L40S", 46068),
        ("g6e.24xlarge", 4, "L40S", 46068),
        ("g6e.48xlarge", 8, "L40S", 46068),
        ("g6.xlarge", 1, "L4", 23034),
        ("g6.12xlarge", 4, "L4", 23034),
        ("g6.48xlarge", 8, "L4", 23034),
        ("g5.xlarge", 1, "A10G", 23028),
        ("g5.12xlarge", 4, "A10G", 23028),
        ("g5.48xlarge", 8, "A10G", 23028),
        ("g7e.2xlarge", 1, "RTX PRO 6000", 97887),
        ("g7e.12xlarge", 2, "RTX PRO 6000", 97887),
        ("g7e.48xlarge", 8, "RTX PRO 6000", 97887),
        ("p5.4xlarge", 1, "H100", 81559),
        ("p5.48xlarge", 8, "H100", 81559),
        ("p5en.48xlarge", 8, "H200", 143771),
    ],
)
def test_the_table(instance_type: str, count: int, name: str, memory_mib: int) -> None:
    assert hardware_of(instance_type) == Hardware(count, name, memory_mib, instance_type)


@pytest.mark.parametrize("instance_type", ["m7i.large", "g6e", "g6e.metal", "g7e.xlarge", ""])
def test_what_is_not_in_the_table_is_not_guessed(instance_type: str) -> None:
    assert hardware_of(instance_type) is None


@pytest.mark.parametrize(
    ("expected", "reported", "same"),
    [
        ("L40S", "NVIDIA L40S", True),
        ("L4", "NVIDIA L4", True),
        ("L4", "NVIDIA L40S", False),
        ("L40S", "NVIDIA L4", False),
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("RTX PRO 6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", True),
        ("a10g", "NVIDIA A10G", True),
        ("A10G", "", False),
    ],
)
def test_names_are_compared_by_word(expected: str, reported: str, same: bool) -> None:
    assert is_named(expected, reported) is same


def test_what_is_set_for_a_host_wins_over_its_type() -> None:
    assert expected_hardware("g6e.12xlarge", count=2) == Hardware(
        2, "L40S", 46068, "g6e.12xlarge, with values set for this host"
    )
    assert expected_hardware(None, count=2, name="H200") == Hardware(2, "H200", None, "with values set for this host")


def test_zero_and_empty_mean_not_set() -> None:
    assert expected_hardware("g6e.12xlarge", count=0, name="", memory_mib=0) == hardware_of("g6e.12xlarge")
    assert expected_hardware("m7i.large") == Hardware(source="m7i.large")
    assert expected_hardware(None) == Hardware()


@pytest.mark.parametrize(
    ("instance_type", "count", "others"),
    [
        ("g6e.12xlarge", 1, ["g6e.xlarge", "g6e.2xlarge", "g6e.4xlarge", "g6e.8xlarge", "g6e.16xlarge"]),
        ("g7e.48xlarge", 2, ["g7e.12xlarge"]),
        ("p5en.48xlarge", 1, []),
        ("p4d.24xlarge", 1, []),
        ("", 1, []),
    ],
)
def test_types_of_the_same_gpu_in_another_number(instance_type: str, count: int, others: list[str]) -> None:
    assert alternatives(instance_type, count) == others
