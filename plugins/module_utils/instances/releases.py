# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Releases: everything that determines what an instance runs, immutable, in a directory named by its content.

Layout under the root (``/opt/inference``)::

    releases/<engine>-<hash>/   config.yaml  environment  manifest.json  runtime -> ../../runtimes/<id>
                                and further files that the process reads
    instances/<i>/current       the release that the unit starts
    instances/<i>/good          the last one that passed its gate
    instances/<i>/previous      the good one before that, for playbooks/rollback.yml
    instances/<i>/trial         a file with the name of `current`, where that is only tried
    staged/<i>                  the one that waits for the instance's turn

A release is garbage when none of these names it, no process runs it and no unfinished rollout deploys it. A number of
releases is kept beyond that, as history.

An instance's unit file is that of its release, ``<engine>@<i>.service`` beside the template ``<engine>@.service``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import (
    locked,
    read_json,
    read_text,
    write_atomically,
)
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.engines.options import (
    explain_refused_options,
    render_config,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import kind, units
from ansible_collections.inference.fleet.plugins.module_utils.instances.staging import Staging, runtime_link
from ansible_collections.inference.fleet.plugins.module_utils.runtimes.runtime import is_complete, lock_path

LINKS = ("current", "good", "previous")
TRIAL = "trial"
UNIT_DIRECTORY = "/etc/systemd/system"
CACHE_DIRECTORY = "/var/cache/inference"
_UNFINISHED = (".staging-", ".removing-")


@dataclasses.dataclass(frozen=True)
class Release:
    """The content of a release for one instance.

    Attributes:
        index: the instance's.
        engine: what runs: one of KINDS.
        version: the engine's.
        runtime: the runtime's directory name.
        model: its name on the hub, for people.
        model_path: its directory on the host; empty where no model is loaded.
        draft_path: that of the draft model; empty for none.
        revision: the model's.
        served_name: the model name that clients use.
        options: the engine's options, as in its config file.
        environment: of the engine's process.
        unit: the text of the unit file, because it determines how the process runs; empty for none of its own.
        files: further files, by their names.
        span: the host's place in an instance that spans hosts, as ``InstanceSpan.as_dict`` gives it.
    """

    index: int
    engine: str
    version: str
    runtime: str
    model: str
    model_path: str
    draft_path: str
    revision: str
    served_name: str
    options: dict[str, t.Any]
    environment: dict[str, str]
    unit: str
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    span: dict[str, t.Any] = dataclasses.field(default_factory=dict)

    @property
    def agreement(self) -> str:
        """A digest of what all nodes of an instance must share: only then may they start as one."""
        own = {"node-rank", *kind(self.engine).options.node}
        same = {name: value for name, value in self.options.items() if name not in own}
        shared = [self.engine, self.version, self.runtime, self.model, self.revision, same, self.span.get("nodes")]
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        content = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return f"{self.engine}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def config(self) -> str:
        return render_config(self.engine, self.options)

    @property
    def described(self) -> str:
        """The release as one text, for a diff."""
        return _described(dataclasses.asdict(self), self.config, self.environment_file)

    @property
    def environment_file(self) -> str:
        return "".join(f'{name}="{_quoted(value)}"\n' for name, value in sorted(self.environment.items()))


def _described(manifest: dict[str, t.Any], config: str, environment: str) -> str:
    head = "".join(f"# {key}: {manifest[key]}\n" for key in ("version", "runtime", "model_path") if manifest.get(key))
    files = manifest.get("files") or {}
    digests = {name: hashlib.sha256(files[name].encode()).hexdigest() for name in sorted(files)}
    head += "".join(f"# {name}: {digest[:12]}\n" for name, digest in digests.items())
    return f"{head}{config}{environment}"


def _quoted(value: str) -> str:
    if "\n" in value:
        raise FleetError(f"A value in the engine's environment has a line break: {value!r}. Remove it.")
    return value.replace("\\", "\\\\").replace('"', '\\"')


class Releases:
    """The releases and instances of one host.

    Args:
        root: ``/opt/inference`` on a real host.
        unit_directory: where the units of the instances are written.
    """

    def __init__(self, root: str, unit_directory: str = UNIT_DIRECTORY) -> None:
        self._root = root
        self._unit_directory = unit_directory
        self._staging = Staging(root)

    def path(self, name: str) -> str:
        return os.path.join(self._root, "releases", name)

    def exists(self, name: str) -> bool:
        """Whether a release exists and is complete: the manifest is written last."""
        return os.path.exists(os.path.join(self.path(name), "manifest.json"))

    def manifest(self, name: str | None) -> dict[str, t.Any]:
        """The manifest of a release; empty for none."""
        return read_json(os.path.join(self.path(name), "manifest.json")) or {} if name else {}

    def linked(self, index: int, link: str) -> str | None:
        """The release that an instance's ``current``, ``good`` or ``previous`` names."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.path.basename(os.readlink(os.path.join(self._root, "instances", str(index), link)))
        return None

    def described(self, name: str | None) -> str:
        """The files of a release as one text, for a diff."""
        if not name:
            return ""
        files = (read_text(os.path.join(self.path(name), file)) or "" for file in ("config.yaml", "environment"))
        return _described(self.manifest(name), *files)

    def stage(self, release: Release, check_options: bool = True) -> None:
        """Write a release and stage it for its instance; a running instance is not touched.

        Raises:
            FleetError: the engine's own parser refuses the options.
        """
        with self._changing():
            self._remove_unfinished()
            temporary = tempfile.mkdtemp(dir=os.path.join(self._root, "releases"), prefix=_UNFINISHED[0])
            try:
                self._write(release, temporary, check_options)
                if os.path.isdir(self.path(release.name)):
                    _remove(self.path(release.name))
                os.rename(temporary, self.path(release.name))
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            self._keep(release.index, release.name)

    def keep_staged(self, index: int, name: str, dry_run: bool = False) -> bool:
        """Stage an existing release for an instance; True when it was not staged yet.

        Raises:
            FleetError: it was removed in the meantime.
        """
        needed = None if self.linked(index, "current") == name else name
        changes = self._staging.target(str(index)) != needed
        if not dry_run:
            with self._changing():
                if not self.exists(name):
                    raise FleetError(f"Another run has just removed release {name} under {self._root}. Run again.")
                self._keep(index, name)
        return changes

    def forget_staged(self, index: int, dry_run: bool = False) -> bool:
        """Unstage an instance's release; True when there was one."""
        if dry_run:
            return self._staging.target(str(index)) is not None
        return self._staging.drop(str(index))

    def staged(self, index: int) -> str | None:
        """The staged release of an instance."""
        return self._staging.target(str(index))

    def staged_indexes(self) -> list[int]:
        """The instances with a staged release, whether or not the host has them yet."""
        return self._staging.indexes()

    def _keep(self, index: int, name: str) -> None:
        if self.linked(index, "current") == name:
            self._staging.drop(str(index))
        else:
            self._staging.keep(str(index), "releases", name)
        # From here on the release keeps the runtime.
        manifest = self.manifest(name)
        self._staging.drop(runtime_link(str(manifest.get("engine"))), str(manifest.get("runtime")))

    def _changing(self) -> contextlib.AbstractContextManager[None]:
        """Keep other runs from writing or removing releases; validating an engine's options takes half a minute."""
        make_directories(os.path.join(self._root, "releases"))
        return locked(os.path.join(self._root, "releases", ".lock"), timeout=600)

    def _write(self, release: Release, directory: str, check_options: bool) -> None:
        os.chmod(directory, 0o755)  # noqa: S103 - the engines run as a user of their own
        runtime = os.path.join("..", "..", "runtimes", release.runtime)
        os.symlink(runtime, os.path.join(directory, "runtime"))
        write_atomically(os.path.join(directory, "config.yaml"), release.config)
        write_atomically(os.path.join(directory, "environment"), release.environment_file)
        for file, text in release.files.items():
            write_atomically(os.path.join(directory, os.path.basename(file)), text)
        if check_options:
            self.check_options(release, os.path.join(directory, "config.yaml"))
        launch = kind(release.engine).launch
        manifest = {
            "release": release.name,
            "created": times.now(),
            # For the programs before each start, which do not know the engines.
            "key_options": dict(launch.key_options),
            "several_gpus_by": launch.several_gpus_by,
            "command": launch.command,
            "agreement": release.agreement,
            **dataclasses.asdict(release),
        }
        write_atomically(os.path.join(directory, "manifest.json"), json.dumps(manifest, indent=1) + "\n")

    def check_options(self, release: Release, config_path: str | None = None) -> None:
        """Validate the options with the engine's own parser.

        Args:
            release: the release.
            config_path: its config file, where it is already written.

        Raises:
            FleetError: refused, with the engine's reason and the nearest known option.
        """
        python = os.path.join(self._root, "runtimes", release.runtime, "bin", "python")
        with tempfile.TemporaryDirectory() as home:
            if config_path is None:
                config_path = os.path.join(home, "config.yaml")
                write_atomically(config_path, release.config)
            # This runs as root: a cache that it creates would be unreadable for the engine.
            environment = {name: value.replace(CACHE_DIRECTORY, home) for name, value in release.environment.items()}
            done = subprocess.run(
                [python, "-c", kind(release.engine).launch.check_program, config_path],
                env={"PATH": os.environ.get("PATH", os.defpath), **environment, "HOME": home},
                cwd=home,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            known: list[str] = []
            with contextlib.suppress(ValueError, IndexError):
                known = json.loads(done.stdout.strip().splitlines()[-1])
            raise FleetError(explain_refused_options(release.engine, release.version, done.stderr, known))

    def _remove_unfinished(self) -> None:
        for name in ("releases", "runtimes"):
            directory = os.path.join(self._root, name)
            for entry in os.listdir(directory) if os.path.isdir(directory) else []:
                if entry.startswith(_UNFINISHED):
                    shutil.rmtree(os.path.join(directory, entry), ignore_errors=True)

    def point(self, index: int, link: str, name: str) -> bool:
        """Point an instance's link to a release; True when it did not already."""
        directory = os.path.join(self._root, "instances", str(index))
        make_directories(directory)
        if self.linked(index, link) == name:
            return False
        temporary = os.path.join(directory, f".{link}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.path.join("..", "..", "releases", name), temporary)
        os.replace(temporary, os.path.join(directory, link))
        return True

    def activate(self, index: int, name: str, trial: bool = False) -> bool:
        """Make a release the one of the instance's next start, with its unit.

        Args:
            index: the instance's.
            name: the release's.
            trial: whether it is only tried, so that a later run does not keep it.

        Raises:
            FleetError: there is no such release.
        """
        if not self.exists(name):
            raise FleetError(f"There is no complete release {name} under {self._root}/releases. Run site.yml again.")
        written = self._write_unit(index, name)
        mark = os.path.join(self._root, "instances", str(index), TRIAL)
        if trial:
            # First: at no moment is it taken for what somebody wants.
            make_directories(os.path.dirname(mark))
            write_atomically(mark, name + "\n")
        pointed = self.point(index, "current", name)
        if not trial:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(mark)
        self._staging.drop(str(index), name)
        return pointed or written

    def trial(self, index: int) -> str | None:
        """The current release of an instance where it is only tried, as a search that was broken off has left it."""
        current = self.linked(index, "current")
        marked = (read_text(os.path.join(self._root, "instances", str(index), TRIAL)) or "").strip()
        return current if current and marked == current != self.linked(index, "good") else None

    def kept(self, index: int) -> str | None:
        """The release that an instance is to run as it is: its current one, or the last good one during a trial."""
        return self.linked(index, "good" if self.trial(index) else "current")

    def _write_unit(self, index: int, name: str) -> bool:
        manifest = self.manifest(name)
        unit = manifest.get("unit") or ""
        path = os.path.join(self._unit_directory, f"{manifest.get('engine')}@{index}.service")
        if not unit or read_text(path) == unit:
            return False
        write_atomically(path, unit)
        return True

    def mark_good(self, index: int, forget_previous: bool = False) -> bool:
        """Record that the current release passed its gate.

        Args:
            index: the instance's.
            forget_previous: the previous good release was replaced on purpose; do not go back to it.
        """
        current, good = self.linked(index, "current"), self.linked(index, "good")
        if current is None or current == good:
            return False
        if forget_previous:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._root, "instances", str(index), "previous"))
        elif good is not None:
            self.point(index, "previous", good)
        return self.point(index, "good", current)

    def restorable(self, index: int) -> str | None:
        """The last good release, which may be the current one; None when there is none."""
        good = self.linked(index, "good")
        return good if good is not None and self.exists(good) else None

    def earlier(self, index: int) -> str | None:
        """The release for a rollback by hand: the last good one, or the previous one where that is current."""
        good = self.linked(index, "good")
        name = self.linked(index, "previous") if good == self.linked(index, "current") else good
        return name if name is not None and self.exists(name) else None

    def indexes(self) -> list[int]:
        """The instances that the host has."""
        return sorted(int(name) for name in self._directories("instances") if name.isdigit())

    def forget(self, index: int, dry_run: bool = False) -> bool:
        """Remove an instance's links and its unit files; its releases are pruned later.

        Returns:
            Whether there was anything to remove.
        """
        self.forget_staged(index, dry_run)
        paths = [os.path.join(self._root, "instances", str(index))]
        paths += [os.path.join(self._unit_directory, unit) for unit in units(index=index)]
        found = [path for path in paths if os.path.lexists(path)]
        for path in [] if dry_run else found:
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        return bool(found)

    def missing(self, name: str) -> str:
        """The missing parts of a release; empty when it is complete."""
        manifest = self.manifest(name)
        runtime = os.path.join(self._root, "runtimes", str(manifest.get("runtime")))
        if not is_complete(runtime):
            return f"its runtime {runtime}"
        for what, weights in (("model", manifest.get("model_path")), ("draft model", manifest.get("draft_path"))):
            if weights and not os.path.exists(os.path.join(str(weights), "config.json")):
                return f"its {what} under {weights}"
        return ""

    def prune(self, keep: int, used: t.Collection[str] = (), dry_run: bool = False) -> list[str]:
        """Remove unused releases, beyond the newest ``keep``, and runtimes that no release uses.

        Args:
            keep: the number of unused releases to keep as history.
            used: further releases in use: the running ones, and those of an unfinished rollout.
            dry_run: only return what would be removed.

        Returns:
            The paths that were removed, or would be.
        """
        if dry_run:
            return [*self._old_releases(keep, used), *self._old_runtimes(keep, used)]
        with self._changing():
            self._remove_unfinished()
            releases, runtimes = self._old_releases(keep, used), self._old_runtimes(keep, used)
            for path in releases:
                _remove(path)
            return [*releases, *(path for path in runtimes if self._remove_runtime(path))]

    def _old_releases(self, keep: int, used: t.Collection[str]) -> list[str]:
        referred = {*used, *self._staging.releases()}
        for index in self.indexes():
            referred |= {name for name in (self.linked(index, link) for link in LINKS) if name}
        newest_first = sorted(
            (name for name in self._directories("releases") if name not in referred),
            key=lambda name: str(self.manifest(name).get("created", "")),
            reverse=True,
        )
        return [self.path(name) for name in newest_first[keep:]]

    def _old_runtimes(self, keep: int, used: t.Collection[str]) -> list[str]:
        old = set(self._old_releases(keep, used))
        stay = [name for name in self._directories("releases") if self.path(name) not in old]
        referred = {self.manifest(name).get("runtime") for name in stay} | self._staging.runtimes()
        names = (name for name in self._directories("runtimes") if name not in referred)
        return [os.path.join(self._root, "runtimes", name) for name in names]

    def _remove_runtime(self, path: str) -> bool:
        """Remove a runtime unless another run installs it, or has just staged a release with it."""
        try:
            with locked(lock_path(path), timeout=0):
                if os.path.basename(path) in self._staging.runtimes():
                    return False
                _remove(path)
        except FleetError:
            return False
        return True

    def _directories(self, kind: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(e.name for e in os.scandir(os.path.join(self._root, kind)) if e.is_dir() and e.name[0] != ".")
        return []


def _remove(path: str) -> None:
    """Remove a directory; after an interruption the rest does not look complete."""
    directory, name = os.path.split(path)
    doomed = os.path.join(directory, f"{_UNFINISHED[1]}{name}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed)
