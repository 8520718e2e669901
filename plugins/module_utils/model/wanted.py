# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The wanted state of a model on a host."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.runtimes.runtime import RuntimeSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# The option that each source needs, and the role's name for it.
_NEEDS = {"hub": ("endpoint", "model_endpoint"), "s3": ("s3_url", "model_s3_url"), "path": ("path", "model_path")}

#: Each is a thread and a connection of one process, which may have 1024 files open.
MOST_RANGES = 256


def slug_of(name: str) -> str:
    """A model's name as a file name."""
    return name.replace("/", "--")


@dataclasses.dataclass(frozen=True)
class WantedModel:
    """The wanted state of a model; the fields are the module's options."""

    name: str
    revision: str
    resolved: str
    update: bool
    source: str
    endpoint: str
    token: str
    transfer: str
    s3_url: str
    s3_ranges: int
    s3_range_mib: int
    path: str
    path_in_place: bool
    include: list[str]
    exclude: list[str]
    root: str
    keep: int
    beside: list[str]
    verify: str
    parallel: int
    environment: dict[str, str]
    engine_root: str
    lock: str
    lock_python: str
    uv_requirement: str
    pip_environment: dict[str, str]
    find_links: list[str]
    spec_directory: str
    run_directory: str
    unit_directory: str

    def check(self) -> None:
        """Refuse invalid combinations.

        Raises:
            FleetError: which option, its value, and what is valid.
        """
        if not _NAME.fullmatch(self.name) or "--" in self.name:
            raise FleetError(f"fleet_model is {self.name!r}. A model is named organisation/model, as on a hub.")
        option, variable = _NEEDS[self.source]
        value = str(getattr(self, option))
        shape = {"hub": r"https?://[^/]+.*", "s3": r"s3://[a-z0-9][a-z0-9.-]+(/.*)?", "path": "/.*"}[self.source]
        if not re.fullmatch(shape, value):
            example = {"hub": "https://huggingface.co", "s3": "s3://bucket/prefix", "path": "/srv/models/it"}[
                self.source
            ]
            raise FleetError(f"model_source is {self.source} and {variable} is {value!r}. Give one such as {example}.")
        if self.source != "hub" and self.revision and not REVISION.fullmatch(self.revision):
            raise FleetError(
                f"fleet_model_revision is {self.revision!r}. With model_source {self.source} it names a directory: "
                "letters, digits, dots, dashes and underscores."
            )
        if self.source != "hub" and self.resolved:
            raise FleetError(
                f"resolved is {self.resolved!r} and the source is {self.source}; only a hub's branch moves."
            )
        if self.source != "path" and self.path_in_place:
            raise FleetError(
                f"model_path_in_place is set and model_source is {self.source}; only path can be in place."
            )
        if self.keep < 0:
            raise FleetError(f"model_keep is {self.keep}. Give 0 or more.")
        if self.parallel < 1:
            raise FleetError(f"model_parallel is {self.parallel}. Give 1 or more.")
        if not 1 <= self.s3_ranges <= MOST_RANGES:
            raise FleetError(f"model_s3_ranges is {self.s3_ranges}. Give 1 to {MOST_RANGES}.")
        if self.s3_range_mib < 1:
            raise FleetError(f"model_s3_range_mib is {self.s3_range_mib}. Give 1 or more.")
        for directory in (self.root, self.engine_root):
            if directory and not os.path.isabs(directory):
                raise FleetError(f"{directory!r} is no absolute path (model_root, model_engine_root).")

    @property
    def slug(self) -> str:
        return slug_of(self.name)

    @property
    def token_path(self) -> str:
        return os.path.join(self.spec_directory, f"{self.slug}.token") if self.source == "hub" and self.token else ""

    @property
    def described_source(self) -> dict[str, t.Any]:
        """The source as a spec records it."""
        if self.source == "hub":
            # Xet storage belongs to the hub itself; mirrors speak HTTP.
            own = re.fullmatch(r"https://(www\.)?(huggingface\.co|hf\.co)/?", self.endpoint) is not None
            xet = own if self.transfer == "auto" else self.transfer == "xet"
            source = {"kind": "hub", "endpoint": self.endpoint.rstrip("/"), "repository": self.name, "xet": xet}
            return {**source, "token_file": self.token_path} if self.token_path else source
        if self.source == "s3":
            how = {"ranges": self.s3_ranges, "range_mib": self.s3_range_mib}
            return {"kind": "s3", "url": self.s3_url.rstrip("/"), **how}
        return {"kind": "path", "path": os.path.normpath(self.path), "in_place": self.path_in_place}

    @property
    def selection(self) -> dict[str, list[str]]:
        return {"include": self.include, "exclude": self.exclude}

    @property
    def runtime(self) -> RuntimeSpec:
        """The virtual environment with the libraries of hub and S3."""
        return RuntimeSpec(
            name="fetcher",
            root=os.path.join(self.engine_root, "tools"),
            lock=self.lock,
            python=self.lock_python,
            uv_requirement=self.uv_requirement,
            environment=self.pip_environment,
            find_links=self.find_links,
            min_free_bytes=512 * 1024**2,
            compile_bytecode=True,
        )

    @property
    def program(self) -> str:
        return os.path.join(self.engine_root, "libexec", "model_fetch.py")

    def beside_program(self, module: str) -> str:
        """Where a module is that the program imports."""
        return os.path.join(self.engine_root, "libexec", f"model_{module.rpartition('.')[2]}.py")
