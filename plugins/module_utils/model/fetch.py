#!/usr/bin/python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Bring the weights of a model to a host's disk, whole or not at all.

This file is two things: what module model_snapshot imports, and the program that it installs on the host as
``model_fetch.py``, for the units that download weights and bring them back after the disk was emptied. So it imports
nothing of Ansible, and the libraries of a source (huggingface_hub, hf_xet, boto3) only where that source is used. The
only other files that it needs are ``ranges.py`` and ``workers.py``, installed beside it as ``model_….py``.

Layout below a spec's root::

    <slug>/<revision>/            a snapshot: complete, because it was renamed to this name last
    <slug>/<revision>/.manifest.json
    <slug>/<revision>.partial/    one that is being fetched; <file>.part grows, <file> is verified; from S3
                                  <file>.sparse has gaps, and <file>.spans says what is in it
    <slug>/.lock                  held during a fetch
"""

from __future__ import annotations

import abc
import argparse
import base64
import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import fcntl
import functools
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import typing as t

if t.TYPE_CHECKING or __name__ != "__main__":
    from ansible_collections.inference.fleet.plugins.module_utils.model.ranges import Record, length, read_spans
    from ansible_collections.inference.fleet.plugins.module_utils.model.workers import Workers, processes
else:
    from model_ranges import Record, length, read_spans
    from model_workers import Workers, processes

SPEC_DIRECTORY = "/etc/inference/models.d"
RUN_DIRECTORY = "/run/inference-models"
MANIFEST = ".manifest.json"
JOURNAL = ".verified.json"
PARTIAL = ".partial"
PART = ".part"
SPARSE = ".sparse"
SPANS = ".spans"

#: Read and written at once.
BLOCK = 4 * 1024 * 1024
#: Asked of a connection at once; what it has of a piece when it breaks is lost.
PIECE = 256 * 1024
#: Ranges of S3 objects at a time, and the size of one in MiB; roles/model/defaults says why.
S3_RANGES = 32
S3_RANGE_MIB = 16
#: Failures in a row, without one byte between them, after which a file is given up.
ATTEMPTS = 6
#: Copies with a wrong content after which a file is given up.
WRONG_COPIES = 3
#: Seconds without a byte after which the program ends, to be started again.
STALL = 300.0
#: Seconds to wait for the disk to be mounted.
MOUNT_PATIENCE = 120.0
#: Kept free beyond what the model needs.
MARGIN = 64 * 1024 * 1024


class Problem(Exception):
    """A failure that a person has to do something about; the message says what."""


class Passing(Exception):
    """A failure that may be gone at the next try."""


class Unwritable(Exception):
    """The disk does not take a file; the message is the system's."""


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a snapshot, and what its source says of its content.

    Attributes:
        path: below the snapshot, with slashes.
        size: in bytes.
        sha256: of the content; empty where the source does not tell.
        git_sha1: git's name of the content, for small files of a hub.
        md5: of the content, where S3's ETag is one.
        etag: S3's, which pins the object.
        xet: the file's name in Xet storage.
        part_size: of the parts in which the object was put, where its ETag is made of their MD5s; else 0.
    """

    path: str
    size: int
    sha256: str = ""
    git_sha1: str = ""
    md5: str = ""
    etag: str = ""
    xet: str = ""
    part_size: int = 0

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if self.path.startswith("/") or "\0" in self.path or any(part in ("", ".", "..") for part in parts):
            raise Problem(f"The source names a file {self.path!r}, which would lie outside the snapshot. Refused.")

    @property
    def is_verifiable(self) -> bool:
        return bool(self.sha256 or self.git_sha1 or self.md5 or self.part_size)

    def as_json(self) -> dict[str, t.Any]:
        return {key: value for key, value in dataclasses.asdict(self).items() if value or key in ("path", "size")}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What a revision consists of.

    Attributes:
        revision: the directory's name; for a hub the commit.
        requested: what was asked for: a branch, a tag, a commit, or nothing.
        files: all of them.
    """

    revision: str
    requested: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def as_json(self) -> dict[str, t.Any]:
        return {
            "revision": self.revision,
            "requested": self.requested,
            "size_bytes": self.size,
            "files": [file.as_json() for file in self.files],
        }

    @classmethod
    def from_json(cls, value: dict[str, t.Any]) -> Snapshot:
        return cls(value["revision"], value["requested"], tuple(File(**file) for file in value["files"]))


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a host needs to know to bring a model back without anybody's help.

    Attributes:
        slug: the model's directory name.
        name: the model's name.
        source: kind (hub, s3 or path) and where it is.
        selection: patterns of what is fetched of it.
        root: directory of all models.
        mount: where the root's disk is mounted; nothing is written before it is.
        python: the interpreter that has the source's libraries.
        environment: for the download: proxies, certificates, AWS_*.
        parallel: files at a time.
        snapshots: the wanted one first, then those that releases still need.
    """

    slug: str
    name: str
    source: dict[str, t.Any]
    selection: dict[str, list[str]]
    root: str
    mount: str
    python: str
    environment: dict[str, str]
    parallel: int
    snapshots: tuple[Snapshot, ...]

    @property
    def wanted(self) -> Snapshot:
        return self.snapshots[0]

    def directory(self, snapshot: Snapshot) -> str:
        if self.source.get("in_place"):
            return str(self.source["path"])
        return os.path.join(self.root, self.slug, snapshot.revision)

    def as_json(self) -> dict[str, t.Any]:
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"version": 1, **plain, "snapshots": [snapshot.as_json() for snapshot in self.snapshots]}

    @classmethod
    def from_json(cls, value: dict[str, t.Any]) -> Spec:
        if value.get("version") != 1:
            raise Problem(f"The spec of {value.get('slug')} has version {value.get('version')!r}; run site.yml again.")
        plain = {field.name: value[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**plain, "snapshots": tuple(Snapshot.from_json(one) for one in value["snapshots"])})


def human_size(count: float) -> str:
    """Bytes for people, in binary units."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def read_document(path: str) -> dict[str, t.Any] | None:
    """The JSON object in ``path``; None where there is none, or none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_document(path: str, value: dict[str, t.Any], durable: bool = True) -> None:
    """Replace ``path`` by a JSON object, in one step."""
    temporary = f"{path}.{os.getpid()}.{threading.get_ident()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mount_of(path: str) -> str:
    """The mount point of the disk that holds ``path``, or will."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def existing_parent(path: str) -> str:
    """The nearest directory above ``path`` that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def free_bytes(path: str) -> int:
    """What an ordinary write below ``path`` may still take."""
    return shutil.disk_usage(existing_parent(path)).free


# What is on the disk ------------------------------------------------------------------------------------------------


def unfinished(spec: Spec, snapshot: Snapshot) -> list[str]:
    """The files that keep a snapshot from being complete, by name and size; all of them where it has no manifest."""
    directory = spec.directory(snapshot)
    names = [file.path for file in snapshot.files]
    if not spec.source.get("in_place"):
        manifest = read_document(os.path.join(directory, MANIFEST))
        if manifest is None or manifest.get("revision") != snapshot.revision:
            return names
        recorded = {one.get("path"): one.get("size") for one in manifest.get("files", ())}
        if recorded != {file.path: file.size for file in snapshot.files}:
            return names
    return [file.path for file in snapshot.files if size_of(os.path.join(directory, file.path)) != file.size]


def corrupted(spec: Spec, snapshot: Snapshot) -> list[str]:
    """The files whose content is not what the manifest says. Reads everything."""
    directory = spec.directory(snapshot)
    manifest = read_document(os.path.join(directory, MANIFEST))
    recorded = {one["path"]: one["sha256"] for one in manifest["files"]} if manifest else {}
    known = {file.path: recorded.get(file.path) or file.sha256 for file in snapshot.files}

    def differs(path: str) -> bool:
        hasher = hashlib.sha256()
        for block in blocks(os.path.join(directory, path)):
            hasher.update(block)
        return hasher.hexdigest() != known[path]

    names = [path for path in known if known[path]]
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return [path for path, wrong in zip(names, pool.map(differs, names)) if wrong]


def withdraw(spec: Spec, snapshot: Snapshot, wrong: t.Iterable[str]) -> None:
    """Make a snapshot unfinished again: its name must not promise what it does not hold.

    Its other files are verified again before they are taken for good: what spoilt one may have spoilt more.
    """
    directory = spec.directory(snapshot)
    partial = directory + PARTIAL
    if os.path.isdir(partial):
        shutil.rmtree(partial)
    os.rename(directory, partial)
    for path in wrong:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(partial, path))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(partial, MANIFEST))
    sync_directory(os.path.dirname(directory))


def journal_entry(path: str, file: File, sha256: str) -> dict[str, t.Any]:
    """What is remembered of a verified file, so that it is not read again."""
    status = os.stat(path)
    # A revision that an operator named may be another object by now.
    pinned = {"etag": file.etag} if file.etag else {}
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256, **pinned}


def size_of(path: str) -> int:
    """A file's size; -1 for none."""
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def partial_bytes(partial: str, file: File) -> int:
    """How much of a file is in an unfinished directory."""
    path = os.path.join(partial, file.path)
    return min(file.size, max(0, size_of(path), size_of(path + PART), length(held_spans(path, file))))


