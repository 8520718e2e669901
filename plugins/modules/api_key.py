# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the clients' keys in the key store."""

from __future__ import annotations

DOCUMENTATION = r"""
module: api_key
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Make, rotate, remove and look up clients' API keys in the key store
description:
  - Runs on the controller, whichever host the task is for, without a connection and without become. The store holds the
    keys; the edges get only their hashes, by module M(inference.fleet.edge_keys).
  - A key is C(sk-) and 256 random bits. It is returned only with O(reveal).
  - A client has at most two live keys. They are the current one, and either a pending one that a rotation made, or the
    previous one while its overlap lasts.
  - A rotation is V(pending), then the edges are updated and the new keys are tested; V(finished), then consumers
    move, the edges are updated and the old keys are proven dead; V(completed). If anything fails before V(finished),
    V(withdrawn) takes the new keys back. Every state can be repeated. An interrupted run is continued by running the
    again from the first one.
  - From the first of these states to V(completed) a rotation holds a lock in the store. Another run is refused; the
    message names the holder and the start. A lock of this controller whose process has ended is taken over.
attributes:
  check_mode:
    support: full
    description: Changes nothing. The hash and fingerprint of a new key in the result belong to no real key.
  diff_mode:
    support: full
    description: Shows clients' names and keys' fingerprints.
options:
  state:
    description:
      - With V(present) each client has a key and the given attributes; one that has no key gets one.
      - With V(absent) the clients and their keys are removed.
      - With V(read) nothing is changed; without O(clients) every client is returned.
      - With V(pending) each client that is due has a pending key. An interrupted rotation is continued with its clients
        and the keys that it made.
      - With V(finished) the rotation's pending keys are the current ones. The old ones stay valid for O(overlap), or
        are dead.
      - With V(withdrawn) the rotation's pending keys are removed. It does nothing where there are none.
      - With V(retired) previous keys whose overlap is over are dead. The store keeps their text so that they can be
        proven dead.
      - With V(completed) the rotation is over and its lock is released. Dead keys count as proven, unless O(unproven)
        names a host; only their hash, fingerprint and times are kept.
    type: str
    choices: [present, absent, read, pending, finished, withdrawn, retired, completed]
    default: present
  clients:
    description:
      - The clients.
      - With O(state=pending) those to rotate, and with O(max_age) those of them that are due.
      - With O(state=retired) those whose previous keys count; without it all.
      - Limits count with O(state=present) alone. A limit that is left out is not set.
    type: list
    elements: dict
    default: []
  exclusive:
    description: With O(state=present), remove the clients that are not listed.
    type: bool
    default: false
  reveal:
    description:
      - With O(state=read) and exactly one client, return one of its keys. Such a task needs C(no_log).
      - With O(which=all), return all keys of the O(clients).
    type: bool
    default: false
  which:
    description: With O(reveal), which key. A V(previous) one is available until it is proven dead.
    type: str
    choices: [current, pending, previous, all]
    default: current
  max_age:
    description:
      - With O(state=pending), the age at which a current key is due, such as V(30d), V(24h) or V(90m).
      - With O(state=read), fills RV(clients[].due).
    type: str
  rotation_id:
    description:
      - The rotation's name. Repeating a state with it repeats the same step, even after the rotation is over.
      - Without it, a new name or the rotation in progress. Needed on controllers without C(/proc).
    type: str
  overlap:
    description:
      - With O(state=finished), how long the old keys stay valid; V(0) retires them at once. They stay valid until
        O(state=retired) is run after that time.
      - With O(state=pending) it is only validated, so that an error is reported before any change.
    type: str
  force:
    description: With O(state=retired), retire the previous keys of these O(clients) before their overlap is over.
    type: bool
    default: false
  compromised:
    description:
      - The old keys may have leaked. With O(state=finished) they are retired at once, with O(state=retired) as with
        O(force). The store remembers it with their hashes.
    type: bool
    default: false
  unproven:
    description: With O(state=completed), the hosts that could not prove that they refuse the dead keys.
    type: list
    elements: str
    default: []
  take_over:
    description: Continue a rotation of another controller that you know to be dead.
    type: bool
    default: false
  backend:
    description:
      - Where the store is. V(file) is a file on the controller. V(aws_secretsmanager) is one secret for each client in
        AWS Secrets Manager, whose staging labels are the key's parts; it needs boto3 on the controller, and the IAM
        actions C(secretsmanager:GetSecretValue), C(DescribeSecret), C(CreateSecret), C(PutSecretValue),
        C(UpdateSecretVersionStage), C(TagResource), C(UntagResource) and C(DeleteSecret) on C(PREFIX/*).
    type: str
    choices: [file, aws_secretsmanager]
    default: file
  path:
    description:
      - The store's file, needed with O(backend=file). Only its owner may read it; its directory is made the same way.
      - A copy of it is kept beside it, with C(.bak).
    type: path
  region:
    description:
      - The region, needed with O(backend=aws_secretsmanager). It is not taken from the environment, because in another
        region there would be another store, with other keys for the same clients.
    type: str
  endpoint_url:
    description: With O(backend=aws_secretsmanager), another address of the service, such as a VPC endpoint's.
    type: str
  profile:
    description: With O(backend=aws_secretsmanager), a profile of AWS's configuration.
    type: str
  hosts:
    description:
      - What module M(inference.fleet.edge_keys) returned for each host, by its name. Before any change the module
        checks that the hosts' keys are this store's, and that the store is not older than they are.
    type: dict
    default: {}
  adopt:
    description:
      - Give up the store with this identity, from which the hosts have their keys; V(true) for any.
      - With O(state=present) the store then gets a generation above the hosts'.
    type: str
    default: ""
  prefix:
    description: With O(backend=aws_secretsmanager), the prefix of the secrets' names. Each fleet needs its own.
    type: str
    default: inference-fleet
  kms_key_id:
    description: With O(backend=aws_secretsmanager), the KMS key that encrypts new secrets.
    type: str
  tags:
    description: With O(backend=aws_secretsmanager), further tags of new secrets.
    type: dict
    default: {}
  recovery_days:
    description: With O(backend=aws_secretsmanager), the days for which a removed client's secret can be restored.
    type: int
    default: 30
extends_documentation_fragment: inference.fleet.client_limits
"""

