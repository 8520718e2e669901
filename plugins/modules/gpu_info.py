#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Check a host's GPUs and driver and return a verdict
version_added: 0.1.0
description:
  - Reads the NVIDIA driver's versions (kernel module, libraries, what C(nvidia-smi) reports), the state of every GPU,
    the processes on them and the XIDs in the kernel log of the current boot.
  - Compares the number, kind and memory of the GPUs with those of the EC2 instance type.
  - Judges all of it. V(failed) means that the host must get no work, V(degraded) that it works but needs attention,
    V(ok) that nothing was found. Each finding says what was found, what was wanted and what to do.
  - Only reads. It never installs, resets, stops or changes anything.
notes:
  - The GPUs are queried with C(nvidia-smi --query-gpu), not with C(nvidia-smi -q -x). The field names are stable, a
    field that the installed version does not have is named in its error and returned as RV(driver.unknown_fields)
    instead of being absent silently, and a strange process name cannot break the answer.
  - A property that a GPU does not have (C([N/A])) is never a fault. A property that cannot be read is one.
  - Run it as root. Otherwise the kernel log and other users' processes may not be readable.
  - Memory without an owner is checked three times in two seconds before it is reported as orphaned, because an engine
    that is just exiting leaves such memory for a moment.
attributes:
  check_mode:
    description: Does the same in C(check_mode) as without.
    support: full
  diff_mode:
    description: There is nothing to show, because it never changes anything.
    support: none
options:
  accelerator:
    description:
      - The accelerator of this host's engines.
      - With V(cpu) nothing is checked and the verdict is V(ok).
    type: str
    choices: [cuda, cpu]
    default: cuda
  instance_type:
    description:
      - The EC2 instance type, which determines the expected GPUs.
      - Known are the sizes of g5, g6, g6e, g7e, p5, p5e and p5en. An unknown type makes the host V(degraded) unless
        O(expected_count) is set.
    type: str
  min_driver:
    description: The oldest driver that works with the engine's CUDA. CUDA 13 needs 580.
    type: str
    default: '580'
  expected_count:
    description: The expected number of GPUs, instead of that of O(instance_type).
    type: int
  expected_name:
    description: A part of each GPU's name, such as V(L40S), instead of that of O(instance_type).
    type: str
  expected_memory:
    description: The memory of each GPU in MiB as C(nvidia-smi) shows it, instead of that of O(instance_type).
    type: int
  allowed_units:
    description:
      - Patterns of the systemd units whose processes may hold memory on a GPU; by default those of every engine's
        instances.
    type: list
    elements: str
  orphan_mib:
    description: Memory in MiB that may be in use on a GPU without an owner.
    type: int
    default: 600
  ignored_xids:
    description: Known XIDs to ignore until the next boot clears them.
    type: list
    elements: int
    default: []
  fail_on:
    description: The mildest verdict with which the module fails. With V(never) it only reports.
    type: str
    choices: [never, failed, degraded]
    default: never
  nvidia_smi:
    description: Name or path of the program.
    type: str
    default: nvidia-smi
  proc_root:
    description: Where procfs is mounted.
    type: path
    default: /proc
  sys_root:
    description: Where sysfs is mounted.
    type: path
    default: /sys
  library_dirs:
    description: The directories of the driver's libraries. Empty uses the dynamic linker's cache.
    type: list
    elements: path
    default: []
  kernel_log:
    description: A file to read the kernel log from, instead of the journal or C(dmesg).
    type: path
  timeout:
    description: Seconds that one program may take. With a broken GPU C(nvidia-smi) can hang for ever.
    type: int
    default: 60
author:
  - inference.fleet contributors (@inference-fleet)
"""

EXAMPLES = r"""
- name: Check the GPUs of a g6e.12xlarge
  inference.fleet.gpu_info:
    instance_type: g6e.12xlarge
  register: gpu

- name: Fail unless everything is well
  inference.fleet.gpu_info:
    instance_type: "{{ fleet_instance_type }}"
    fail_on: degraded

- name: Check a host outside EC2
  inference.fleet.gpu_info:
    expected_count: 2
    expected_name: H200
    expected_memory: 143771
"""

RETURN = r"""
verdict:
  description: V(ok), V(degraded) or V(failed).
  returned: always
  type: str
  sample: failed
summary:
  description: One line about the host.
  returned: always
  type: str
  sample: "failed: 3 x NVIDIA L40S, driver 595.71.05 (gpu_count: found 3 GPUs; wanted 4 GPUs (g6e.12xlarge))"
gpu_summary:
  description: The GPUs in a few words.
  returned: always
  type: str
  sample: 4 x NVIDIA L40S
gravest:
  description: The gravest reason without its advice, or empty.
  returned: always
  type: str
report:
  description: All reasons as lines for a person, gravest first.
  returned: always
  type: list
  elements: str
reasons:
  description: What was found, gravest first.
  returned: always
  type: list
  elements: dict
  contains:
    severity:
      description: V(failed) and V(degraded) decide the verdict, V(note) only explains.
      type: str
    check:
      description: Short name of the check.
      type: str
      sample: gpu_count
    gpu:
      description: Index of the GPU, or null.
      type: int
    found:
      description: What was found.
      type: str
    wanted:
      description: What was wanted.
      type: str
    advice:
      description: What to do.
      type: str