def held_spans(path: str, file: File) -> list[tuple[int, int]]:
    """What is there of a file that arrives in ranges."""
    return read_spans(path + SPANS, path + SPARSE, file.etag, file.size, file.is_verifiable)


def present_bytes(spec: Spec, snapshot: Snapshot) -> int:
    """How much room a snapshot already takes, finished or not."""
    directory = spec.directory(snapshot)
    places = (directory, directory + PARTIAL)
    return sum(max(partial_bytes(place, file) for place in places) for file in snapshot.files)


def blocks(path: str) -> t.Iterator[bytes]:
    with open(path, "rb") as file:
        while True:
            block = file.read(BLOCK)
            if not block:
                return
            yield block


def used_paths(engine_root: str, live: bool) -> set[str]:
    """The model directories that releases name.

    Args:
        engine_root: where releases and instances are.
        live: only those that an instance would start, or go back to.
    """
    instances = os.path.join(engine_root, "instances")
    releases = os.path.join(engine_root, "releases")
    if live:
        found = [os.path.join(instances, one, link) for one in listed(instances) for link in ("current", "good")]
    else:
        found = [os.path.join(releases, one) for one in listed(releases)]
    manifests = (read_document(os.path.join(directory, "manifest.json")) for directory in found)
    names = ("model_path", "draft_path")
    return {os.path.realpath(str(one[name])) for one in manifests if one for name in names if one.get(name)}


def listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def check_parts(directory: str, names: t.Collection[str], where: str) -> None:
    """Refuse a source whose own index names weights that it does not have.

    Raises:
        Problem: it does.
    """
    for name in names:
        if not name.endswith(".index.json"):
            continue
        index = read_document(os.path.join(directory, name))
        weights = index.get("weight_map") if index else None
        if not isinstance(weights, dict):
            continue
        folder = name.rpartition("/")[0]
        needed = {f"{folder}/{one}" if folder else str(one) for one in weights.values()}
        missing = sorted(needed.difference(names))
        if missing:
            raise Problem(
                f"{where} is not whole: its {name} names {len(needed)} files with weights, and {len(missing)} of them "
                f"are not there ({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}). Complete the source, or "
                "correct model_include and model_exclude."
            )


# Sources ------------------------------------------------------------------------------------------------------------


class Source(t.Protocol):
    """Where files come from."""

    def read(self, file: File, offset: int) -> t.Iterator[bytes]:
        """The content of ``file`` from ``offset`` on.

        Raises:
            Problem: it will not be had by trying again.
            Passing: it may be.
        """
        ...


