"""A page as a browser reads it, and what must not be in it."""

from __future__ import annotations

import html.parser
import re

VOID = {"meta", "br"}


class Reader(html.parser.HTMLParser):
    """Parses a page as a browser would, and records what must not be in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attributes)))
        if len(dict(attributes)) != len(attributes):
            self.wrong.append(f"an attribute twice: {name} {attributes}")
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        if not self.open or self.open.pop() != name:
            self.wrong.append(f"</{name}>")

    def handle_data(self, text: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == name]


def check_page(text: str) -> Reader:
    """A page that loads nothing, runs nothing, and is well formed."""
    reader = Reader(text)
    assert reader.wrong == []
    assert text.startswith("<!DOCTYPE html>\n<html ")
    assert not re.search(r"@import|url\((?!#)|javascript:|\bexpression\(", text)
    ids = [attributes["id"] for _name, attributes in reader.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for name, attributes in reader.found:
        assert name not in {"script", "img", "link", "iframe", "object", "embed", "form", "base", "image", "use"}
        assert not [key for key in attributes if key.startswith("on") or key in {"src", "xlink:href", "srcset"}]
        if "href" in attributes:
            assert (attributes["href"] or "").lstrip("#") in ids
    # What colours and pictures show is also there in words.
    assert all(attributes.get("aria-label") for _name, attributes in reader.found if attributes.get("role") == "img")
    return reader