EXAMPLES = r"""
- name: Give each client a key
  inference.fleet.api_key:
    clients:
      - name: team-a
        models: [Qwen/Qwen3-VL-8B-Instruct]
        requests_per_minute: 600
      - name: gateway
    path: ~/.local/state/inference-fleet/keys.json
  run_once: true
  register: keys

- name: Look up one key
  inference.fleet.api_key:
    state: read
    clients:
      - name: team-a
    reveal: true
    path: ~/.local/state/inference-fleet/keys.json
  run_once: true
  no_log: true
  register: key

- name: Make pending keys for the clients whose keys are older than a month
  inference.fleet.api_key:
    state: pending
    max_age: 30d
    backend: aws_secretsmanager
    region: us-east-1
    prefix: inference-fleet/production
  run_once: true
  register: rotation

- name: Make them the current ones, and keep the old ones valid for a day
  inference.fleet.api_key:
    state: finished
    overlap: 24h
    backend: aws_secretsmanager
    region: us-east-1
    prefix: inference-fleet/production
  run_once: true
"""

RETURN = r"""
clients:
  description:
    - The requested clients, or those of the rotation, without their keys.
    - Each also has its limits, as in O(clients).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The client.
      type: str
      returned: always
    fingerprint:
      description: Of the current key.
      type: str
      returned: always
      sample: sk-…1f0c9a2e
    created:
      description: When the current key was made.
      type: str
      returned: always
      sample: "2026-11-22T12:00:00Z"
    activated:
      description: When it became the current one; empty where unknown.
      type: str
      returned: always
    age:
      description: Seconds since the current key was made.
      type: int
      returned: always
    due:
      description: Whether it is older than O(max_age). A client that expired is never due.
      type: bool
      returned: always
    state:
      description:
        - The state of the keys. V(pending), there is a pending key; V(previous), the old key is still valid;
          V(retired), the old key is dead but not proven so; V(current), none of these.
      type: str
      returned: always
    expired:
      description: Whether C(expires) is over.
      type: bool
      returned: always
    stored_keys:
      description:
        - The keys whose text is in the store, each with C(slot), C(fingerprint), C(sha256), C(created),
          C(activated), C(retire_at), C(retired), C(compromised) and C(rotation).
      type: list
      elements: dict
      returned: always
hashes:
  description:
    - Every live key of the store, for module M(inference.fleet.edge_keys). Not secret.
    - Each also has its client's limits, as in O(clients).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The client.
      type: str
      returned: always
    sha256:
      description: The key's hash.
      type: str
      returned: always
    slot:
      description: V(current), V(pending) or V(previous).
      type: str
      returned: always
store:
  description:
    - The store, and its generation, of this result. Module M(inference.fleet.edge_keys) accepts hashes only with it.
  returned: success
  type: dict
  contains:
    id:
      description: The store's identity, made with it. Empty where it has none yet; a change gives it one.
      type: str
      returned: always
    generation:
      description: How often the live keys or their limits have changed.
      type: int
      returned: always
    name:
      description: Where the store is.
      type: str
      returned: always
    settled:
      description: Whether it was read as a whole, and not in the middle of another run's change.
      type: bool
      returned: always
    retired:
      description: The hashes of the keys that must be dead.
      type: list
      elements: str
      returned: always
retired:
  description: The keys that must be dead, including those of removed clients. The oldest ones are forgotten.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The client.
      type: str
      returned: always
    fingerprint:
      description: The key's fingerprint.
      type: str
      returned: always
    sha256:
      description: The key's hash.
      type: str
      returned: always
    created:
      description: When it was made.
      type: str
      returned: always
    activated:
      description: When it became the current one; empty where it never did.
      type: str
      returned: always
    retired:
      description: Since when it is dead.
      type: str
      returned: always
    compromised:
      description: Whether it may have leaked.
      type: bool
      returned: always
    proven:
      description: Whether every host has proven that it refuses it.
      type: bool
      returned: always
    revealable:
      description: Whether O(which=previous) still reveals it, for the proof.
      type: bool
      returned: always
rotation:
  description: The rotation in progress; none where there is none.
  returned: success
  type: dict
  contains:
    id:
      description: Its name.
      type: str
      returned: always
    step:
      description: V(retired), V(pending), V(finished) or V(withdrawn).
      type: str
      returned: always
    clients:
      description: Whose keys it changes.
      type: list
      elements: str
      returned: always
    by:
      description: The user who runs it.
      type: str
      returned: always
    controller:
      description: Where it runs.
      type: str
      returned: always
    pid:
      description: The process that runs it.
      type: int
      returned: always
    started:
      description: When it began.
      type: str
      returned: always
    resumed:
      description: When that process began or continued it.
      type: str
      returned: always
key:
  description: The client's key.
  returned: with O(reveal)
  type: str
live:
  description: C(name) and C(key) of every key of the clients that must be accepted.
  returned: with O(reveal) and O(which=all)
  type: list
  elements: dict
dead:
  description: C(name) and C(key) of every key of the clients that must be refused and is not proven dead.
  returned: with O(reveal) and O(which=all)
  type: list
  elements: dict
actions:
  description: The actions of this run, or in check mode of a real one.
  returned: success
  type: list
  elements: str
  sample: ["add team-a sk-…1f0c9a2e"]
"""

