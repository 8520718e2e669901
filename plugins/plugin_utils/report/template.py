# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Pages from the templates beside this file: values are escaped, and no key or control character is shown."""

from __future__ import annotations

import functools
import os
import typing as t

import jinja2
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words

#: The folder of the templates.
FOLDER = os.path.join(os.path.dirname(__file__), "templates")

_FILTERS = {
    "clock": words.clock,
    "counted": words.count,
    "duration": words.duration,
    "elapsed": words.elapsed,
    "figures": words.figures,
    "grouped": words.grouped,
    "moment": words.moment,
    "named": words.named,
    "outcome": words.outcome,
    "until": words.until,
}


def render(name: str, **values: t.Any) -> str:
    """A page.

    Args:
        name: of a file in ``templates``.
        values: the template's variables.
    """
    # Over the whole page, so that no template can forget it.
    return words.safe(_environment().get_template(name).render(values), lines=True)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(_FILTERS)
    return environment


def _read(name: str) -> str | None:
    # This module may come from an archive, whose loader knows the files in it.
    loader: t.Any = __spec__.loader
    try:
        content: bytes | None = loader.get_data(os.path.join(FOLDER, name))
    except OSError:
        content = None
    return None if content is None else content.decode()
