# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage, activate, confirm and restore the releases of a host's instances."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_release
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Stage, activate, confirm and restore releases of engine instances
description:
  - A release is everything that decides what an instance runs. It is immutable and named by a hash of its content.
  - O(state=staged) writes releases and validates the options with the engine's own parser; running instances are not
    touched.
  - O(state=kept) and O(state=earlier) stage nothing; they return what a restart, or a rollback by hand, would run.
    O(state=undeclared) returns the host's instances that are not in O(instances), and unstages the releases of
    instances that it never had.
  - O(state=active) makes the next start of the unit run a release, with its unit file. O(state=good) records that it
    passed its gate, O(state=restored) goes back to the last good one. O(state=removed) removes a stopped instance that
    is no longer wanted.
  - What O(state=active) only tries (O(trial)) is not kept. O(state=kept) then returns the last good release.
  - O(state=pruned) removes unused releases, and runtimes that no remaining release uses. In use are an instance's
    current, good, previous, staged and running release, and those of an unfinished rollout.
  - This module starts and stops nothing.
attributes:
  check_mode:
    support: full
    description: The engine's parser validates the options in check mode, too, where the runtime is already installed.
  diff_mode:
    support: full
    description: Shows the config file and environment of the current release against the staged one.
options:
  state:
    description: What to do.
    type: str
    choices: [staged, kept, earlier, undeclared, active, good, restored, removed, pruned]
    required: true
  root:
    description: The directory of runtimes, releases and instances.
    type: path
    default: /opt/inference
  instances:
    description: The instances. O(state=pruned) needs none.
    type: list
    elements: dict
    default: []
    suboptions:
      index:
        description: The instance's index.
        type: int
        required: true
      release:
        description: The release's name, for O(state=active).
        type: str
      options:
        description: The engine's options, for O(state=staged). Null leaves one out.
        type: dict
        default: {}
      environment:
        description: Environment of the engine's process, for O(state=staged).
        type: dict
        default: {}
      served_name:
        description: The model name that clients use, for O(state=staged).
        type: str
        default: ""
      span:
        description: The host's place in an instance that spans hosts, for O(state=staged).
        type: dict
        default: {}
  engine:
    description: What the instances run, for O(state=staged); an engine, or what a gateway runs.
    type: str
  version:
    description: The engine's version, for O(state=staged).
    type: str
  runtime:
    description: The runtime's directory name, for O(state=staged).
    type: str
  model:
    description: The model's name, for people; for O(state=staged).
    type: str
  model_path:
    description: The model's directory on the host, for O(state=staged). A gateway loads none.
    type: path
  draft_path:
    description: The draft model's directory on the host, for O(state=staged).
    type: str
    default: ""
  revision:
    description: The model's revision, for O(state=staged).
    type: str
    default: ""
  unit:
    description: The text of the unit file, for O(state=staged). A changed unit is another release.
    type: str
    default: ""
  files:
    description: Further files of the release, their texts by their names; for O(state=staged).
    type: dict
    default: {}
  trial:
    version_added: 0.3.0
    description: With O(state=active), whether the release is only tried, so that a later run does not keep it.
    type: bool
    default: false
  forget_previous:
    description: With O(state=good), do not keep the previous good release for a rollback.
    type: bool
    default: false
  unit_directory:
    description: Where the unit files of the instances are written.
    type: path
    default: /etc/systemd/system
  edge_config:
    description: The edge's configuration, for O(state=undeclared).
    type: path
    default: /etc/haproxy/haproxy.cfg
  keep:
    description: How many unused releases O(state=pruned) keeps.
    type: int
    default: 3
  claim:
    description: The file with the host's rollout claim, for O(state=pruned).
    type: path
    default: /var/lib/inference/rollout.json
"""

EXAMPLES = r"""
- name: Stage what instance 0 is to run
  inference.fleet.engine_release:
    state: staged
    engine: vllm
    version: 0.32.0
    runtime: vllm-0.32.0-cuda-1f0c9a2e
    model: Qwen/Qwen3-VL-8B-Instruct
    model_path: /opt/dlami/nvme/models/Qwen--Qwen3-VL-8B-Instruct/0123abc
    instances:
      - index: 0
        served_name: Qwen/Qwen3-VL-8B-Instruct
        options: {max-model-len: 32768, port: 8100}