driver:
  description: The driver. Versions are null where they are not known.
  returned: when O(accelerator=cuda)
  type: dict
  contains:
    nvidia_smi:
      description: Path of the program, or null.
      type: str
    loaded:
      description: Whether the kernel module is loaded.
      type: bool
    version:
      description: The version that the driver reports.
      type: str
      sample: 595.71.05
    module_version:
      description: Version of the loaded kernel module.
      type: str
    library_version:
      description: Version of libnvidia-ml on disk.
      type: str
    cuda_library:
      description: Where libcuda was found, or null.
      type: str
    cuda_version:
      description: Newest CUDA that the driver's libcuda offers.
      type: str
      sample: '13.2'
    failure:
      description: Why nvidia-smi did not answer, or null.
      type: str
      sample: mismatch
    message:
      description: Further output of nvidia-smi.
      type: str
    notices:
      description: The same, line by line.
      type: list
      elements: str
    nouveau:
      description: Whether the kernel runs nouveau.
      type: bool
    unknown_fields:
      description: Properties that this version of nvidia-smi does not have.
      type: list
      elements: str
gpus:
  description:
    - The GPUs. A property that does not apply is null, one that could not be read is null and named in C(errors).
  returned: when O(accelerator=cuda)
  type: list
  elements: dict
  sample:
    - index: 0
      name: NVIDIA L40S
      bus_id: "00000000:30:00.0"
      memory_total_mib: 46068
      memory_used_mib: 0
      compute_cap: "8.9"
      ecc_uncorrected_volatile: 0
      remapped_rows_pending: false
      recovery_action: None
      pcie_width: 16
      pcie_width_max: 16
      temperature_c: 31
      clocks_event_reasons: 1
processes:
  description: The processes on the GPUs.
  returned: when O(accelerator=cuda)
  type: list
  elements: dict
  sample:
    - pid: 4242
      name: VLLM::EngineCore
      user: inference
      unit: vllm@0.service
      alive: true
      used_mib: 41020
      gpu_uuid: GPU-11111111-2222-3333-4444-555555555555
holders:
  description: Processes that have a GPU open. Only determined where memory has no owner.
  returned: when O(accelerator=cuda)
  type: list
  elements: dict
xids:
  description: The XIDs of this boot, or null where the kernel log could not be read.
  returned: when O(accelerator=cuda)
  type: list
  elements: dict
  sample:
    - xid: 79
      bus_id: "0000:30:00"
      count: 1
      first: 2026-11-22T10:00:00+0000
      last: 2026-11-22T10:00:00+0000
      message: GPU has fallen off the bus.
expected:
  description: The GPUs to compare with, and where that comes from.
  returned: when O(accelerator=cuda)
  type: dict
"""

import dataclasses
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, units
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import expected_hardware
from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import Sources, observe
from ansible_collections.inference.fleet.plugins.module_utils.gpu.reason import Wanted
from ansible_collections.inference.fleet.plugins.module_utils.gpu.verdict import describe_gpus, judge, summarise

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "accelerator": {"type": "str", "choices": ["cuda", "cpu"], "default": "cuda"},
    "instance_type": {"type": "str"},
    "min_driver": {"type": "str", "default": "580"},
    "expected_count": {"type": "int"},
    "expected_name": {"type": "str"},
    "expected_memory": {"type": "int"},
    "allowed_units": {"type": "list", "elements": "str"},
    "orphan_mib": {"type": "int", "default": 600},
    "ignored_xids": {"type": "list", "elements": "int", "default": []},
    "fail_on": {"type": "str", "choices": ["never", "failed", "degraded"], "default": "never"},
    "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
    "proc_root": {"type": "path", "default": "/proc"},
    "sys_root": {"type": "path", "default": "/sys"},
    "library_dirs": {"type": "list", "elements": "path", "default": []},
    "kernel_log": {"type": "path"},
    "timeout": {"type": "int", "default": 60},
}
_FATAL = {"never": (), "failed": ("failed",), "degraded": ("failed", "degraded")}


def look(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Check this host and judge it; return the module's result."""
    if params["accelerator"] == "cpu":
        summary = "ok: the accelerator is cpu, so no GPU is needed and none was looked at"
        return {
            "verdict": "ok",
            "summary": summary,
            "gpu_summary": "not needed (cpu)",
            "gravest": "",
            "report": [],
            "reasons": [],
        }
    if not re.match(r"^\d+(\.\d+)*$", params["min_driver"]):
        raise FleetError(
            f"min_driver is {params['min_driver']!r}, which is no driver version. "
            "Give digits and dots, such as 580 or 580.65.06."
        )
    wanted = Wanted(
        min_driver=params["min_driver"],
        hardware=expected_hardware(
            params["instance_type"], params["expected_count"], params["expected_name"], params["expected_memory"]
        ),
        allowed_units=tuple(units(ENGINES) if params["allowed_units"] is None else params["allowed_units"]),
        ignored_xids=frozenset(params["ignored_xids"]),
        orphan_mib=params["orphan_mib"],
    )
    sources = Sources(
        nvidia_smi=params["nvidia_smi"],
        proc=params["proc_root"],
        sys=params["sys_root"],
        library_dirs=tuple(params["library_dirs"]),
        kernel_log=params["kernel_log"] or "",
        timeout=params["timeout"],
    )
    seen = observe(sources, wanted.orphan_mib)
    verdict, reasons = judge(seen, wanted)
    return {
        "verdict": verdict,
        "summary": summarise(verdict, seen, reasons),
        "gpu_summary": describe_gpus(seen),
        "gravest": reasons[0].headline() if reasons else "",
        "report": [reason.text() for reason in reasons],
        "reasons": [dataclasses.asdict(reason) for reason in reasons],
        "expected": dataclasses.asdict(wanted.hardware),
        **dataclasses.asdict(seen),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = look(module.params)
    except FleetError as error:
        module.fail_json(msg=error.message, **error.details)
    if result["verdict"] in _FATAL[module.params["fail_on"]]:
        module.fail_json(msg="\n".join([result["summary"], *result["report"]]), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
