"""Rewrites the tables of docs/profiles.md from the profiles: ``python -m tests.profiles_page``."""

from __future__ import annotations

import json
import re
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "profiles.md"

sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES  # noqa: E402
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import PROFILES  # noqa: E402

BEGIN, END = "<!-- Written by tests/profiles_page.py from here -->", "<!-- to here -->"


def written(text: str) -> str:
    """The page with its tables up to date."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    tables = "\n\n".join([*(_section(name, purpose) for name, purpose in PROFILES.items()), _measured()])
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _section(name: str, purpose: str) -> str:
    lines = [f"### {name}", "", f"For {purpose}."]
    for engine, known in ENGINES.items():
        lines += ["", f"| {known.title} | value | why | source |", "| --- | --- | --- | --- |"]
        for setting in known.profiles[name]:
            gpu = f" ({setting.gpu} only)" if setting.gpu else ""
            value = f"`{json.dumps(setting.value)}`"
            cells = [f"`{engine}_{setting.name}`{gpu}", value, setting.why, _links(setting.source)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured() -> str:
    """What a search varies, from which measured profiles come."""
    lines = [
        "### measured-…",
        "",
        "For a GPU, a model and a purpose that you measured: [playbooks/tune.yml](tuning.md) writes them beside group "
        "vars. It tries these values, each with the best of the others, and those that change answers only with "
        "`-e tune_lossy=true`.",
    ]
    for engine, known in ENGINES.items():
        lines += [
            "",
            f"| {known.title} | tried | what more gives and costs | changes answers |",
            "| --- | --- | --- | --- |",
        ]
        for tunable in known.tunables:
            values = ", ".join(f"`{json.dumps(value)}`" for value in tunable.values)
            cells = [f"`{engine}_{tunable.name}`", values, tunable.why, "yes" if tunable.lossy else "no"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _links(source: str) -> str:
    def link(match: re.Match[str]) -> str:
        place, *rest = match[0].removeprefix("https://").rstrip("/").split("/")
        name = f"{'/'.join(rest[:2])}#{rest[3]}" if place == "github.com" else place
        return f"[{name}]({match[0]})"

    return re.sub(r"https://[^\s,]+", link, source)


def main() -> t.NoReturn:
    PAGE.write_text(written(PAGE.read_text()))
    sys.exit()


if __name__ == "__main__":
    main()