- name: Go back to the last good release
  inference.fleet.engine_release:
    state: restored
    instances:
      - index: 0
"""

RETURN = r"""
instances:
  description: One entry per instance.
  returned: success
  type: list
  elements: dict
  contains:
    index:
      description: The instance's index.
      type: int
    release:
      description: The release of this run.
      type: str
    current:
      description: The release that the next start runs.
      type: str
    good:
      description: The last release that passed its gate.
      type: str
    trial:
      description: RV(instances[].current) where that is only tried, as a search that was broken off has left it.
      type: str
    running:
      description: The release that the process runs; empty when none does.
      type: str
    pending:
      description: Why the instance must be deployed; empty when it runs the release, which passed its gate with it.
      type: str
    problem:
      description: Why there is no release for the instance; empty when there is.
      type: str
    running_unit:
      description: The unit of that process; empty when there is none.
      type: str
    name:
      description:
        - The instance with RV(instances[].release); with C(engine), C(unit), C(engine_port) and C(health_path), as
          M(inference.fleet.fleet_facts) gives them. Empty without a release.
      type: str
    drafts:
      description: Whether the release has a draft model.
      type: bool
    span:
      description: The host's place in an instance that spans hosts; empty for one that does not.
      type: dict
    serves:
      description: Whether requests come to this host; false on the further hosts of an instance that spans hosts.
      type: bool
    instance:
      description:
        - With O(state=undeclared), what M(inference.fleet.fleet_facts) would return for it. C(port) is the edge's port
          that leads to it, 0 where none does.
      type: dict
    described:
      description:
        - C(release) and C(current) by name, each with engine, version, model and revision.
      type: dict
pruned:
  description: Directories that were removed, or would be in check mode.
  returned: when O(state=pruned)
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, read_text
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import unit_state
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, kind, units
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import Instance
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import (
    UNIT_DIRECTORY,
    Release,
    Releases,
)
from ansible_collections.inference.fleet.plugins.module_utils.rollout import claim as rollout_claim
from ansible_collections.inference.fleet.plugins.module_utils.runtimes.runtime import is_complete

RUN_DIRECTORY = "/run/inference"

_DESCRIPTION = ("engine", "version", "runtime", "model", "model_path", "draft_path", "revision")


def running_unit(index: int) -> str:
    """The unit of an instance's process; empty when no process runs."""
    return next((unit for unit in units(index=index) if unit_state(unit).is_running), "")


def release_of(unit: str, index: int) -> str:
    """The release that an instance's process was started with; empty when no process runs."""
    return (read_text(os.path.join(RUN_DIRECTORY, str(index), "release")) or "").strip() if unit else ""


def running_release(index: int) -> str:
    """Like release_of(), for the running unit."""
    return release_of(running_unit(index), index)


def pending_reason(releases: Releases, index: int, release: Release, running: str, unit: str) -> str:
    """Why an instance must be deployed; empty when it need not be."""
    own = str(_place(index, release.engine, release.span)["unit"])
    if not running:
        return "it does not run" if releases.linked(index, "current") else "it is new"
    if running != release.name:
        return f"its release changes from {running} to {release.name}"
    if unit != own:
        return f"it runs as {unit}, and its release belongs to {own}"
    if releases.linked(index, "good") != release.name:
        return f"its release {release.name} has not passed the gate"
    return ""


def staged(module: AnsibleModule, releases: Releases) -> dict[str, t.Any]:
    """Write the missing releases, and report which instances differ."""
    params = module.params
    changed = False
    results = []
    before, after = [], []
    for item in params["instances"]:
        index = item["index"]
        release = Release(
            index=index,
            environment={key: str(value) for key, value in item["environment"].items()},
            options=item["options"],
            served_name=item["served_name"],
            span=item["span"],
            unit=params["unit"],
            files=params["files"],
            **{key: params[key] or "" for key in _DESCRIPTION},
        )
        if not releases.exists(release.name):
            changed = True
            runtime_is_there = is_complete(os.path.join(params["root"], "runtimes", release.runtime))
            if not module.check_mode:
                releases.stage(release)
            elif runtime_is_there:
                releases.check_options(release)
        else:
            changed |= releases.keep_staged(index, release.name, dry_run=module.check_mode)
        current = releases.linked(index, "current")
        if current != release.name:
            before.append(releases.described(current))
            after.append(release.described)
        unit = running_unit(index)
        running = release_of(unit, index)
        results.append(
            {
                **_links(releases, index),
                "release": release.name,
                "running": running,
                "running_unit": unit,
                "pending": pending_reason(releases, index, release, running, unit),
                "problem": "",
                "drafts": bool(release.draft_path),
                **_place(index, release.engine, release.span),
                "described": {
                    **_described(releases, current),
                    release.name: {key: getattr(release, key) for key in ("engine", "version", "model", "revision")},
                },
            }
        )
    result: dict[str, t.Any] = {"changed": changed, "instances": results}
    if module._diff and before:
        result["diff"] = [{"before": b, "after": a} for b, a in zip(before, after)]
    return result