class RangedSource(abc.ABC):
    """Where files come from in ranges, many at a time.

    Attributes:
        ranges: how many at a time, of all files together.
        range_size: bytes of one.
    """

    ranges: int
    range_size: int

    @abc.abstractmethod
    def read_range(self, file: File, start: int, end: int) -> t.Iterator[bytes]:
        """The content of ``file`` from ``start`` to before ``end``.

        Raises:
            Problem: it will not be had by trying again.
            Passing: it may be.
        """

    def copy_range(self, file: File, start: int, end: int, path: str) -> t.Iterator[int]:
        """Write a range to its place in the file at ``path``; yields how many bytes were written, piece by piece.

        Raises:
            Unwritable: the disk does not take it.
            Problem: as above.
            Passing: as above.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unwritable(error.strerror or str(error)) from error
        try:
            for chunk in self.read_range(file, start, end):
                taken = chunk[: end - start]
                write_at(descriptor, taken, start)
                start += len(taken)
                yield len(taken)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def copying(self, count: int) -> t.Iterator[Copy]:
        """What copies ranges, while the block runs.

        Args:
            count: ranges that are to be copied.
        """
        del count
        yield self.copy_range


#: File, first byte, the one after the last, path: the counts of bytes that were written to it.
Copy = t.Callable[[File, int, int, str], t.Iterator[int]]


def write_at(descriptor: int, chunk: bytes, offset: int) -> None:
    """Write all of a chunk.

    Raises:
        Unwritable: the disk does not take it.
    """
    rest = memoryview(chunk)
    try:
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest, offset = rest[written:], offset + written
    except OSError as error:
        raise Unwritable(error.strerror or str(error)) from error


class PathSource:
    """A directory on the host, for example a network file system."""

    def __init__(self, spec: Spec) -> None:
        self._path = str(spec.source["path"])

    def read(self, file: File, offset: int) -> t.Iterator[bytes]:
        try:
            with open(os.path.join(self._path, file.path), "rb") as stream:
                stream.seek(offset)
                while True:
                    block = stream.read(BLOCK)
                    if not block:
                        return
                    yield block
        except FileNotFoundError as error:
            raise Problem(f"{error.filename} is gone; it was there when the copy was planned.") from error
        except OSError as error:
            raise Passing(f"{error.filename or self._path}: {error.strerror or error}") from error


class HubSource:
    """A Hugging Face hub or a mirror of one, through huggingface_hub and, where it offers that, Xet storage."""

    def __init__(self, spec: Spec, revision: str) -> None:
        # The library reads its settings when it is imported.
        os.environ.setdefault("HF_HOME", os.path.join(RUN_DIRECTORY, "hub"))
        os.environ.update(dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_IMPLICIT_TOKEN"), "1"))
        os.environ["HF_HUB_OFFLINE"] = "0"
        self._hub: t.Any = importlib.import_module("huggingface_hub")
        self._utils: t.Any = importlib.import_module("huggingface_hub.utils")
        self._endpoint = str(spec.source["endpoint"]).rstrip("/")
        self._name = str(spec.source["repository"])
        self._revision = revision
        self._headers = self._utils.build_hf_headers(token=self._token(spec) or False, library_name="inference.fleet")
        self._without_xet: set[str] = set()
        self._xet: t.Any = None
        if spec.source.get("xet"):
            self._xet = importlib.import_module("hf_xet")
            self._xet_session = self._xet.XetSession()

    @staticmethod
    def _token(spec: Spec) -> str:
        path = spec.source.get("token_file")
        if not path:
            return ""
        try:
            with open(str(path), encoding="utf-8") as file:
                return file.read().strip()
        except OSError as error:
            raise Problem(f"The hub's token cannot be read: {error}. Run site.yml again.") from error

    def read(self, file: File, offset: int) -> t.Iterator[bytes]:
        if self._xet is not None and file.xet and file.path not in self._without_xet:
            try:
                yield from self._read_xet(file, offset)
            except Exception as error:
                self._without_xet.add(file.path)
                raise Passing(f"{file.path} from Xet storage: {one_line(error)}; going on over HTTP") from error
            return
        try:
            yield from self._read_http(file, offset)
        except Passing:
            raise
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403, 404, 410, 451):
                raise Problem(
                    f"{self._endpoint} answers {status} for {file.path} of {self._name} at {self._revision}: "
                    f"{one_line(error)}. If the model is gated or private, give a token that may read it "
                    "(model_token_file)."
                ) from error
            raise Passing(f"{file.path} from {self._endpoint}: {one_line(error)}") from error

    def _read_http(self, file: File, offset: int) -> t.Iterator[bytes]:
        url = self._hub.hf_hub_url(self._name, file.path, revision=self._revision, endpoint=self._endpoint)
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self._hub.get_session().stream("GET", url, headers=headers, timeout=60) as response:
            self._utils.hf_raise_for_status(response)
            # Piece by piece as they come: what is gathered first is lost when the connection breaks. And a server may
            # ignore the range and send all of it.
            skip = offset if response.status_code == 200 else 0
            for chunk in response.iter_bytes():
                if len(chunk) <= skip:
                    skip -= len(chunk)
                    continue
                yield chunk[skip:]
                skip = 0

    def _read_xet(self, file: File, offset: int) -> t.Iterator[bytes]:
        authorization = {key: value for key, value in self._headers.items() if key.lower() == "authorization"}
        group = self._xet_session.new_download_stream_group(
            token_refresh_url=f"{self._endpoint}/api/models/{self._name}/xet-read-token/{self._revision}",
            token_refresh_headers=authorization,
        )
        for chunk in group.download_stream(self._xet.XetFileInfo(file.xet, file.size), start=offset or None):
            offset += len(chunk)
            yield chunk
        if offset < file.size:
            raise EOFError(f"ended after {human_size(offset)}")


class S3Source(RangedSource):
    """Objects below a prefix, with the credentials that boto3 finds: on EC2 the instance's role."""

    def __init__(self, spec: Spec) -> None:
        boto3: t.Any = importlib.import_module("boto3")
        config: t.Any = importlib.import_module("botocore.config")
        self._url = str(spec.source["url"])
        self._bucket, self._prefix = split_s3_url(self._url)
        self.ranges = int(spec.source.get("ranges", S3_RANGES))
        self.range_size = int(spec.source.get("range_mib", S3_RANGE_MIB)) * 1024 * 1024
        # Retrying with what is already there is done here.
        settings = config.Config(
            retries={"total_max_attempts": 2, "mode": "standard"}, max_pool_connections=self.ranges, read_timeout=60
        )
        self._client = boto3.client("s3", config=settings)

    def list_files(self) -> list[dict[str, t.Any]]:
        """What is below the prefix, with what S3 knows of its content."""
        found = []
        with self._errors(""):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            ):
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):
                        with self._errors(item["Key"][len(self._prefix) :]):
                            found.append(self._describe(item["Key"]))
        return found

    def _describe(self, key: str) -> dict[str, t.Any]:
        head = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        etag = head["ETag"].strip('"')
        file = {"path": key[len(self._prefix) :], "size": head["ContentLength"], "etag": etag}
        # An ETag is made of MD5s only for an object that is not encrypted with KMS.
        if not head.get("ServerSideEncryption", "").startswith("aws:kms"):
            if re.fullmatch(r"[0-9a-f]{32}", etag):
                file["md5"] = etag
            file["part_size"] = self._part_size(key, etag, head["ContentLength"])
        checksum = head.get("ChecksumSHA256", "")
        if checksum and "-" not in checksum:
            file["sha256"] = base64.b64decode(checksum).hex()
        return file

    def _part_size(self, key: str, etag: str, size: int) -> int:
        """The size of an object's parts; 0 where it has none, or where they are not all alike."""
        match = re.fullmatch(r"[0-9a-f]{32}-(\d+)", etag)
        if not match:
            return 0
        count = int(match.group(1))
        known: t.Any = importlib.import_module("botocore.exceptions")
        try:
            first, last = (
                self._client.head_object(Bucket=self._bucket, Key=key, PartNumber=number)["ContentLength"]
                for number in (1, count)
            )
        except known.ClientError as error:
            # Servers that are not S3 may not know parts.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 416, 501):
                return 0
            raise
        return int(first) if last <= first and first * (count - 1) + last == size else 0

    def get(self, path: str) -> bytes:
        """The whole content of a small object."""
        with self._errors(path):
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)["Body"].read()
            return body

    def read_range(self, file: File, start: int, end: int) -> t.Iterator[bytes]:
        whole = (start, end) == (0, file.size)
        # S3 refuses any range of an empty object.
        more = {} if whole else {"Range": f"bytes={start}-{end - 1}"}
        # A snapshot that is known by its manifest alone has hashes instead.
        more |= {"IfMatch": f'"{file.etag}"'} if file.etag else {}
        with self._errors(file.path):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + file.path, **more)
            self._check_size(file, whole, answer)
            yield from answer["Body"].iter_chunks(PIECE)

    @contextlib.contextmanager
    def copying(self, count: int) -> t.Iterator[Copy]:
        workers = processes(self.ranges, count)
        if workers == 1:
            yield self.copy_range
            return
        each = -(-self.ranges // workers)
        command = [sys.executable, os.path.abspath(__file__), "copy-s3", self._url, "--ranges", str(each)]
        with contextlib.closing(Workers(command, workers)) as started:
            yield functools.partial(copy_elsewhere, started)

    def _check_size(self, file: File, whole: bool, answer: dict[str, t.Any]) -> None:
        where = f"s3://{self._bucket}/{self._prefix}{file.path}"
        described = answer["ContentLength"] if whole else answer.get("ContentRange", "").rpartition("/")[2]
        if not described:
            raise Problem(
                f"The server sends all of {where} instead of a range. Set model_s3_range_mib to more than "
                f"{file.size // 1024**2}, so that each file is one request."
            )
        if int(described) != file.size:
            raise Problem(
                f"{where} has {described} bytes, but {file.size} when the fetch was planned. Complete the object, then "
                "run again with -e model_update=true."
            )

    def _errors(self, path: str) -> contextlib.AbstractContextManager[None]:
        return s3_errors(self._bucket, f"s3://{self._bucket}/{self._prefix}{path}")


def copy_elsewhere(workers: Workers, file: File, start: int, end: int, path: str) -> t.Iterator[int]:
    """As ``RangedSource.copy_range``, in another process."""
    kinds = {"problem": Problem, "passing": Passing, "unwritable": Unwritable}
    for message in workers.run({"file": file.as_json(), "start": start, "end": end, "path": path}):
        yield message.get("wrote", 0)
        if "end" in message:
            if message["end"]:
                raise kinds[message["end"]](message["text"])
            return


def copy_task(source: RangedSource, task: dict[str, t.Any], answer: t.Callable[..., None]) -> None:
    """The other side of ``copy_elsewhere``."""
    wrote, end, text = 0, "", ""
    try:
        for count in source.copy_range(File(**task["file"]), task["start"], task["end"], task["path"]):
            wrote += count
            if wrote >= 4 * PIECE:
                answer(number=task["number"], wrote=wrote)
                wrote = 0
    except Problem as error:
        end, text = "problem", str(error)
    except Unwritable as error:
        end, text = "unwritable", str(error)
    except Passing as error:
        end, text = "passing", str(error)
    except Exception as error:
        end, text = "passing", f"{type(error).__name__}: {one_line(error)}"
    answer(number=task["number"], wrote=wrote, end=end, text=text)


#: The rights that S3's operations need.
S3_RIGHTS = {"ListObjectsV2": "s3:ListBucket", "HeadObject": "s3:GetObject", "GetObject": "s3:GetObject"}


@contextlib.contextmanager
def s3_errors(bucket: str, where: str) -> t.Iterator[None]:
    """Say what boto3's errors mean."""
    known: t.Any = importlib.import_module("botocore.exceptions")
    try:
        yield
    except (known.NoCredentialsError, known.PartialCredentialsError) as error:
        raise Problem(
            f"There are no AWS credentials for {where}. Give the instance a role that may s3:ListBucket and "
            "s3:GetObject there."
        ) from error
    except known.ClientError as error:
        raise s3_refusal(bucket, where, error) from error
    except known.BotoCoreError as error:
        raise Passing(f"{where}: {one_line(error)}") from error


def s3_refusal(bucket: str, where: str, error: t.Any) -> Problem | Passing:
    """What an error that S3 answered means.

    Args:
        bucket: that was asked.
        where: URL of what it was asked for.
        error: botocore's.
    """
    described = error.response.get("Error", {})
    code, text = str(described.get("Code", "")), " ".join(str(described.get("Message", "")).split())
    if code in ("NoSuchBucket", "NoSuchKey", "404"):
        return Problem(f"There is no {where} ({code}). Correct model_s3_url.")
    if code in ("PreconditionFailed", "412"):
        return Problem(
            f"{where} was replaced after the fetch was planned. Run again with -e model_update=true to take what is "
            "there now."
        )
    if code in ("InvalidRange", "416"):
        return Problem(
            f"{where} is shorter than when the fetch was planned. Complete the object, then run again with "
            "-e model_update=true."
        )
    if code in ("AccessDenied", "403"):
        right = S3_RIGHTS.get(error.operation_name, error.operation_name)
        resource = f"bucket {bucket}" if right == "s3:ListBucket" else where
        return Problem(
            f"S3 refuses {error.operation_name} on {where} ({code}{f': {text[:300]}' if text else ''}). The instance's "
            f"role needs {right} on {resource}, and kms:Decrypt if the objects are encrypted with a key of your own; "
            "the bucket's policy and the VPC endpoint's must not deny it."
        )
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"):
        return Problem(
            f"S3 does not accept this host's AWS credentials for {where} ({code}). Give the instance a role, or "
            "correct AWS_* in model_environment and the host's clock."
        )
    return Passing(f"{where}: {one_line(error)}")


def split_s3_url(url: str) -> tuple[str, str]:
    """Bucket and prefix, the latter empty or ending in a slash."""
    bucket, _slash, prefix = url[len("s3://") :].partition("/")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def one_line(error: BaseException) -> str:
    """An exception as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"


def open_source(spec: Spec, snapshot: Snapshot) -> Source | RangedSource:
    kind = spec.source["kind"]
    if kind == "hub":
        return HubSource(spec, snapshot.revision)
    if kind == "s3":
        return S3Source(spec)
    return PathSource(spec)


# Fetching -----------------------------------------------------------------------------------------------------------


class Progress:
    """Tells people (a line now and then) and programs (a file) how far a fetch is.

    Args:
        spec: what is fetched.
        snapshot: which revision.
        path: the file; rewritten once a second.
        every: seconds between lines.
    """

    def __init__(self, spec: Spec, snapshot: Snapshot, path: str, every: float = 5.0) -> None:
        self._label = f"{spec.name}@{snapshot.revision[:12]}"
        self._path = path
        self._every = every
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._done = 0
        self._arrived = 0
        self._last_byte = time.monotonic()
        self._marks: list[tuple[float, int]] = []
        self._document: dict[str, t.Any] = {
            "slug": spec.slug,
            "revision": snapshot.revision,
            "total_bytes": snapshot.size,
            "pid": os.getpid(),
            "state": "starting",
            "message": "",
        }
        self._total = snapshot.size
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        say(f"{self._label}: {text}")

    def state(self, state: str, message: str = "") -> None:
        with self._lock:
            self._document.update(state=state, message=message)
        self._write()

    def have(self, count: int) -> None:
        """Bytes that were there before, or, negative, that turned out to be wrong."""
        with self._lock:
            self._done += count
            self._last_byte = time.monotonic()

    def got(self, count: int) -> None:
        """Bytes that arrived."""
        with self._lock:
            self._done += count
            self._arrived += count
            self._last_byte = time.monotonic()

    @property
    def arrived(self) -> int:
        return self._arrived

    def end(self, state: str, message: str = "") -> None:
        self._ended.set()
        self._thread.join()
        self.state(state, message)

    def _report(self) -> None:
        spoken = time.monotonic()
        while not self._ended.wait(1.0):
            now = time.monotonic()
            self._write()
            if self._document["state"] == "fetching" and now - self._last_byte > STALL:
                message = f"no byte arrived for {STALL:.0f} s; what is there is kept, and the next try goes on from it"
                self.say(message)
                self.state("failed", message)
                # Threads that hang in a library cannot be ended in another way.
                os._exit(1)
            if now - spoken >= self._every and self._document["state"] == "fetching":
                spoken = now
                self.say(self.line())

    def _rate(self) -> float:
        now = time.monotonic()
        with self._lock:
            self._marks = [mark for mark in self._marks if now - mark[0] < 15] + [(now, self._arrived)]
        first = self._marks[0]
        return (self._arrived - first[1]) / (now - first[0]) if now > first[0] else 0.0

    def line(self) -> str:
        rate = self._rate()
        percent = 100 * self._done // max(1, self._total)
        left = f", {(self._total - self._done) / rate:.0f} s left" if rate > 1024 else ""
        return f"{percent} % {human_size(self._done)} of {human_size(self._total)}, {human_size(rate)}/s{left}"

    def _write(self) -> None:
        rate = self._rate()
        with self._lock:
            document = {**self._document, "done_bytes": self._done, "fetched_bytes": self._arrived}
        write_document(self._path, {**document, "rate": round(rate), "updated": time.time()}, durable=False)


class PartsHasher:
    """The ETag that S3 gives to an object that was put in parts: the MD5 of their MD5s, and their number."""

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._digests: list[bytes] = []
        self._start()

    def _start(self) -> None:
        self._part = hashlib.md5(usedforsecurity=False)
        self._left = self._part_size

    def update(self, block: bytes) -> None:
        rest = memoryview(block)
        while rest:
            taken, rest = rest[: self._left], rest[self._left :]
            self._part.update(taken)
            self._left -= len(taken)
            if not self._left:
                self._digests.append(self._part.digest())
                self._start()

    def hexdigest(self) -> str:
        digests = [*self._digests, self._part.digest()] if self._left < self._part_size else self._digests
        whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
        return f"{whole}-{len(digests)}"


class Hasher:
    """Everything that is known of a file's content, in one pass."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._more: dict[str, t.Any] = {}
        if not file.sha256 and file.git_sha1:
            # These are names that others gave to a content, not protection against an attacker: TLS and the commit are.
            self._more["git_sha1"] = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        elif not file.sha256 and file.md5:
            self._more["md5"] = hashlib.md5(usedforsecurity=False)
        elif not file.sha256 and file.part_size:
            self._more["etag"] = PartsHasher(file.part_size)

    def update(self, block: bytes) -> None:
        self._sha256.update(block)
        for hasher in self._more.values():
            hasher.update(block)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def difference(self) -> str:
        """What does not agree; empty when all does."""
        found = {"sha256": self.sha256, **{name: hasher.hexdigest() for name, hasher in self._more.items()}}
        for name, value in found.items():
            expected = getattr(self._file, name)
            if expected and expected != value:
                return f"{name} {value[:16]}… instead of {expected[:16]}…"
        return ""


class Lanes:
    """Ranges at a time, shared by the files that are fetched: one file is written and hashed by one core at a time.

    Args:
        pool: what fetches them.
        count: at a time.
    """

    def __init__(self, pool: concurrent.futures.Executor, count: int) -> None:
        self.pool = pool
        self._count = count
        self._files = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def one_more_file(self) -> t.Iterator[None]:
        with self._lock:
            self._files += 1
        try:
            yield
        finally:
            with self._lock:
                self._files -= 1

    @property
    def of_a_file(self) -> int:
        """Ranges that a file may have waiting or under way: twice its share, so that no lane is ever empty."""
        return 2 * -(-self._count // max(1, self._files))


class Patience:
    """How often and after how long something is tried again.

    Args:
        first: seconds before the second try; doubled with each further one.
    """

    def __init__(self, first: float) -> None:
        self._first = first
        self._failures = 0

    def after(self, error: Passing, advanced: bool) -> float:
        """Seconds to wait after a failure; one after which at least a byte arrived counts as the first.

        Raises:
            Problem: there were too many in a row.
        """
        self._failures = 1 if advanced else self._failures + 1
        if self._failures >= ATTEMPTS:
            raise Problem(
                f"{error} (given up after {self._failures} tries without a byte; run again to go on)"
            ) from error
        return float(min(30.0, self._first * 2 ** (self._failures - 1)))


class Fetch:
    """Completes one snapshot. The caller holds the slug's lock.

    Args:
        spec: the model.
        snapshot: the revision.
        source: where its files come from; opened only if one is missing.
        progress: what is informed.
    """

    def __init__(
        self,
        spec: Spec,
        snapshot: Snapshot,
        source: t.Callable[[], Source | RangedSource],
        progress: Progress,
        patience: float = 1.0,
    ) -> None:
        self._spec = spec
        self._snapshot = snapshot
        self._open = source
        self._progress = progress
        self._patience = patience
        self._final = spec.directory(snapshot)
        self._partial = self._final + PARTIAL
        self._journal: dict[str, t.Any] = {}
        self._lock = threading.Lock()
        self._given_up = threading.Event()

    def run(self) -> None:
        """Fetch what is missing and give the snapshot its name.

        Raises:
            Problem: it cannot be completed.
        """
        if os.path.isdir(self._final):
            withdraw(self._spec, self._snapshot, ())
        os.makedirs(self._partial, mode=0o755, exist_ok=True)
        self._journal = read_document(os.path.join(self._partial, JOURNAL)) or {}
        self._progress.state("verifying")
        self._remove_strays((SPARSE, SPANS) if self._spec.source["kind"] == "s3" else (PART,))
        missing = [file for file in self._snapshot.files if not self._is_there(file)]
        if missing:
            self._check_space()
            self._progress.state("fetching")
            self._progress.say(f"fetching {len(missing)} of {len(self._snapshot.files)} files; {self._progress.line()}")
            source = self._open()
            # They tell whether the source is whole before gigabytes are spent on it.
            self._fetch_all(source, [file for file in missing if file.path.endswith(".json")])
            check_parts(self._partial, {file.path for file in self._snapshot.files}, "The model's source")
            self._fetch_all(source, [file for file in missing if not file.path.endswith(".json")])
        check_parts(self._partial, {file.path for file in self._snapshot.files}, "The model's source")
        self._publish()

    def _is_there(self, file: File) -> bool:
        """Whether a file was verified before, or can be now: somebody may have put it there."""
        path = os.path.join(self._partial, file.path)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            known = self._journal.get(file.path)
            if known and known == journal_entry(path, file, known["sha256"]):
                self._progress.have(file.size)
                return True
            if size_of(path) == file.size and file.is_verifiable:
                hasher = Hasher(file)
                for block in blocks(path):
                    hasher.update(block)
                if not hasher.difference():
                    self._remember(file, path, hasher)
                    self._progress.have(file.size)
                    return True
            os.unlink(path)
        self._progress.have(partial_bytes(self._partial, file))
        return False

    def _remember(self, file: File, path: str, hasher: Hasher) -> None:
        with self._lock:
            self._journal[file.path] = journal_entry(path, file, hasher.sha256)
            write_document(os.path.join(self._partial, JOURNAL), self._journal)

    def _remove_strays(self, suffixes: t.Collection[str] = ()) -> None:
        """Only what belongs to the snapshot may be in it.

        Args:
            suffixes: of unfinished files, which may be there as well.
        """
        wanted = {file.path for file in self._snapshot.files}
        wanted |= {f"{path}{suffix}" for path in wanted for suffix in suffixes} | {JOURNAL}
        for directory, _directories, names in os.walk(self._partial):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.relpath(path, self._partial) not in wanted:
                    os.unlink(path)

    def _check_space(self) -> None:
        need = self._snapshot.size - present_bytes(self._spec, self._snapshot)
        free = free_bytes(self._partial)
        if need + MARGIN > free:
            raise Problem(too_small(self._spec, self._snapshot, need, free))

    def _fetch_all(self, source: Source | RangedSource, files: list[File]) -> None:
        largest_first = sorted(files, key=lambda file: file.size, reverse=True)
        with contextlib.ExitStack() as pools:
            if isinstance(source, RangedSource):
                copy = pools.enter_context(source.copying(sum(-(-file.size // source.range_size) for file in files)))
                ranges = pools.enter_context(concurrent.futures.ThreadPoolExecutor(max_workers=source.ranges))
                lanes = Lanes(ranges, source.ranges)
                complete = functools.partial(self._complete_sparse, source.range_size, copy, lanes)
                suffix = SPARSE
            else:
                complete = functools.partial(self._complete_part, source)
                suffix = PART
            pool = pools.enter_context(concurrent.futures.ThreadPoolExecutor(max_workers=self._spec.parallel))
            running = [pool.submit(self._fetch_file, complete, file, suffix) for file in largest_first]
            try:
                for done in concurrent.futures.as_completed(running):
                    done.result()
            except BaseException:
                self._given_up.set()
                for one in running:
                    one.cancel()
                raise

    def _fetch_file(self, complete: t.Callable[[File, str], Hasher], file: File, suffix: str) -> None:
        path = os.path.join(self._partial, file.path)
        part = path + suffix
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        patience = Patience(self._patience)
        wrong_copies = 0
        while not self._given_up.is_set():
            before = size_of(part)
            try:
                hasher = complete(file, part)
            except Passing as error:
                self._pause(patience, error, size_of(part) > before)
                continue
            difference = hasher.difference()
            if not difference:
                os.replace(part, path)
                self._forget_spans(path)
                sync_directory(os.path.dirname(path))
                self._remember(file, path, hasher)
                return
            wrong_copies += 1
            os.unlink(part)
            self._forget_spans(path)
            self._progress.have(-file.size)
            if wrong_copies >= WRONG_COPIES:
                raise Problem(
                    f"{file.path} arrived {wrong_copies} times with another content than the source announces "
                    f"({difference}). Either the source has changed since (-e model_update=true takes what it has), "
                    "or it is damaged, or something between it and this host alters what it sends."
                )
            self._progress.say(f"{file.path} has {difference}; fetching it again")

    @staticmethod
    def _forget_spans(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + SPANS)

    def _pause(self, patience: Patience, error: Passing, advanced: bool) -> None:
        """Wait before the next try.

        Raises:
            Problem: there were too many without a byte.
        """
        if self._given_up.is_set():
            return
        pause = patience.after(error, advanced)
        self._progress.say(f"{error}; next try in {pause:.0f} s")
        self._given_up.wait(pause)

    def _complete_part(self, source: Source, file: File, part: str) -> Hasher:
        """Append what is missing to a file's part.

        Raises:
            Passing: the source stopped before the end.
        """
        if size_of(part) > file.size:
            os.unlink(part)
        hasher = Hasher(file)
        offset = 0
        if size_of(part) > 0:
            for block in blocks(part):
                hasher.update(block)
                offset += len(block)
                self._progress.have(0)
        with open(part, "ab", buffering=0) as out:
            if offset < file.size:
                for chunk in source.read(file, offset):
                    if self._given_up.is_set():
                        raise Passing("another file failed")
                    chunk = chunk[: file.size - offset]
                    self._append(out, chunk)
                    hasher.update(chunk)
                    offset += len(chunk)
                    self._progress.got(len(chunk))
                    if offset == file.size:
                        break
            os.fsync(out.fileno())
        if offset < file.size:
            raise Passing(f"{file.path}: the source ended after {human_size(offset)} of {human_size(file.size)}")
        return hasher

    def _append(self, out: io.FileIO, chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[out.write(rest) :]
        except OSError as error:
            raise self._unwritable(str(out.name), str(error.strerror)) from error

    def _unwritable(self, name: str, reason: str) -> Problem:
        need = self._snapshot.size - present_bytes(self._spec, self._snapshot)
        room = too_small(self._spec, self._snapshot, need, free_bytes(self._partial))
        return Problem(f"Failed to write {name}: {reason}. {room}")

    def _complete_sparse(self, range_size: int, copy: Copy, lanes: Lanes, file: File, sparse: str) -> Hasher:
        """Fetch what is missing of a file in ranges, and hash behind them what has no gap any more."""
        path = sparse[: -len(SPARSE)]
        hasher, offset = Hasher(file), 0
        try:
            held = held_spans(path, file)
            if not held:
                # Not the same file: a worker of a process that was killed may be at its last write.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(sparse)
            record = Record(path + SPANS, file.etag, file.size, held)
            data = open(sparse, "r+b" if held else "w+b", buffering=0)  # noqa: SIM115 - closed below
        except OSError as error:
            raise self._unwritable(sparse, str(error.strerror)) from error
        with contextlib.closing(record), data, lanes.one_more_file():
            missing = collections.deque(record.missing(file.size, range_size))
            running: set[concurrent.futures.Future[None]] = set()
            try:
                while missing or running:
                    while missing and len(running) < lanes.of_a_file:
                        span = missing.popleft()
                        running.add(lanes.pool.submit(self._fetch_range, copy, file, sparse, record, span))
                    done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                    for one in done:
                        one.result()
                    offset = self._hash(hasher, data, offset, record.prefix)
                offset = self._hash(hasher, data, offset, record.prefix)
            except BaseException:
                self._given_up.set()
                for one in running:
                    one.cancel()
                # They add to the record that is closed here.
                concurrent.futures.wait(running)
                raise
            os.fsync(data.fileno())
        return hasher

    def _fetch_range(self, copy: Copy, file: File, sparse: str, record: Record, span: tuple[int, int]) -> None:
        offset, end = span
        recorded = offset
        patience = Patience(self._patience)
        while offset < end and not self._given_up.is_set():
            begin = offset
            try:
                for count in copy(file, offset, end, sparse):
                    offset += count
                    if count:
                        self._progress.got(count)
                    if offset - recorded >= BLOCK:
                        record.add(recorded, offset)
                        recorded = offset
                    if self._given_up.is_set():
                        break
                if offset < end and not self._given_up.is_set():
                    raise Passing(f"{file.path}: the source ended after {human_size(offset)}")
            except Passing as error:
                self._pause(patience, error, offset > begin)
            except Unwritable as error:
                raise self._unwritable(sparse, str(error)) from error
            finally:
                record.add(recorded, offset)
                recorded = offset
        if offset < end:
            raise Passing("another file failed")

    def _hash(self, hasher: Hasher, data: io.FileIO, offset: int, end: int) -> int:
        """Hash a file up to ``end``, which is returned."""
        while offset < end:
            block = os.pread(data.fileno(), min(BLOCK, end - offset), offset)
            if not block:
                raise Problem(f"{data.name!s} was shortened while it was fetched. Something changes files there.")
            hasher.update(block)
            offset += len(block)
            self._progress.have(0)
        return offset

    def _publish(self) -> None:
        files = [
            {"path": file.path, "size": file.size, "sha256": self._journal[file.path]["sha256"]}
            for file in self._snapshot.files
        ]
        manifest = {
            "version": 1,
            "name": self._spec.name,
            "revision": self._snapshot.revision,
            "requested": self._snapshot.requested,
            "source": {key: value for key, value in self._spec.source.items() if key != "token_file"},
            "size_bytes": self._snapshot.size,
            "completed": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "files": files,
        }
        self._remove_strays()
        for directory, _directories, _names in os.walk(self._partial):
            sync_directory(directory)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._partial, JOURNAL))
        write_document(os.path.join(self._partial, MANIFEST), manifest)
        os.rename(self._partial, self._final)
        sync_directory(os.path.dirname(self._final))


def too_small(spec: Spec, snapshot: Snapshot, need: int, free: int) -> str:
    """The disk is too small, with the numbers."""
    mount = mount_of(existing_parent(spec.root))
    return (
        f"{spec.name} at {snapshot.revision} needs {human_size(need)} more in {spec.root} "
        f"({human_size(snapshot.size)} in all, and {human_size(MARGIN)} stay free); the disk mounted on {mount} has "
        f"{human_size(free)} free"
    )


@contextlib.contextmanager
def sole_fetcher(spec: Spec) -> t.Iterator[None]:
    """Hold the slug's lock; a second fetch waits here until the first has ended."""
    directory = os.path.join(spec.root, spec.slug)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    refuse_strangers(spec.root, directory)
    descriptor = os.open(os.path.join(directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def refuse_strangers(root: str, directory: str) -> None:
    """Write only where no other user could have laid a link in the way, or replace what was verified.

    Raises:
        Problem: others may write there.
    """
    above, own = os.stat(root), os.lstat(directory)
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        raise Problem(f"Everybody may write into {root}, where the models are kept. chmod o-w {root}, then run again.")
    if not stat.S_ISDIR(own.st_mode) or own.st_uid not in (0, os.geteuid()) or own.st_mode & stat.S_IWOTH:
        raise Problem(
            f"{directory} is another user's, who could change the model. Move it away, or chown it to root and make it "
            "writable for root alone; then run again."
        )


def wait_for_mount(spec: Spec, tell: t.Callable[[str], None], patience: float) -> None:
    """Wait for the disk: what is written below its mount point before it is mounted lands on the wrong one.

    Raises:
        Problem: it is not mounted in time.
    """
    until = time.monotonic() + patience
    reported = False
    while not os.path.ismount(spec.mount):
        if time.monotonic() > until:
            raise Problem(
                f"{spec.mount} is not mounted, where the models are kept. Mount it (on a Deep Learning AMI: systemctl "
                "start dlami-nvme), or set model_root to another directory and run site.yml."
            )
        if not reported:
            tell(f"waiting for {spec.mount} to be mounted")
            reported = True
        time.sleep(0.5)


def fetch(spec: Spec, snapshot: Snapshot, run_directory: str, mount_patience: float = MOUNT_PATIENCE) -> None:
    """Make sure that a snapshot is on the disk, complete.

    Raises:
        Problem: it cannot be.
    """
    os.makedirs(run_directory, mode=0o755, exist_ok=True)

    def tell(text: str) -> None:
        say(f"{spec.name}@{snapshot.revision[:12]}: {text}")

    wait_for_mount(spec, tell, mount_patience)
    if spec.source.get("in_place"):
        missing = unfinished(spec, snapshot)
        if missing:
            raise Problem(f"{spec.source['path']} lacks {', '.join(missing[:3])}, or it is not the file it was.")
        return
    with sole_fetcher(spec):
        if not unfinished(spec, snapshot):
            tell("complete")
            return
        started = time.monotonic()
        progress = Progress(spec, snapshot, os.path.join(run_directory, f"{spec.slug}.json"))
        try:
            Fetch(spec, snapshot, lambda: open_source(spec, snapshot), progress).run()
        except Problem as error:
            progress.end("failed", str(error))
            raise
        except BaseException as error:
            progress.end("failed", f"{type(error).__name__}: {one_line(error)}")
            raise
        progress.end("complete")
        tell(f"complete: {human_size(progress.arrived)} fetched in {time.monotonic() - started:.0f} s")


# The program --------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def load_spec(directory: str, slug: str) -> Spec:
    """The spec of a model on this host.

    Raises:
        Problem: there is none, or none that can be read.
    """
    value = read_document(os.path.join(directory, f"{slug}.json"))
    if value is None:
        raise Problem(f"There is no readable {directory}/{slug}.json. Run site.yml.")
    try:
        return Spec.from_json(value)
    except (KeyError, TypeError) as error:
        raise Problem(f"{directory}/{slug}.json lacks {one_line(error)}. Run site.yml.") from error


def load_specs(directory: str, say: t.Callable[[str], None] = lambda _text: None) -> list[Spec]:
    """Every spec that can be read; who cannot is said."""
    specs = []
    for name in listed(directory):
        if name.endswith(".json"):
            try:
                specs.append(load_spec(directory, name[: -len(".json")]))
            except Problem as error:
                say(f"{directory}/{name} is skipped: {one_line(error)}")
    return specs


def needed(specs: list[Spec], engine_root: str) -> list[tuple[Spec, Snapshot]]:
    """What has to be on the disk for the instances to start; everything that is wanted where no instance says so."""
    live = used_paths(engine_root, live=True)
    every = [(spec, snapshot) for spec in specs for snapshot in spec.snapshots]
    used = [(spec, snapshot) for spec, snapshot in every if os.path.realpath(spec.directory(snapshot)) in live]
    return used or [(spec, spec.wanted) for spec in specs]


def restore(options: argparse.Namespace) -> int:
    """Bring back what instances need, and go on until all of it is there: nothing else on the host could help."""
    pause = 5.0
    while True:
        pairs = needed(load_specs(options.spec_directory, say), options.engine_root)
        failed = [f"{spec.name}@{one.revision[:12]}" for spec, one in pairs if not restore_one(options, spec, one)]
        if not failed:
            return 0
        say(f"not complete: {', '.join(failed)}; next try in {pause:.0f} s")
        time.sleep(pause)
        pause = min(300.0, pause * 2)


def restore_one(options: argparse.Namespace, spec: Spec, snapshot: Snapshot) -> bool:
    # Looked at here first: an engine's every start comes by, and an interpreter more costs a tenth of a second.
    if os.path.ismount(spec.mount) and not unfinished(spec, snapshot):
        return True
    words = ["--spec-directory", options.spec_directory, "--run-directory", options.run_directory]
    command = [sys.executable, os.path.abspath(__file__), *words, "fetch", spec.slug, "--revision", snapshot.revision]
    return subprocess.run(command, check=False).returncode == 0


def fetch_command(options: argparse.Namespace) -> int:
    spec = load_spec(options.spec_directory, options.slug)
    # The units start this with the system's Python; the libraries are in another.
    if os.path.realpath(os.path.dirname(spec.python)) != os.path.realpath(os.path.dirname(sys.executable)):
        if not os.path.exists(spec.python):
            raise Problem(f"The download tool {spec.python} of {spec.name} is gone. Run site.yml.")
        os.execv(spec.python, [spec.python, os.path.abspath(__file__), *sys.argv[1:]])  # noqa: S606 - the same program
    os.environ.update(spec.environment)
    for snapshot in spec.snapshots:
        if snapshot.revision == (options.revision or spec.wanted.revision):
            fetch(spec, snapshot, options.run_directory)
            return 0
    raise Problem(f"The spec of {spec.name} has no revision {options.revision}.")


def list_command(options: argparse.Namespace) -> int:
    source = S3Source(Spec("", "", {"kind": "s3", "url": options.url}, {}, "", "", "", {}, 1, ()))
    files = source.list_files()
    manifest = None
    if any(file["path"] == MANIFEST for file in files):
        manifest = json.loads(source.get(MANIFEST))
    print(json.dumps({"files": files, "manifest": manifest}))
    return 0


def copy_command(options: argparse.Namespace) -> int:
    """Copy ranges as the process that started this one wants, until it ends."""
    described = {"kind": "s3", "url": options.url, "ranges": options.ranges}
    source = S3Source(Spec("", "", described, {}, "", "", "", {}, 1, ()))
    lock = threading.Lock()

    def answer(**message: t.Any) -> None:
        with lock:
            say(json.dumps(message))

    pool = concurrent.futures.ThreadPoolExecutor(max_workers=options.ranges)
    for line in sys.stdin:
        pool.submit(copy_task, source, json.loads(line), answer)
    # What is under way is of no use to anybody now.
    os._exit(0)


def main() -> int:
    os.umask(0o022)
    signal.signal(signal.SIGTERM, lambda *_signal: os._exit(143))
    parser = argparse.ArgumentParser(description="Bring models to this host's disk, whole or not at all.")
    parser.add_argument("--spec-directory", default=SPEC_DIRECTORY)
    parser.add_argument("--run-directory", default=RUN_DIRECTORY)
    parser.add_argument("--engine-root", default="/opt/inference")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("fetch", help="complete one model")
    one.add_argument("slug")
    one.add_argument("--revision", default="")
    one.set_defaults(run=fetch_command)
    commands.add_parser("restore", help="complete what instances need, however long it takes").set_defaults(run=restore)
    listing = commands.add_parser("list-s3", help="what is below an S3 URL, as JSON")
    listing.add_argument("url")
    listing.set_defaults(run=list_command)
    copying = commands.add_parser("copy-s3", help="copy ranges for another process of this program")
    copying.add_argument("url")
    copying.add_argument("--ranges", type=int, default=S3_RANGES)
    copying.set_defaults(run=copy_command)
    options = parser.parse_args()
    try:
        return int(options.run(options))
    except (Problem, Passing) as error:
        print(error, file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
