# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A model on a host: the wanted and the present state, and the steps between the two."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import shlex
import sys

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import (
    locked,
    read_text,
    sync_directory,
    write_atomically,
)
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching
from ansible_collections.inference.fleet.plugins.module_utils.model import ranges, workers
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import (
    MANIFEST,
    File,
    Problem,
    Snapshot,
    Spec,
    human_size,
    read_document,
)
from ansible_collections.inference.fleet.plugins.module_utils.model.hub import Hub
from ansible_collections.inference.fleet.plugins.module_utils.model.prune import (
    Stored,
    over_budget,
    remove,
    stored,
    unused,
)
from ansible_collections.inference.fleet.plugins.module_utils.model.sources import from_hub, from_path, from_s3
from ansible_collections.inference.fleet.plugins.module_utils.model.units import Units, unit_files
from ansible_collections.inference.fleet.plugins.module_utils.model.wanted import REVISION, WantedModel, slug_of
from ansible_collections.inference.fleet.plugins.module_utils.runtimes.runtime import install, is_complete

FAST_DISK = "/opt/dlami/nvme"
SLOW_DISK = f"{STATE_DIRECTORY}/models"


@dataclasses.dataclass
class Outcome:
    """What a run found and did, or would do."""

    path: str
    revision: str
    requested: str
    recorded: bool
    tool_installed: bool
    size_bytes: int
    files: int
    actions: list[str]
    before: str
    after: str


