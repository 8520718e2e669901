# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Packs the program of a monitoring host's status page: its code, with the templates and the stylesheets."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.services.archive import build_program
from ansible_collections.inference.fleet.plugins.plugin_utils.report import template
from ansible_collections.inference.fleet.plugins.plugin_utils.status import service

_NAMES = ("base*", "macros*", "status*")


def pack_status_program() -> bytes:
    """The archive, which any Python from 3.9 on with Jinja2 runs; equal sources make equal bytes."""
    folder = Path(template.FOLDER)
    place = f"{template.__name__.rpartition('.')[0].replace('.', '/')}/{folder.name}"
    paths = sorted(path for name in _NAMES for path in folder.glob(name))
    return build_program(service, {f"{place}/{path.name}": path.read_text(encoding="utf-8") for path in paths})