def chosen(module: AnsibleModule, releases: Releases) -> dict[str, t.Any]:
    """What a restart, or a rollback by hand, would run. Changes nothing."""
    back = module.params["state"] == "earlier"
    results = []
    for item in module.params["instances"]:
        index = item["index"]
        current = releases.linked(index, "current")
        release = (item["release"] or releases.earlier(index)) if back else releases.kept(index)
        problem = ""
        if release is None or not releases.exists(release):
            wanted = f"release {release} any more" if release else "earlier good release" if back else "release"
            problem = f"instance {index} has no {wanted}"
        elif releases.missing(release):
            problem = f"{release} of instance {index} lacks {releases.missing(release)}"
        unit = running_unit(index)
        manifest = releases.manifest(release)
        reason = f"it goes back from {current or 'nothing'} to {release}" if back else "a restart was asked for"
        results.append(
            {
                **_links(releases, index),
                "release": release or "",
                "running": release_of(unit, index),
                "running_unit": unit,
                "pending": "" if problem else reason,
                "problem": problem,
                "drafts": bool(manifest.get("draft_path")),
                **_place(index, manifest.get("engine"), manifest.get("span")),
                "described": _described(releases, release, current),
            }
        )
    return {"changed": False, "instances": results}


def undeclared(module: AnsibleModule, releases: Releases) -> dict[str, t.Any]:
    """The host's instances that are no longer wanted; unstages releases of instances that are neither."""
    wanted = {item["index"] for item in module.params["instances"]}
    never_had = set(releases.staged_indexes()) - wanted
    changed = any([releases.forget_staged(index, dry_run=module.check_mode) for index in sorted(never_had)])
    ports = {
        edge_state.server_index(server.name): int(server.backend[len(edge_state.BACKEND_PREFIX) :])
        for server in edge_state.parse_instances(read_text(module.params["edge_config"]) or "")
    }
    results = []
    for index in releases.indexes():
        if index in wanted:
            continue
        unit = running_unit(index)
        running = release_of(unit, index)
        manifest = releases.manifest(running or releases.linked(index, "current"))
        engine = str(manifest.get("engine", ""))
        gpus = str(manifest.get("environment", {}).get("CUDA_VISIBLE_DEVICES", "")).split(",")
        results.append(
            {
                **_links(releases, index),
                "release": "",
                "running": running,
                "running_unit": unit,
                "pending": "it is no longer wanted",
                "problem": "",
                "described": _described(releases, running, releases.linked(index, "current")),
                "instance": Instance(
                    index,
                    engine,
                    tuple(int(gpu) for gpu in gpus if gpu.isdigit()),
                    ports.get(index, 0),
                    str(manifest.get("served_name", "")),
                ).as_dict(),
            }
        )
    return {"changed": changed, "instances": results}


def removed(module: AnsibleModule, releases: Releases) -> dict[str, t.Any]:
    """Remove stopped instances."""
    changed = False
    for item in module.params["instances"]:
        if running_release(item["index"]):
            raise FleetError(f"Instance {item['index']} runs. Stop its unit first.")
        changed |= releases.forget(item["index"], dry_run=module.check_mode)
    return {"changed": changed, "instances": []}