import contextlib
import dataclasses
import socket
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.clients import limits
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.keys import (
    clients,
    holder,
    rotation,
    secrets_manager,
    view,
)
from ansible_collections.inference.fleet.plugins.module_utils.keys import hosts as _hosts
from ansible_collections.inference.fleet.plugins.module_utils.keys.origin import Origin
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import (
    Content,
    KeyStore,
    StoreChanged,
    settled,
)
from ansible_collections.inference.fleet.plugins.module_utils.keys.store_aws import (
    SecretOptions,
    SecretsManagerKeyStore,
)
from ansible_collections.inference.fleet.plugins.module_utils.keys.store_file import FileKeyStore

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {
        "type": "str",
        "choices": ["present", "absent", "read", "pending", "finished", "withdrawn", "retired", "completed"],
        "default": "present",
    },
    "clients": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            **limits.spec(),
        },
    },
    "exclusive": {"type": "bool", "default": False},
    "reveal": {"type": "bool", "default": False, "no_log": False},
    "which": {"type": "str", "choices": ["current", "pending", "previous", "all"], "default": "current"},
    "max_age": {"type": "str"},
    "rotation_id": {"type": "str"},
    "overlap": {"type": "str"},
    "force": {"type": "bool", "default": False},
    "compromised": {"type": "bool", "default": False},
    "unproven": {"type": "list", "elements": "str", "default": []},
    "take_over": {"type": "bool", "default": False},
    "hosts": {"type": "dict", "default": {}},
    "adopt": {"type": "str", "default": ""},
    "backend": {"type": "str", "choices": ["file", "aws_secretsmanager"], "default": "file"},
    "path": {"type": "path"},
    "region": {"type": "str"},
    "endpoint_url": {"type": "str"},
    "profile": {"type": "str"},
    "prefix": {"type": "str", "default": "inference-fleet"},
    # The key's name, not the key.
    "kms_key_id": {"type": "str", "no_log": False},
    "tags": {"type": "dict", "default": {}},
    "recovery_days": {"type": "int", "default": 30},
}

