# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""HTML in which everything is escaped unless it was made here. Pure."""

from __future__ import annotations

import html
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report import words

_VOID = frozenset({"meta", "br"})


class Html(str):
    """Markup, as opposed to text."""


def tag(name: str, /, *children: t.Any, **attributes: t.Any) -> Html:
    """An element.

    Args:
        name: the element's name.
        children: markup as it is; anything else is text and is escaped; None is nothing.
        attributes: ``class_`` is ``class``, other underscores are dashes; None leaves one out.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(words.safe(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{shown}>" if name in _VOID else f"<{name}{shown}>{join(children)}</{name}>")


def join(children: t.Iterable[t.Any]) -> Html:
    """Elements and texts, one after the other."""
    return Html("".join(markup(child) for child in children if child is not None))


def markup(child: t.Any) -> Html:
    """Markup as it is, text escaped."""
    return child if isinstance(child, Html) else Html(html.escape(words.safe(child, lines=True)))


def table(head: t.Sequence[str], rows: t.Sequence[t.Sequence[t.Any]], numbers: t.Container[int] = ()) -> Html:
    """A table that scrolls sideways where it has to; ``numbers`` are the columns that stand to the right."""
    if not rows:
        return Html("")
    sides = ["n" if index in numbers else None for index in range(len(head))]
    header = tag("tr", *(tag("th", title, scope="col", class_=side) for title, side in zip(head, sides)))
    body = [tag("tr", *(tag("td", cell, class_=side) for cell, side in zip(row, sides))) for row in rows]
    return tag("div", tag("table", tag("thead", header), tag("tbody", *body)), class_="scroll")