def linked(module: AnsibleModule, releases: Releases) -> dict[str, t.Any]:
    """Activate, confirm or restore."""
    state = module.params["state"]
    changed = False
    results = []
    for item in module.params["instances"]:
        index, name = item["index"], item["release"]
        if state == "active":
            if not name:
                raise FleetError(f"state active needs the release of instance {index}.")
            if module.check_mode:
                changed |= releases.linked(index, "current") != name
            else:
                changed |= releases.activate(index, name, module.params["trial"])
        elif state == "good":
            name = releases.linked(index, "current")
            if module.check_mode:
                changed |= name != releases.linked(index, "good")
            else:
                changed |= releases.mark_good(index, module.params["forget_previous"])
        else:
            name = releases.restorable(index)
            if name and not module.check_mode:
                releases.activate(index, name)
            changed |= name is not None
        manifest = releases.manifest(name)
        results.append(
            {
                **_links(releases, index),
                "release": name or "",
                "running": "",
                "running_unit": "",
                "pending": "",
                "problem": "",
                "drafts": bool(manifest.get("draft_path")),
                **_place(index, manifest.get("engine"), manifest.get("span")),
                "described": _described(releases, name),
            }
        )
    return {"changed": changed, "instances": results}


def pruned(module: AnsibleModule, releases: Releases) -> dict[str, t.Any]:
    """Remove what is not in use."""
    used = {running_release(index) for index in releases.indexes()}
    claim = rollout_claim.parse(read_json(module.params["claim"]), module.params["claim"])
    if claim is not None and not claim.finished:
        used |= set(claim.targets.values())
    gone = releases.prune(module.params["keep"], used, dry_run=module.check_mode)
    return {"changed": bool(gone), "instances": [], "pruned": gone}


def _links(releases: Releases, index: int) -> dict[str, t.Any]:
    return {
        "index": index,
        "current": releases.linked(index, "current") or "",
        "good": releases.linked(index, "good") or "",
        "trial": releases.trial(index) or "",
    }


def _place(index: int, engine: str | None, span: dict[str, t.Any] | None) -> dict[str, t.Any]:
    """An instance with this release; the names are those of module fleet_facts."""
    names = ("name", "engine", "unit", "engine_port", "health_path")
    instance = Instance(index, engine, (), 0).as_dict() if engine else dict.fromkeys(names, "")
    return {**{name: instance[name] for name in names}, "span": span or {}, "serves": not (span or {}).get("rank")}


def _described(releases: Releases, *names: str | None) -> dict[str, dict[str, t.Any]]:
    shown = ("engine", "version", "model", "revision")
    return {name: {key: releases.manifest(name).get(key, "") for key in shown} for name in names if name}


STATES: dict[str, t.Callable[[AnsibleModule, Releases], dict[str, t.Any]]] = {
    "staged": staged,
    "kept": chosen,
    "earlier": chosen,
    "undeclared": undeclared,
    "active": linked,
    "good": linked,
    "restored": linked,
    "removed": removed,
    "pruned": pruned,
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "root": {"type": "path", "default": ENGINE_ROOT},
            "instances": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "index": {"type": "int", "required": True},
                    "release": {"type": "str"},
                    "options": {"type": "dict", "default": {}},
                    "environment": {"type": "dict", "default": {}},
                    "served_name": {"type": "str", "default": ""},
                    "span": {"type": "dict", "default": {}},
                },
            },
            "engine": {"type": "str"},
            "version": {"type": "str"},
            "runtime": {"type": "str"},
            "model": {"type": "str"},
            "model_path": {"type": "path"},
            "draft_path": {"type": "str", "default": ""},
            "revision": {"type": "str", "default": ""},
            "unit": {"type": "str", "default": ""},
            "files": {"type": "dict", "default": {}},
            "trial": {"type": "bool", "default": False},
            "forget_previous": {"type": "bool", "default": False},
            "unit_directory": {"type": "path", "default": UNIT_DIRECTORY},
            "edge_config": {"type": "path", "default": edge_state.CONFIG_PATH},
            "keep": {"type": "int", "default": 3, "no_log": False},
            "claim": {"type": "path", "default": rollout_claim.PATH},
        },
        required_if=[
            ("state", "staged", ("engine", "version", "runtime", "model")),
            *(("engine", engine, ("model_path",)) for engine in ENGINES),
        ],
        supports_check_mode=True,
    )
    releases = Releases(module.params["root"], module.params["unit_directory"])
    try:
        if module.params["engine"]:
            kind(module.params["engine"])
        result = STATES[module.params["state"]](module, releases)
    except FleetError as error:
        module.fail_json(msg=error.message, **error.details)
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename or module.params['root']} cannot be written or removed: {error.strerror}. Free the "
            "disk or correct the directory's rights, then run again."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
