"""Give an installed copy of the collection the toy engine: ``python -m tests.fakes.toy.overlay DIRECTORY``.

What it does is all that a third engine takes: a module, its line in the registry, and a role.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.installed import FLEET, build, install

HERE = Path(__file__).resolve().parent
ENGINES = Path("plugins/module_utils/engines")


def add_to(collection: Path) -> None:
    """Add the engine to a copy of the collection, at its root."""
    shutil.copy(HERE / "toy.py", collection / ENGINES / "toy.py")
    shutil.copytree(HERE / "role", collection / "roles" / "toy", dirs_exist_ok=True)
    registry = collection / ENGINES / "registry.py"
    text = registry.read_text()
    changed = text.replace("import litellm, sglang, vllm\n", "import litellm, sglang, toy, vllm\n")
    changed = changed.replace("(vllm.ENGINE, sglang.ENGINE)", "(vllm.ENGINE, sglang.ENGINE, toy.ENGINE)")
    if changed.count("toy") != 2:
        raise ValueError(f"{registry} is not as it was: the toy engine cannot be registered.")
    registry.write_text(changed)


def main() -> None:
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    install(build(place), place)
    add_to(place / FLEET)


if __name__ == "__main__":
    main()