_STEPS: dict[str, t.Callable[[Content, rotation.RotationRequest], rotation.RotationStep]] = {
    "pending": rotation.pending,
    "finished": rotation.finished,
    "withdrawn": rotation.withdrawn,
    "retired": rotation.retired,
    "completed": rotation.completed,
}
# How often a change is computed again because another writer was faster.
_ATTEMPTS = 5


def run(params: dict[str, t.Any], check: bool, want_diff: bool) -> dict[str, t.Any]:
    """Do what the parameters say; return the module's result."""
    request = _request(params)
    _check_options(params, request)
    store = _store(params)
    first: Content | None = None
    for attempt in range(1, _ATTEMPTS + 1):
        with contextlib.ExitStack() as stack:
            if params["state"] != "read" and not check:
                stack.enter_context(store.locked(make=params["state"] == "present"))
            before = store.load()
            first = first or before
            known = _hosts.known(params["hosts"])
            _hosts.check(known, _origin(before, store, params), before, params["adopt"])
            step = _step(params, request, before, store)
            if params["state"] != "read":
                if params["state"] in ("present", "absent"):
                    _refuse_beside_rotation(before, step.after, request)
                floor = _hosts.latest(known, before.id) if params["adopt"] and params["state"] == "present" else 0
                # The faster writer may have made a part of this change.
                edges_change = attempt > 1 or view.hashes(before) != view.hashes(step.after)
                step = step._replace(after=settled(before, step.after, edges_change, floor))
            if step.after == before or check:
                break
            try:
                store.save(before, step.after)
                break
            except StoreChanged as changed:
                if attempt == _ATTEMPTS:
                    raise FleetError(f"{changed.message} That happened {attempt} times; run again.") from None
    return _result(params, request, first or before, step, store, want_diff)


def _request(params: dict[str, t.Any]) -> rotation.RotationRequest:
    max_age, overlap = params["max_age"], params["overlap"]
    return rotation.RotationRequest(
        now=times.now(),
        me=holder.current(),
        names=tuple(api_keys.check_client_names(item["name"] for item in params["clients"])),
        rotation_id=rotation.check_id(params["rotation_id"]) if params["rotation_id"] else "",
        max_age=None if max_age is None else times.duration(max_age, "max_age"),
        overlap=None if overlap is None else times.duration(overlap, "overlap"),
        force=params["force"],
        compromised=params["compromised"],
        take_over=params["take_over"],
        unproven=tuple(params["unproven"]),
    )


def _check_options(params: dict[str, t.Any], request: rotation.RotationRequest) -> None:
    state = params["state"]
    if params["exclusive"] and (state != "present" or not request.names):
        raise FleetError(
            "exclusive removes every client that is not listed: give state present and at least one client."
        )
    if params["reveal"] and (state != "read" or not request.names):
        raise FleetError("reveal returns keys of the clients that are named: give state read and the clients.")
    if params["reveal"] and params["which"] != "all" and len(request.names) != 1:
        raise FleetError("reveal returns one client's key: give exactly one client, or which all.")


def _store(params: dict[str, t.Any]) -> KeyStore:
    if params["backend"] == "file":
        if not params["path"]:
            raise FleetError("The key store has no path. Give the file on the controller, or another backend.")
        return FileKeyStore(params["path"])
    if not params["region"]:
        raise FleetError("The key store in AWS Secrets Manager has no region. Give the one that it is in.")
    aws = secrets_manager.connect(params["region"], params["endpoint_url"], params["profile"])
    tags = {str(name): str(value) for name, value in params["tags"].items()}
    return SecretsManagerKeyStore(
        aws, SecretOptions(params["prefix"], params["kms_key_id"] or "", tags, params["recovery_days"])
    )