class Keeper:
    """Brings one model on this host to the wanted state.

    Args:
        wanted: the wanted state.
        units: systemd.
    """

    def __init__(self, wanted: WantedModel, units: Units) -> None:
        self._wanted = wanted
        self._units = units
        self._actions: list[str] = []
        self._old_roots: set[str] = set()

    def run(self, check: bool) -> Outcome:
        """Do it, or with ``check`` return what it would do.

        Raises:
            FleetError: it failed.
        """
        wanted = self._wanted
        wanted.check()
        old = self._old_spec()
        root = self._root(old)
        if old is not None:
            self._old_roots = {old.root}
        if wanted.source == "s3" and not check:
            # A bucket can only be listed with the libraries.
            self._install()
        recorded = self._recorded(old, root)
        snapshot = recorded or self._plan(check)
        if snapshot is None:
            return Outcome("", "", wanted.revision, False, False, 0, 0, self._actions, self._describe(old), "")
        spec = self._spec(root, snapshot, old)
        wrong = self._wrong(spec)
        missing = sorted({*fetching.unfinished(spec, snapshot), *wrong})
        if wanted.path_in_place and missing:
            raise FleetError(
                f"{wanted.path} (model_path) is not what it was: {', '.join(missing[:3])} differ or are gone. Complete "
                "it, or run with -e model_update=true to take it as it is."
            )
        if missing:
            self._make_room(spec, check)
        else:
            spec = self._with_hashes(spec)
        outcome = Outcome(
            path=spec.directory(snapshot),
            revision=snapshot.revision,
            requested=snapshot.requested,
            recorded=recorded is not None,
            tool_installed=is_complete(wanted.runtime.path),
            size_bytes=snapshot.size,
            files=len(snapshot.files),
            actions=self._actions,
            before=self._describe(old),
            after=self._describe(spec),
        )
        if missing:
            self._actions.append(self._fetch_action(spec, missing))
        if check:
            self._preview(spec, old)
            self._remove(over_budget(self._idle(spec), wanted.keep), check)
            return outcome
        self._install()
        self._record(spec)
        if missing:
            if wrong:
                with fetching.sole_fetcher(spec):
                    fetching.withdraw(spec, snapshot, wrong)
            self._units.fetch(spec.slug, snapshot.revision, os.path.join(wanted.run_directory, f"{spec.slug}.json"))
            still = fetching.unfinished(spec, snapshot)
            if still:
                raise FleetError(
                    f"The fetch of {spec.name} ended well, but {', '.join(still[:3])} are not in {outcome.path}. "
                    "Something removes files there."
                )
            self._write_spec(self._with_hashes(spec))
        self._remove(over_budget(self._idle(spec), wanted.keep), check)
        return outcome

    # What is there

    def _old_spec(self) -> Spec | None:
        path = os.path.join(self._wanted.spec_directory, f"{self._wanted.slug}.json")
        if not os.path.exists(path):
            return None
        try:
            return fetching.load_spec(self._wanted.spec_directory, self._wanted.slug)
        except Problem:
            # Written by another version, or by hand; a snapshot on the disk is still recognised by its manifest.
            return None

    def _root(self, old: Spec | None) -> str:
        """The directory of the models: on the fast disk where there is one."""
        root = self._wanted.root or (f"{FAST_DISK}/models" if os.path.ismount(FAST_DISK) else SLOW_DISK)
        lost = old is not None and not os.path.ismount(old.mount)
        # Unless the root is set, a missing fast disk must not lead to a copy on the slow one.
        if old is not None and lost and (root == old.root or (not self._wanted.root and old.mount == FAST_DISK)):
            raise FleetError(
                f"The models of this host are on {old.mount}, which is not mounted now. Mount it (on a Deep Learning "
                "AMI: systemctl start dlami-nvme), or set model_root to another directory."
            )
        return os.path.normpath(root)

    def _recorded(self, old: Spec | None, root: str) -> Snapshot | None:
        """The recorded result for the wanted revision. No source is asked, so a moved branch changes nothing."""
        wanted = self._wanted
        if wanted.update and not wanted.resolved:
            return None
        candidates: list[Snapshot] = []
        if old is not None and _same_source(old, wanted):
            candidates = list(old.snapshots)
        name = wanted.resolved or wanted.revision
        if name and not wanted.path_in_place and REVISION.fullmatch(name):
            candidates += self._on_disk(os.path.join(root, wanted.slug, name))
        for snapshot in candidates:
            if wanted.resolved in ("", snapshot.revision) and (
                wanted.resolved or wanted.revision in (snapshot.requested, snapshot.revision)
            ):
                return dataclasses.replace(snapshot, requested=wanted.revision)
        return None

    @staticmethod
    def _on_disk(path: str) -> list[Snapshot]:
        """A snapshot that is known by its manifest only: its disk came with a machine image, or a spec was lost."""
        manifest = read_document(os.path.join(path, MANIFEST))
        if manifest is None or manifest.get("revision") != os.path.basename(path):
            return []
        files = tuple(File(one["path"], one["size"], sha256=one["sha256"]) for one in manifest["files"])
        return [Snapshot(manifest["revision"], manifest["requested"], files)]

    def _plan(self, check: bool) -> Snapshot | None:
        """Ask the source. None where only the libraries could, and check mode must not install them."""
        wanted = self._wanted
        if wanted.source == "hub":
            hub = Hub(wanted.endpoint, wanted.name, wanted.token)
            where = f"{wanted.endpoint.rstrip('/')}/{wanted.name}"
            return from_hub(hub, wanted.revision, wanted.resolved, wanted.selection, where)
        if wanted.source == "path":
            return from_path(os.path.normpath(wanted.path), wanted.revision, wanted.selection)
        if check and not (is_complete(wanted.runtime.path) and os.path.exists(wanted.program)):
            self._actions.append(
                f"install {wanted.runtime.path}, then fetch what {wanted.s3_url} has (its size is known then)"
            )
            return None
        return from_s3(
            [self._python, wanted.program], wanted.environment, wanted.s3_url, wanted.revision, wanted.selection
        )

    @property
    def _python(self) -> str:
        if self._wanted.source == "path":
            return sys.executable
        return os.path.join(self._wanted.runtime.path, "bin", "python")

    def _spec(self, root: str, snapshot: Snapshot, old: Spec | None) -> Spec:
        wanted = self._wanted
        kept: tuple[Snapshot, ...] = ()
        if old is not None and old.root == root and _same_source(old, wanted):
            kept = tuple(one for one in old.snapshots if one.revision != snapshot.revision)
        place = wanted.path if wanted.path_in_place else root
        return Spec(
            slug=wanted.slug,
            name=wanted.name,
            source=wanted.described_source,
            selection=wanted.selection,
            root=root,
            mount=fetching.mount_of(place),
            python=self._python,
            environment=wanted.environment,
            parallel=wanted.parallel,
            snapshots=(snapshot, *(one for one in kept if self._is_kept(root, one))),
        )

    def _is_kept(self, root: str, snapshot: Snapshot) -> bool:
        """Whether an earlier revision stays in the spec: while it is on the disk, or a release names it."""
        path = os.path.join(root, self._wanted.slug, snapshot.revision)
        return os.path.isdir(path) or os.path.realpath(path) in fetching.used_paths(
            self._wanted.engine_root, live=False
        )

    def _wrong(self, spec: Spec) -> list[str]:
        if self._wanted.verify != "full" or fetching.unfinished(spec, spec.wanted):
            return []
        return fetching.corrupted(spec, spec.wanted)

    # Room

    def _idle(self, spec: Spec) -> list[Stored]:
        """Unused snapshots, the newest first."""
        specs = [spec, *(one for one in fetching.load_specs(self._wanted.spec_directory) if one.slug != spec.slug)]
        roots = {one.root for one in specs} | self._old_roots
        coming = {one.directory(one.wanted) for one in specs}
        used = fetching.used_paths(self._wanted.engine_root, live=False)
        # A release that names them is not staged yet.
        beside = {slug_of(name) for name in self._wanted.beside}
        used |= {os.path.realpath(one.directory(one.wanted)) for one in specs if one.slug in beside}
        return unused(stored(roots), spec.directory(spec.wanted), coming, used)

    def _make_room(self, spec: Spec, check: bool) -> None:
        """Refuse in time what the disk cannot hold.

        Raises:
            FleetError: with the numbers, and what could be removed.
        """
        need = spec.wanted.size - fetching.present_bytes(spec, spec.wanted)
        free = fetching.free_bytes(spec.root)
        if need + fetching.MARGIN <= free:
            return
        disk = os.stat(fetching.existing_parent(spec.root)).st_dev
        idle = [one for one in self._idle(spec) if os.stat(one.path).st_dev == disk]
        surplus = over_budget(idle, self._wanted.keep)
        if need + fetching.MARGIN <= free + sum(one.size for one in surplus):
            self._remove(surplus, check)
            return
        advice = "Every other snapshot there is in use: set model_root to a larger disk"
        if idle:
            could_go = ", ".join(str(one) for one in idle)
            advice = f"No release names {could_go}: remove such (rm -r, or lower model_keep), or set model_root"
        raise FleetError(f"{fetching.too_small(spec, spec.wanted, need, free)}. {advice}.")

    def _remove(self, snapshots: list[Stored], check: bool) -> None:
        for one in snapshots:
            self._actions.append(f"remove {one}")
            if not check:
                remove(one)
        if not check and snapshots:
            self._forget({one.path for one in snapshots})

    def _forget(self, gone: set[str]) -> None:
        """Do not restore what was removed."""
        for spec in fetching.load_specs(self._wanted.spec_directory):
            kept = tuple(one for one in spec.snapshots if spec.directory(one) not in gone)
            if kept and kept != spec.snapshots:
                self._write_spec(dataclasses.replace(spec, snapshots=kept))
            elif not kept:
                for suffix in ("json", "token"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(self._wanted.spec_directory, f"{spec.slug}.{suffix}"))

    # Changing the host

    def _fetch_action(self, spec: Spec, missing: list[str]) -> str:
        sizes = {file.path: file.size for file in spec.wanted.files}
        total = sum(sizes[path] for path in missing)
        partial = spec.directory(spec.wanted) + fetching.PARTIAL
        there = sum(fetching.partial_bytes(partial, file) for file in spec.wanted.files)
        resumed = f", of which {human_size(there)} are there already" if there else ""
        where = spec.source.get("url") or spec.source.get("path") or spec.source.get("endpoint")
        return (
            f"fetch {len(missing)} files, {human_size(total)}{resumed}, of {spec.name}@{spec.wanted.revision} from "
            f"{where} into {spec.directory(spec.wanted)}"
        )

    def _files(self) -> dict[str, tuple[str, int]]:
        """The files with which the host restores models by itself: content and mode, by path."""
        wanted = self._wanted
        words = ["--spec-directory", wanted.spec_directory, "--run-directory", wanted.run_directory]
        command = shlex.join([_system_python(), wanted.program, *words, "--engine-root", wanted.engine_root])
        # The program comes last: it needs the others.
        beside = (ranges, workers)
        files = {wanted.beside_program(one.__name__): (inspect.getsource(one), 0o644) for one in beside}
        files[wanted.program] = (inspect.getsource(fetching), 0o755)
        for name, content in unit_files(command).items():
            files[os.path.join(wanted.unit_directory, name)] = (content, 0o644)
        if wanted.token_path:
            files[wanted.token_path] = (wanted.token + "\n", 0o600)
        return files

    def _outdated(self) -> list[str]:
        return [path for path, (content, _mode) in self._files().items() if read_text(path) != content]

    def _needs_runtime(self) -> bool:
        return self._wanted.source != "path" and not is_complete(self._wanted.runtime.path)

    def _preview(self, spec: Spec, old: Spec | None) -> None:
        if self._needs_runtime():
            self._actions.append(f"install {self._wanted.runtime.path}")
        self._actions += [f"write {path}" for path in self._outdated()]
        if old != spec:
            self._actions.append(f"write {self._wanted.spec_directory}/{spec.slug}.json")
        if not self._units.is_enabled():
            self._actions.append("enable the restore at boot")
        if self._has_old_token():
            self._actions.append("remove the hub's token")

    def _has_old_token(self) -> bool:
        return not self._wanted.token_path and os.path.exists(self._token_path)

    @property
    def _token_path(self) -> str:
        return os.path.join(self._wanted.spec_directory, f"{self._wanted.slug}.token")

    def _install(self) -> None:
        """Install the fetch program, which also works without Ansible."""
        if self._needs_runtime():
            install(self._wanted.runtime)
            self._actions.append(f"install {self._wanted.runtime.path}")
        make_directories(os.path.dirname(self._wanted.spec_directory))
        make_directories(self._wanted.spec_directory, 0o700)
        outdated = self._outdated()
        for path in outdated:
            content, mode = self._files()[path]
            make_directories(os.path.dirname(path))
            write_atomically(path, content, mode)
            self._actions.append(f"write {path}")
        if any(path.endswith(".service") for path in outdated):
            self._units.reload()
        if not self._units.is_enabled():
            self._units.enable()
            self._actions.append("enable the restore at boot")

    def _record(self, spec: Spec) -> None:
        with locked(os.path.join(self._wanted.spec_directory, ".lock")):
            if self._write_spec(spec):
                self._actions.append(f"write {self._wanted.spec_directory}/{spec.slug}.json")
            if self._has_old_token():
                os.unlink(self._token_path)
                self._actions.append("remove the hub's token")

    def _write_spec(self, spec: Spec) -> bool:
        path = os.path.join(self._wanted.spec_directory, f"{spec.slug}.json")
        content = json.dumps(spec.as_json(), indent=1) + "\n"
        if read_text(path) == content:
            return False
        write_atomically(path, content, 0o600)
        sync_directory(self._wanted.spec_directory)
        return True

    @staticmethod
    def _with_hashes(spec: Spec) -> Spec:
        """Record the content: a restore then accepts nothing else."""
        manifest = read_document(os.path.join(spec.directory(spec.wanted), MANIFEST))
        if manifest is None or manifest.get("revision") != spec.wanted.revision:
            return spec
        found = {one["path"]: one["sha256"] for one in manifest["files"]}
        files = tuple(dataclasses.replace(file, sha256=found.get(file.path, file.sha256)) for file in spec.wanted.files)
        return dataclasses.replace(spec, snapshots=(dataclasses.replace(spec.wanted, files=files), *spec.snapshots[1:]))

    @staticmethod
    def _describe(spec: Spec | None) -> str:
        """A spec for a diff."""
        if spec is None:
            return ""
        lines = [
            f"model: {spec.name}",
            f"source: {json.dumps(spec.source, sort_keys=True)}",
            f"revision: {spec.wanted.revision} (asked for: {spec.wanted.requested or 'the newest'})",
            f"path: {spec.directory(spec.wanted)}",
            f"files: {len(spec.wanted.files)}, {human_size(spec.wanted.size)}",
        ]
        return "\n".join(lines) + "\n"


def _system_python() -> str:
    return "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable


def _same_source(old: Spec, wanted: WantedModel) -> bool:
    """Whether a spec's snapshots are of the wanted model; a mirror or a token makes no other model of it."""
    keys = ("kind", "repository", "url", "path", "in_place")
    new = wanted.described_source
    return old.selection == wanted.selection and all(old.source.get(key) == new.get(key) for key in keys)
