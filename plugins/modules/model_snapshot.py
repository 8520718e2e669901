# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a model's weights on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_snapshot
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Keep a complete, self-restoring copy of a model's weights on a host
description:
  - Determines the files of a revision, fetches those that are not on the host's fast disk, verifies them, and only then
    gives the directory its name. A directory with that name is a complete model.
  - A revision that is a branch, or empty, is resolved once and recorded on the host. Later runs keep it, without asking
    the source, until O(update=true).
  - The download runs in the unit C(inference-model@<slug>.service). It continues when the connection to the host is
    lost; the next run waits for it. Files that an interrupted download has fetched are not fetched again.
  - Installs C(inference-models.service), which restores the weights without Ansible after the disk was emptied, as the
    stop and start of an EC2 instance does. Units of engines name it in C(Wants=) or C(Requires=), and in C(After=).
  - Unused snapshots are removed beyond O(keep).
requirements:
  - systemd on the host
attributes:
  check_mode:
    support: full
    description: Says what would be fetched and how many GiB. Asks the source where nothing is recorded yet. What an S3
      bucket has is only known once the download tool is on the host.
  diff_mode:
    support: full
    description: Shows source, revision, path and size before and after.
options:
  name:
    description: The model's name, as on a hub.
    type: str
    required: true
  revision:
    description: Branch, tag or commit of a hub; for other sources a name of the operator's choice. Empty for the
      newest; for other sources than a hub it is then named after its content.
    type: str
    default: ''
  resolved:
    description: The commit that a hub's O(revision) was found to be on another host, so that a fleet serves one. Wins
      over what is recorded.
    type: str
    default: ''
  update:
    description: Resolve O(revision) at the source again.
    type: bool
    default: false
  source:
    description: V(hub) is a Hugging Face hub or a mirror; V(s3) is a bucket, with the credentials of the instance's
      role; V(path) is a directory on the host.
    type: str
    choices: [hub, s3, path]
    default: hub
  endpoint:
    description: The hub's base URL.
    type: str
    default: https://huggingface.co
  token:
    description: The hub's token. It is kept on the host in a file that only root may read, because the restore needs
      it.
    type: str
    default: ''
  transfer:
    description: How large files come from the hub. V(auto) uses Xet storage at huggingface.co and HTTP at mirrors.
    type: str
    choices: [auto, http, xet]
    default: auto
  s3_url:
    description: Where O(source=s3) finds the model, as V(s3://bucket/prefix).
    type: str
    default: ''
  s3_ranges:
    description: Ranges of objects that are fetched from S3 at a time, of all files together.
    type: int
    default: 32
    version_added: 0.3.0
  s3_range_mib:
    description: Size of such a range in MiB. With a size above that of the largest file, each file is one request.
    type: int
    default: 16
    version_added: 0.3.0
  path:
    description: Where O(source=path) finds the model.
    type: str
    default: ''
  path_in_place:
    description: Use O(path) as it is instead of a copy on the fast disk.
    type: bool
    default: false
  include:
    description: Patterns of the files to fetch; all when empty.
    type: list
    elements: str
    default: []
  exclude:
    description: Patterns of files to leave out. Hidden files are left out always, other formats of the weights where
      the model has safetensors.
    type: list
    elements: str
    default: []
  root:
    description: Directory of all models. Empty for C(/opt/dlami/nvme/models) where C(/opt/dlami/nvme) is a mount, else
      C(/var/lib/inference/models).
    type: str
    default: ''
  keep:
    description: How many complete snapshots to keep that neither this task nor a release names.
    type: int
    default: 2
  beside:
    description: Names of the further models that the host needs at the same time. Their snapshots are kept.
    type: list
    elements: str
    default: []
  verify:
    description: V(size) checks that every file is there with its size. V(full) reads all of them and compares hashes.
        A file that does not match is fetched again.
    type: str
    choices: [size, full]
    default: size
  parallel:
    description: Files that are fetched at a time. For O(source=s3) O(s3_ranges) decides how many connections.
    type: int
    default: 8
  environment:
    description: Environment of the download, also at boot; for proxies, certificates and C(AWS_*).
    type: dict
    default: {}
  engine_root:
    description: Where releases and instances are; the download tool is put below it.
    type: path
    default: /opt/inference
  lock:
    description: Requirements of the download tool, with hashes. Needed for V(hub) and V(s3).
    type: str
    default: ''
  lock_python:
    description: The Python versions that O(lock) is for.
    type: str
    default: '>=3.10'
  uv_requirement:
    description: The requirement of uv itself, with hashes.
    type: str
    default: ''
  pip_environment:
    description: Environment of uv, for index, mirror, proxy and cache.
    type: dict
    default: {}
  find_links:
    description: Directories on the host with further wheels.
    type: list
    elements: path
    default: []
  spec_directory:
    description: The directory of the specs by which the host restores models.
    type: path
    default: /etc/inference/models.d
  run_directory:
    description: The directory in which a running download reports its progress.
    type: path
    default: /run/inference-models
  unit_directory:
    description: Where units are written.
    type: path
    default: /etc/systemd/system
"""

EXAMPLES = r"""
- name: Keep the model on the fast disk
  inference.fleet.model_snapshot:
    name: Qwen/Qwen3-VL-8B-Instruct
    revision: 0c351dd01ed87e9c1b53cbc748cba10e6187ff3b
    lock: "{{ lookup('ansible.builtin.file', 'fetcher.txt') }}"
    uv_requirement: "{{ lookup('ansible.builtin.file', 'uv.txt') }}"
  register: model

- name: Copy it from a share
  inference.fleet.model_snapshot:
    name: Qwen/Qwen3-VL-8B-Instruct
    source: path
    path: /mnt/models/qwen3-vl-8b
"""

RETURN = r"""
name:
  description: The model's name.
  returned: success
  type: str
path:
  description: The snapshot's directory. Empty where check mode could not determine it.
  returned: success
  type: str
  sample: /opt/dlami/nvme/models/Qwen--Qwen3-VL-8B-Instruct/0c351dd01ed87e9c1b53cbc748cba10e6187ff3b
revision:
  description: The commit or name of O(revision).
  returned: success
  type: str
requested:
  description: The requested revision.
  returned: success
  type: str
recorded:
  description: Whether the revision was known on the host, so that no source was asked.
  returned: success
  type: bool
tool_installed:
  description: Whether the download tool was on the host already.
  returned: success
  type: bool
size_bytes:
  description: Size of the whole snapshot.
  returned: success
  type: int
files:
  description: Number of its files.
  returned: success
  type: int
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import S3_RANGE_MIB, S3_RANGES, Problem
from ansible_collections.inference.fleet.plugins.module_utils.model.snapshot import Keeper
from ansible_collections.inference.fleet.plugins.module_utils.model.units import Units
from ansible_collections.inference.fleet.plugins.module_utils.model.wanted import WantedModel
from ansible_collections.inference.fleet.plugins.module_utils.net.proxies import exempt_own

_OPTIONS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "revision": {"type": "str", "default": ""},
    "resolved": {"type": "str", "default": ""},
    "update": {"type": "bool", "default": False},
    "source": {"type": "str", "choices": ["hub", "s3", "path"], "default": "hub"},
    "endpoint": {"type": "str", "default": "https://huggingface.co"},
    "token": {"type": "str", "default": "", "no_log": True},
    "transfer": {"type": "str", "choices": ["auto", "http", "xet"], "default": "auto"},
    "s3_url": {"type": "str", "default": ""},
    "s3_ranges": {"type": "int", "default": S3_RANGES},
    "s3_range_mib": {"type": "int", "default": S3_RANGE_MIB},
    "path": {"type": "str", "default": ""},
    "path_in_place": {"type": "bool", "default": False},
    "include": {"type": "list", "elements": "str", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "root": {"type": "str", "default": ""},
    "keep": {"type": "int", "default": 2},
    "beside": {"type": "list", "elements": "str", "default": []},
    "verify": {"type": "str", "choices": ["size", "full"], "default": "size"},
    "parallel": {"type": "int", "default": 8},
    "environment": {"type": "dict", "default": {}},
    "engine_root": {"type": "path", "default": ENGINE_ROOT},
    "lock": {"type": "str", "default": ""},
    "lock_python": {"type": "str", "default": ">=3.10"},
    "uv_requirement": {"type": "str", "default": ""},
    "pip_environment": {"type": "dict", "default": {}},
    "find_links": {"type": "list", "elements": "path", "default": []},
    "spec_directory": {"type": "path", "default": "/etc/inference/models.d"},
    "run_directory": {"type": "path", "default": "/run/inference-models"},
    "unit_directory": {"type": "path", "default": "/etc/systemd/system"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=_OPTIONS, supports_check_mode=True)
    options = dict(module.params)
    for name in ("environment", "pip_environment"):
        options[name] = {key: str(value) for key, value in options[name].items()}
    if any(key.lower().endswith("_proxy") for key in options["environment"]):
        options["environment"] = exempt_own(options["environment"])
    wanted = WantedModel(**options)
    # Proxies and certificates also apply to requests from here.
    os.environ.update(wanted.environment)
    try:
        outcome = Keeper(wanted, Units(wanted.unit_directory)).run(check=module.check_mode)
    except (FleetError, Problem) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(outcome.actions),
        name=wanted.name,
        path=outcome.path,
        revision=outcome.revision,
        requested=outcome.requested,
        recorded=outcome.recorded,
        tool_installed=outcome.tool_installed,
        size_bytes=outcome.size_bytes,
        files=outcome.files,
        actions=outcome.actions,
        diff={"before": outcome.before, "after": outcome.after},
    )


if __name__ == "__main__":
    main()
