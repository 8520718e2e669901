"""One Prometheus for all tests of this folder.

It imports what these tests need of the collection before the edge's conftest sets up Ansible's loader: what is imported
for the first time afterwards is not found.
"""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.facts import exporter, series  # noqa: F401
from ansible_collections.inference.fleet.plugins.module_utils.rollout import silence  # noqa: F401
from ansible_collections.inference.fleet.plugins.module_utils.watchdog import exposition, history, judge  # noqa: F401
from ansible_collections.inference.fleet.plugins.modules import api_key  # noqa: F401
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import (  # noqa: F401
    dashboards,
    rules,
    scrape,
    table,
    targets,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.status import program  # noqa: F401

from tests.integration.monitoring.stack import Place, open_place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Place]:
    with contextlib.ExitStack() as stack:
        yield open_place(tmp_path_factory.mktemp("monitoring"), tmp_path_factory.mktemp("edge"), stack)
