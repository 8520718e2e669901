"""Writes the table of the balancer's settings in docs/aws.md from its rows: ``python -m tests.balancer_settings``."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "aws.md"

sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer import table  # noqa: E402

BEGIN, END = "<!-- Written by tests/balancer_settings.py from here -->", "<!-- to here -->"


def written(text: str) -> str:
    """The page with its table up to date."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    head = "| setting | wanted | else | why | repair | read with |\n| --- | --- | --- | --- | --- | --- |"
    rows = [
        f"| {one.name} | {one.wanted} | {one.otherwise} | {one.why} | {one.repair} | {_calls(one.call)} |"
        for one in table.SETTINGS
    ]
    return "\n".join([f"{before}{BEGIN}", "", head, *rows, "", f"{END}{after}"])


def _calls(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


def main() -> t.NoReturn:
    PAGE.write_text(written(PAGE.read_text()))
    sys.exit()


if __name__ == "__main__":
    main()
