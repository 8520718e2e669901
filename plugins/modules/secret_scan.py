#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look for clients' keys where they must not be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_scan
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Find clients' keys on a machine
description:
  - Searches files, the arguments and environments of processes, and the journal for keys that are given by their
    hashes. Neither the arguments nor the result hold a key. A finding has place, client and fingerprint.
  - Everything in the form of a key, C(sk-) and 43 letters, digits, dashes and underscores, is hashed and compared in
    text, JSON, YAML, binary data and gzip data, and in the names of files. Other compressed or encoded data, such as
    xz or base64, is not searched.
  - Findings do not fail the module. RV(unread) names what could not be read.
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: Nothing is ever changed.
    support: none
options:
  hashes:
    description: The keys to look for, at least one.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The client's name.
        type: str
        required: true
      sha256:
        description: The key's hash in lower case hexadecimal, as M(inference.fleet.api_key) returns it. Never the key.
        type: str
        required: true
      state:
        description: Whether the edges accept the key.
        type: str
        choices: [live, retired]
        default: live
      revealable:
        description:
          - Whether the key store still has the text of this retired key, as M(inference.fleet.api_key) returns it. Such
            a key may be in O(allowed) as a live one may.
        type: bool
        default: false
  paths:
    description:
      - Files, and directories with everything below them. A missing one is named in RV(left_out).
      - Links are followed only if they are named here. C(/proc), C(/sys) and C(/dev) are never searched, and network
        file systems only if they are named here.
    type: list
    elements: path
    default: []
  exclude:
    description:
      - Shell patterns of what is not searched; a C(*) matches slashes, too. A pattern with a slash must match the whole
        path, one without it the name. A directory is left out with its content.
    type: list
    elements: str
    default: []
  allowed:
    description:
      - Files that may hold a live key, such as the key store, its copy, and a consumer's own file. They are still
        reported when others than their owner may read them.
    type: list
    elements: path
    default: []
  processes:
    description:
      - Whether to search the arguments and environments of all processes. This module's own process and those that
        started it are left out, but not the machine's first process.
    type: bool
    default: false
  journal:
    description: Whether to search all fields of all entries of systemd's journal.
    type: bool
    default: false
  journal_since:
    description: The start of the journal search, as C(journalctl --since) takes it, such as V(-7d).
    type: str
  host:
    description: The machine's name in the result's entries.
    type: str
    default: ""
seealso:
  - module: inference.fleet.api_key
"""

EXAMPLES = r"""
- name: Get the keys' hashes
  inference.fleet.api_key:
    state: read
    path: ~/.config/inference-fleet/keys.json
  delegate_to: localhost
  register: store

- name: Look for live keys
  inference.fleet.secret_scan:
    hashes: "{{ store.hashes | community.general.keep_keys(target=['name', 'sha256']) }}"
    paths: [/etc, /var/log, /home]
    exclude: ["*.safetensors", /home/*/.cache]
    processes: true
    journal: true
    journal_since: -7d
  register: scan

- name: Refuse leaked keys
  ansible.builtin.assert:
    that: scan.findings | length == 0
"""

RETURN = r"""
findings:
  description: One entry for each place and key.
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: As in O(host).
      type: str
      returned: always
    kind:
      description: V(file), V(file name), V(process) or V(journal).
      type: str
      returned: always
    where:
      description:
        - The file's path; a process' part (arguments or environment), pid, program and user; or the unit and program of
          a journal entry.
      type: str
      returned: always
      sample: environment of pid 4711 (python3, user inference)
    fingerprint:
      description: The key's fingerprint.
      type: str
      returned: always
      sample: sk-…1f0c9a2e
    client:
      description: Whose key it is.
      type: str
      returned: always
    state:
      description: V(live) or V(retired).
      type: str
      returned: always
    count:
      description: How often it occurs there.
      type: int
      returned: always
    mode:
      description: A file's permission bits; empty for other places.
      type: str
      returned: always
      sample: "0644"
    readable_by_others:
      description: Whether others than the file's owner may read it.
      type: bool
      returned: always
unread:
  description: What was not, or not completely, searched.
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: As in O(host).
      type: str
      returned: always
    kind:
      description: V(file), V(process) or V(journal).
      type: str
      returned: always
    where:
      description: The place.
      type: str
      returned: always
    reason:
      description: Why.
      type: str
      returned: always
      sample: Permission denied
    gone:
      description: Whether it ended or was removed during the search, so that no key is there any more.
      type: bool
      returned: always
left_out:
  description: What does not exist, or was left out without O(exclude).
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: As in O(host).
      type: str
      returned: always
    where:
      description: The place.
      type: str
      returned: always
    reason:
      description: Why.
      type: str
      returned: always
      sample: file system nfs4 is not entered
searched:
  description: How much was searched.
  returned: success
  type: dict
  contains:
    host:
      description: As in O(host).
      type: str
      returned: always
    files:
      description: The number of files.
      type: int
      returned: always
    bytes:
      description: What was read from them, after decompression.
      type: int
      returned: always
    processes:
      description: The number of processes.
      type: int
      returned: always
    journal_bytes:
      description: What was read of the journal.
      type: int
      returned: always
"""

import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.secrets.files import FileSearch
from ansible_collections.inference.fleet.plugins.module_utils.secrets.journal import journal_command, search_journal
from ansible_collections.inference.fleet.plugins.module_utils.secrets.processes import search_processes
from ansible_collections.inference.fleet.plugins.module_utils.secrets.scan import LIVE, RETIRED, Search, known_keys

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "hashes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        # Hashes of 256 random bits do not reveal the key.
        "no_log": False,
        "options": {
            "name": {"type": "str", "required": True},
            "sha256": {"type": "str", "required": True},
            "state": {"type": "str", "choices": [LIVE, RETIRED], "default": LIVE},
            "revealable": {"type": "bool", "default": False},
        },
    },
    "paths": {"type": "list", "elements": "path", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "allowed": {"type": "list", "elements": "path", "default": []},
    "processes": {"type": "bool", "default": False},
    "journal": {"type": "bool", "default": False},
    "journal_since": {"type": "str"},
    "host": {"type": "str", "default": ""},
}


def run(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Search what the parameters name; return the module's result."""
    search = Search(known_keys(params["hashes"]))
    if params["processes"]:
        search_processes(search)
    if params["journal"]:
        search_journal(search, journal_command(params["journal_since"]))
    FileSearch(search, params["exclude"], params["allowed"]).run(params["paths"])
    host = {"host": params["host"]}
    return {
        "changed": False,
        "findings": [{**host, **dataclasses.asdict(finding)} for finding in search.findings()],
        "unread": [{**host, **dataclasses.asdict(place)} for place in search.unread],
        "left_out": [{**host, **place} for place in search.left_out],
        "searched": {**host, **search.searched},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
