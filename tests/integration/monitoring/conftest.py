"""Imports what these tests need of the collection before the edge's conftest sets up Ansible's loader: what is imported
for the first time afterwards is not found.
"""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import (  # noqa: F401
    dashboards,
    rules,
    scrape,
    table,
    targets,
)
