"""Writes docs/aws-iam.json, and its tables in docs/aws.md, from the table of rights: ``python -m tests.aws_rights``."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ROOT / "docs" / "aws-iam.json"
PAGE = ROOT / "docs" / "aws.md"

sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.inference.fleet.plugins.plugin_utils.aws import rights  # noqa: E402

BEGIN, END = "<!-- Written by tests/aws_rights.py from here -->", "<!-- to here -->"


def policies() -> str:
    """The file of the policies."""
    return json.dumps(rights.documents(), indent=2) + "\n"


def written(text: str) -> str:
    """The page with its tables up to date."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{_table_of_policies()}\n\n{_table_of_rights()}\n\n{END}{after}"


def _table_of_policies() -> str:
    rows = [(f"`{policy.name}`", policy.to, policy.when) for policy in rights.POLICIES]
    return _table(("policy", "for", "needed"), rows)


def _table_of_rights() -> str:
    rows = [
        (f"`{action}`", f"`{right.policy.name}`", right.why, right.used_by)
        for right in rights.RIGHTS
        for action in right.actions
    ]
    return _table(("action", "policy", "for what", "by"), rows)


def _table(head: t.Sequence[str], rows: t.Iterable[t.Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> t.NoReturn:
    POLICIES.write_text(policies())
    PAGE.write_text(written(PAGE.read_text()))
    sys.exit()


if __name__ == "__main__":
    main()
