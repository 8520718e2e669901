# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The files of a model, as its source has them now."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import os
import subprocess
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import (
    MANIFEST,
    File,
    Problem,
    Snapshot,
    check_parts,
    one_line,
    read_document,
)
from ansible_collections.inference.fleet.plugins.module_utils.model.hub import Hub

# The same weights in other formats, where a model also has them as safetensors.
_OTHER_FORMATS = ("*.bin", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.pt", "*.pth")
# Every model that an engine can load has one of them.
_DESCRIPTIONS = ("config.json", "params.json")
# Files up to this size are hashed whole for the content's name, of larger ones a sample at both ends.
_SMALL = 16 * 1024 * 1024
_SAMPLE = 1024 * 1024


def select(files: t.Iterable[File], selection: dict[str, list[str]]) -> tuple[File, ...]:
    """The files to fetch from a source.

    Args:
        files: all of them.
        selection: ``include`` (empty for all) and ``exclude``, patterns of paths.
    """
    seen = [file for file in files if not any(part.startswith(".") for part in file.path.split("/"))]
    include, exclude = selection["include"], [*selection["exclude"]]
    if any(file.path.endswith(".safetensors") for file in seen):
        exclude += _OTHER_FORMATS
    chosen = [
        file for file in seen if (not include or _matches(file.path, include)) and not _matches(file.path, exclude)
    ]
    return tuple(sorted(chosen, key=lambda file: file.path))


def _matches(path: str, patterns: t.Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def check_model(files: t.Collection[File], where: str) -> None:
    """Refuse a model that no engine could load.

    Raises:
        FleetError: there is no description of a model.
    """
    names = {file.path for file in files}
    if not names.intersection(_DESCRIPTIONS) and not any(name.endswith(".gguf") for name in names):
        found = ", ".join(sorted(names)[:5]) or "nothing"
        raise FleetError(
            f"There is no model at {where}: neither {' nor '.join(_DESCRIPTIONS)} is there (found: {found}). Name the "
            "directory that holds the weights, and check model_include and model_exclude."
        )


def from_hub(hub: Hub, requested: str, commit: str, selection: dict[str, list[str]], where: str) -> Snapshot:
    """The files on a hub.

    Args:
        hub: the model there.
        requested: branch, tag or commit; empty for the default branch.
        commit: where it was resolved already; empty to resolve it.
        selection: patterns of the files to fetch.
        where: for messages.
    """
    commit = commit or hub.resolve(requested or "main")
    files = select(hub.files(commit), selection)
    check_model(files, where)
    return Snapshot(commit, requested, files)


def from_path(path: str, requested: str, selection: dict[str, list[str]]) -> Snapshot:
    """The files of a directory on the host."""
    if not os.path.isdir(path):
        raise FleetError(f"model_path is {path}, which is no directory on this host. Mount it, or correct the path.")
    found = []
    for directory, directories, names in os.walk(path):
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in names:
            full = os.path.join(directory, name)
            found.append(File(os.path.relpath(full, path), os.stat(full).st_size))
    files = select(found, selection)
    check_model(files, f"{path} (model_path)")
    try:
        check_parts(path, {file.path for file in files}, f"{path} (model_path)")
    except Problem as error:
        raise FleetError(str(error)) from error
    files = _with_manifest(files, read_document(os.path.join(path, MANIFEST)))
    known = {file.path: file.sha256 or _sample(os.path.join(path, file.path), file.size) for file in files}
    return Snapshot(requested or _content_id(files, known), requested, files)


def from_s3(
    command: list[str],
    environment: dict[str, str],
    url: str,
    requested: str,
    selection: dict[str, list[str]],
) -> Snapshot:
    """The files below an S3 prefix.

    Args:
        command: the fetch program, in the interpreter that has boto3.
        environment: for it.
        url: s3://bucket/prefix.
        requested: name of the revision; empty to name it after its content.
        selection: patterns of the files to fetch.
    """
    done = subprocess.run(
        [*command, "list-s3", url],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise FleetError(f"Failed to list {url} (model_s3_url): {done.stderr.strip()[-1000:]}")
    try:
        listing = json.loads(done.stdout)
        found = [File(**one) for one in listing["files"]]
    except (ValueError, TypeError, Problem) as error:
        raise FleetError(f"Failed to list {url} (model_s3_url): {one_line(error)}") from error
    files = _with_manifest(select(found, selection), listing["manifest"])
    check_model(files, f"{url} (model_s3_url)")
    known = {file.path: file.sha256 or file.etag for file in files}
    return Snapshot(requested or _content_id(files, known), requested, files)


def _with_manifest(files: tuple[File, ...], manifest: dict[str, t.Any] | None) -> tuple[File, ...]:
    """Use the hashes of a snapshot that was copied, with its manifest, to a bucket or a share."""
    recorded = {one["path"]: one for one in (manifest or {}).get("files", ())}
    return tuple(
        dataclasses.replace(file, sha256=recorded[file.path]["sha256"])
        if file.path in recorded and recorded[file.path]["size"] == file.size and not file.sha256
        else file
        for file in files
    )


def _sample(path: str, size: int) -> str:
    """A cheap name for a file's content: small files whole, of large ones both ends."""
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        if size <= _SMALL:
            hasher.update(file.read())
        else:
            hasher.update(file.read(_SAMPLE))
            file.seek(-_SAMPLE, os.SEEK_END)
            hasher.update(file.read(_SAMPLE))
    return hasher.hexdigest()


def _content_id(files: t.Iterable[File], known: dict[str, str]) -> str:
    """A revision for a source without one: the same for the same content, on every host."""
    content = json.dumps([(file.path, file.size, known[file.path]) for file in files])
    return f"content-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
