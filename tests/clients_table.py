"""Writes the table of clients' limits in docs/operations.md from their schema: ``python -m tests.clients_table``."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operations.md"

sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.inference.fleet.plugins.module_utils.clients import schema  # noqa: E402

BEGIN, END = "<!-- Written by tests/clients_table.py from here -->", "<!-- to here -->"


def written(text: str) -> str:
    """The page with its table up to date."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    head = "| field | value | for example | what it bounds | where it holds |\n| --- | --- | --- | --- | --- |"
    rows = [f"| {' | '.join(_cells(row))} |" for row in schema.LIMITS]
    return "\n".join([f"{before}{BEGIN}", "", head, *rows, "", f"{END}{after}"])


def _cells(row: schema.Limit) -> list[str]:
    return [f"`{row.name}`", f"{row.kind.value}{_bound(row)}", f"`{row.example}`", row.description, row.enforcer.value]


def _bound(row: schema.Limit) -> str:
    if row.kind is schema.Kind.COUNT:
        return f", {row.least} or more"
    if row.kind is schema.Kind.AMOUNT:
        return " above 0"
    return f", {row.least} seconds or more" if row.kind is schema.Kind.PERIOD else ""


def main() -> t.NoReturn:
    PAGE.write_text(written(PAGE.read_text()))
    sys.exit()


if __name__ == "__main__":
    main()