def _step(
    params: dict[str, t.Any], request: rotation.RotationRequest, before: Content, store: KeyStore
) -> rotation.RotationStep:
    """The result of the state, and the clients to return."""
    state = params["state"]
    if not before.exists and state not in ("present", "absent") and (state != "read" or request.names):
        raise FleetError(
            f"{_sentence(store.name)} has not been made yet, so there is nothing to do with state {state}. Correct "
            "fleet_key_store, or add the clients to fleet_clients and run playbooks/keys.yml."
        )
    if state in ("present", "absent"):
        return _clients_step(params, request, before)
    _refuse_missing(before)
    if state == "read":
        rotation.demand(request.names, before)
        return rotation.RotationStep(before, list(request.names) or sorted(before.clients))
    step = _STEPS[state](before, request)
    return step._replace(after=dataclasses.replace(step.after, leftovers=()))


def _refuse_beside_rotation(before: Content, after: Content, request: rotation.RotationRequest) -> None:
    """A rotation is the lock between controllers: while another run holds one, clients are not changed."""
    if before.rotation and after.clients != before.clients:
        rotation.claim(before.rotation, request)


def _origin(content: Content, store: KeyStore, params: dict[str, t.Any]) -> Origin:
    # The same path is another store on each controller.
    where = f" on {socket.gethostname()}" if params["backend"] == "file" else ""
    retired = tuple(key.sha256 for key in content.retired())
    return Origin(content.id, content.generation, f"{store.name}{where}", not content.writing, retired)


def _clients_step(
    params: dict[str, t.Any], request: rotation.RotationRequest, before: Content
) -> rotation.RotationStep:
    if params["state"] == "absent":
        after = clients.absent(before, request.names, request.now)
    else:
        wanted = {item["name"]: limits.check(item) for item in params["clients"]}
        after = clients.present(before, wanted, params["exclusive"], request.now)
    _refuse_missing(after)
    made = before.exists or bool(after.clients)
    names = [name for name in request.names if name in after.clients]
    return rotation.RotationStep(dataclasses.replace(after, leftovers=(), exists=made), names)


def _refuse_missing(content: Content) -> None:
    """A run that goes on without a client's keys makes the edges refuse that client."""
    if content.missing:
        raise FleetError(" ".join(content.missing[name] for name in sorted(content.missing)))


def _result(
    params: dict[str, t.Any],
    request: rotation.RotationRequest,
    before: Content,
    step: rotation.RotationStep,
    store: KeyStore,
    want_diff: bool,
) -> dict[str, t.Any]:
    after = step.after
    result: dict[str, t.Any] = {
        "changed": after != before,
        "clients": [view.client(name, after.clients[name], request.now, request.max_age) for name in step.names],
        "hashes": view.hashes(after),
        "retired": view.retired(after),
        "rotation": view.rotation(after),
        "store": _hosts.shown(_origin(after, store, params)),
        "actions": view.actions(before, after, store.name) if after != before else [],
    }
    if params["reveal"] and params["which"] == "all":
        result.update(_all_revealed(after, request.names))
    elif params["reveal"]:
        result["key"] = _revealed(after, request.names[0], params["which"])
    if want_diff and after != before:
        result["diff"] = {"before": view.listed(before), "after": view.listed(after)}
    return result


def _revealed(content: Content, name: str, which: str) -> str:
    key = dict(content.clients[name].slots()).get(which)
    if key is None:
        raise FleetError(
            f"Client {name} has no {which} key. It has: "
            f"{', '.join(slot for slot, _key in content.clients[name].slots())}."
        )
    return key.key


def _all_revealed(content: Content, names: t.Iterable[str]) -> dict[str, list[dict[str, str]]]:
    keys = [(name, key) for name in names for _slot, key in content.clients[name].slots()]
    return {
        "live": [{"name": name, "key": key.key} for name, key in keys if not key.retired],
        "dead": [{"name": name, "key": key.key} for name, key in keys if key.retired],
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, lambda: run(module.params, module.check_mode, module._diff))


if __name__ == "__main__":
    main()
