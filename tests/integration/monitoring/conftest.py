"""Imports what these tests need of the collection before the edge's conftest sets up Ansible's loader: what is imported
for the first time afterwards is not found.
"""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.module_utils.facts import exporter, series  # noqa: F401
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import (  # noqa: F401
    dashboards,
    rules,
    scrape,
    table,
    targets,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.status import program  # noqa: F401

from tests.unit.plugins.plugin_utils.report import test_page  # noqa: F401
