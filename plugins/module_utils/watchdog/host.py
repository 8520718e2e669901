# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The instances of a host as the watchdog finds them, read with each look, so that no rollout has to inform it."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, read_text
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT
from ansible_collections.inference.fleet.plugins.module_utils.core.times import seconds
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import Paths
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.module_utils.rollout import claim as claims


class WatchedInstance(t.NamedTuple):
    """An instance that can be watched.

    Attributes:
        number: the index of the instance.
        engine: its engine.
        address, port: of its HTTP server.
        model: the name that it serves.
    """

    number: int
    engine: str
    address: str
    port: int
    model: str

    @property
    def server(self) -> str:
        """The edge's name."""
        return edge_state.server_name(self.number)

    @property
    def unit(self) -> str:
        return f"{self.engine}@{self.number}.service"

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def health_path(self) -> str:
        return ENGINES[self.engine].launch.health_path


class WatchedHost:
    """The files of a host.

    Args:
        root: of the engines.
        edge: the edge's files.
        claim_path: the record of the rollout that the host is in.
    """

    def __init__(self, root: str = ENGINE_ROOT, edge: Paths | None = None, claim_path: str = claims.PATH) -> None:
        self._root = root
        self._edge = edge or Paths()
        self._claim_path = claim_path

    @property
    def edge(self) -> Paths:
        return self._edge

    def instances(self) -> list[WatchedInstance]:
        """The instances that the edge leads to, whose engines show whether they hang."""
        found = {}
        for server in edge_state.parse_instances(read_text(self._edge.config) or ""):
            index = edge_state.server_index(server.name)
            manifest = None if index is None else self._manifest(index)
            if index is None or not manifest or manifest.get("engine") not in ENGINES:
                continue
            if ENGINES[manifest["engine"]].vitals is None:
                continue
            model = str(manifest.get("served_name") or manifest.get("model") or "")
            found[index] = WatchedInstance(index, manifest["engine"], server.address, server.port, model)
        return [found[index] for index in sorted(found)]

    def drained_by(self, instance: WatchedInstance) -> str:
        """Who drained the instance or its host; empty for none."""
        document = read_json(self._edge.record)
        drains = edge_state.read_drains(document, self._edge.record)
        mark = drains.out or drains.instances.get(instance.server)
        return mark.by if mark else ""

    def claimed_by(self, instance: WatchedInstance, started: float) -> str:
        """The rollout that has started the instance and is not done with it; empty for none.

        Args:
            instance: the instance.
            started: Unix time of its start.
        """
        claim = claims.parse(read_json(self._claim_path), self._claim_path)
        if claim is None or not claim.held or claim.finished:
            return ""
        index = str(instance.number)
        is_at_it = any(name.rpartition("-")[2] == index and name not in claim.done for name in claim.targets)
        return claim.said if is_at_it and started >= seconds(claim.since) else ""

    def _manifest(self, index: int) -> dict[str, t.Any] | None:
        path = os.path.join(self._root, "instances", str(index), "current", "manifest.json")
        try:
            document = read_json(path)
        except FleetError:
            return None
        return document if isinstance(document, dict) else None
