"""The supported versions. The workflow in .github runs the same cells, and a unit test compares them."""

from __future__ import annotations

import dataclasses

#: Versions of ansible-core. The oldest is what meta/runtime.yml requires.
CORES = ("2.19", "2.20", "2.21")
#: The controller's Python, which runs all of these versions.
CONTROLLER = "3.12"
#: Pythons of hosts. The oldest is the one that ruff checks the syntax for.
TARGETS = ("3.9", "3.10", "3.11", "3.12", "3.13")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One version of one thing.

    Attributes:
        kind: `core` or `target`.
        version: of ansible-core, or of a host's Python.
    """

    kind: str
    version: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.version}"

    @property
    def python(self) -> str:
        return CONTROLLER if self.kind == "core" else self.version

    @property
    def locks(self) -> tuple[str, ...]:
        return ("tests.txt", f"{self.name}.txt") if self.kind == "core" else ("target.txt",)


CELLS = (*(Cell("core", version) for version in CORES), *(Cell("target", version) for version in TARGETS))


def choose(names: list[str]) -> list[Cell]:
    """The cells with these names; all by default.

    Raises:
        ValueError: there is no such cell.
    """
    known = {cell.name: cell for cell in CELLS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"the matrix has no cell {', '.join(unknown)}; its cells are: {' '.join(known)}")
    return [known[name] for name in names] if names else list(CELLS)
