"""What was recorded on a machine with two H200."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from tests.gpu.topology import links
from tests.unit.plugins.module_utils.gpu.nvidia_hosts import fake_nvidia_smi

RECORDED = Path(__file__).parents[1] / "fixtures/nvidia/two-h200"
#: The same with a path over PCIe; not recorded.
WITHOUT_NVLINK = (
    "\t\x1b[4mGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNODE\t0-47\t0\t\tN/A\nGPU1\tNODE\t X \t0-47\t0\t\tN/A\n\nLegend:\n\n  X    = Self\n"
)


def test_two_h200_are_linked_by_nvlink() -> None:
    assert links((RECORDED / "topology.txt").read_text()) == {"GPU0-GPU1": "NV18"}


def test_a_path_over_pcie_is_no_nvlink() -> None:
    assert links(WITHOUT_NVLINK) == {"GPU0-GPU1": "NODE"}
    assert links("") == {}


def test_each_h200_reaches_the_other_in_its_memory() -> None:
    for name in ("peers_read.txt", "peers_nvlink.txt"):
        assert links((RECORDED / name).read_text()) == {"GPU0-GPU1": "OK"}
    assert (RECORDED / "nvlink.txt").read_text().count("26.562 GB/s") == 2 * 18


def test_the_stand_in_has_the_gpus_that_were_recorded() -> None:
    found = ET.parse(RECORDED / "query.xml").getroot().findall("gpu")  # noqa: S314 - a file of this repository
    recorded = [
        tuple(gpu.findtext(path) for path in ("uuid", "pci/pci_bus_id", "product_name", "fb_memory_usage/total"))
        for gpu in found
    ]
    shown = fake_nvidia_smi("two_h200", "--query-gpu=uuid,pci.bus_id,name,memory.total", "--format=csv,noheader")
    assert [tuple(line.split(", ")) for line in shown.splitlines()] == recorded
    assert fake_nvidia_smi("two_h200", "topo", "-m") == (RECORDED / "topology.txt").read_text()
