"""Wheels of the stand-in under the engines' names, and the locks that name them.

The same sources make the same bytes on every machine, in a folder that is named after them: labs of different checkouts
share a wheelhouse and do not disturb each other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from pathlib import Path

import yaml

from lab.wheels import shims

ROOT = Path(__file__).resolve().parents[3]

#: Versions to deploy, upgrade to and go back from. Their local part distinguishes them from the real ones.
VERSIONS = {
    "vllm": ("0.32.0+fake", "0.33.0+fake"),
    "sglang": ("0.5.23+fake", "0.5.24+fake"),
    "toy": ("1.0.0", "1.1.0"),
}
_SHARED = (
    "tests/__init__.py",
    "tests/fakes/__init__.py",
    "tests/fakes/engine.py",
    "tests/fakes/standin/__init__.py",
    "tests/fakes/standin/faults.py",
    "tests/fakes/standin/options.py",
    "tests/fakes/standin/meeting.py",
    "tests/fakes/standin/pace.py",
)
#: What runs on a host, under its name in the repository.
SHIPPED = {
    **{
        engine: (*_SHARED, f"tests/fakes/standin/{engine}_server.py", f"tests/fakes/standin/{engine}_options.json")
        for engine in ("vllm", "sglang")
    },
    "toy": (*_SHARED, "tests/fakes/toy/__init__.py", "tests/fakes/toy/server.py"),
}
#: The modules of the engine that the collection imports or starts, and what they have.
MODULES = {
    "vllm": {
        "vllm/__init__.py": "",
        "vllm/entrypoints/__init__.py": "",
        "vllm/entrypoints/cli/__init__.py": "",
        "vllm/entrypoints/cli/main.py": "from tests.fakes.standin.vllm_server import main\n",
        "vllm/entrypoints/cli/serve.py": "from tests.fakes.standin.vllm_server import ServeSubcommand\n",
        "vllm/utils/__init__.py": "",
        "vllm/utils/argparse_utils.py": "from tests.fakes.standin.vllm_server import FlexibleArgumentParser\n",
    },
    "sglang": {
        "sglang/__init__.py": "",
        "sglang/launch_server.py": (
            'from tests.fakes.standin.sglang_server import main\n\nif __name__ == "__main__":\n    main()\n'
        ),
        # What the request guard stands in front of.
        "starlette/__init__.py": "",
        "starlette/applications.py": "class Starlette:\n    async def __call__(self, *_words): ...\n",
        "sglang/srt/__init__.py": "",
        "sglang/srt/server_args.py": "from tests.fakes.standin.sglang_server import ServerArgs\n",
        "sglang/srt/utils/__init__.py": "",
        "sglang/srt/utils/server_args_config_parser.py": (
            "from tests.fakes.standin.sglang_server import ConfigArgumentMerger\n"
        ),
    },
    "toy": {"toy.py": "from tests.fakes.toy.server import main\n"},
}
SCRIPTS = {
    "vllm": "[console_scripts]\nvllm = vllm.entrypoints.cli.main:main\n",
    "sglang": "",
    "toy": "[console_scripts]\ntoy = toy:main\n",
}


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel, packed.

    Attributes:
        engine: one of VERSIONS.
        version: as pip knows it.
        data: the file's bytes.
    """

    engine: str
    version: str
    data: bytes

    @property
    def name(self) -> str:
        return f"{self.engine}-{self.version}-py3-none-any.whl"

    @property
    def requirement(self) -> str:
        """The lock of a runtime that is this wheel alone."""
        return f"{self.engine}=={self.version} \\\n    --hash=sha256:{hashlib.sha256(self.data).hexdigest()}\n"

    def lock_name(self, accelerator: str) -> str:
        return f"{self.engine}-{self.version}-{accelerator}"


def build(engine: str, version: str) -> Wheel:
    """The stand-in as that engine, in that version."""
    dist_info = f"{engine}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {engine}", f"Version: {version}", "Summary: A stand-in for tests"]
    files = {name: (ROOT / name).read_bytes() for name in SHIPPED[engine]}
    files |= {name: text.encode() for name, text in MODULES[engine].items()}
    files[f"{dist_info}/METADATA"] = "\n".join(metadata).encode() + b"\n"
    files[f"{dist_info}/entry_points.txt"] = SCRIPTS[engine].encode()
    return Wheel(engine, version, shims.wheel(dist_info, files))


def build_all() -> list[Wheel]:
    return [build(engine, version) for engine, versions in VERSIONS.items() for version in versions]


def write_wheels(wheels: list[Wheel], wheelhouse: Path) -> Path:
    """Put the wheels into a folder of their own in the wheelhouse; what is there stays as it is.

    Returns:
        The folder.
    """
    digest = hashlib.sha256(b"".join(wheel.data for wheel in wheels)).hexdigest()[:12]
    folder = wheelhouse / f"fake-engines-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        path = folder / wheel.name
        if not path.exists():
            new = folder / f".{wheel.name}.new"
            new.write_bytes(wheel.data)
            new.chmod(0o644)
            new.replace(path)
    return folder


def write_locks(wheels: list[Wheel], folder: Path, python: str, accelerator: str) -> None:
    """Make a directory in the form of ``engine_locks_dir``: locks.yml, and a file for each lock.

    Args:
        wheels: one runtime each.
        folder: is made.
        python: what the hosts have, as ``3.11``.
        accelerator: ``cpu`` or ``cuda``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = {}
    for wheel in wheels:
        name = wheel.lock_name(accelerator)
        (folder / f"{name}.txt").write_text(wheel.requirement, encoding="utf-8")
        index[name] = {
            "engine": wheel.engine,
            "version": wheel.version,
            "accelerator": accelerator,
            "python": python,
        }
    (folder / "locks.yml").write_text("---\n" + yaml.safe_dump(index), encoding="utf-8")


def system_python() -> str:
    """This machine's own Python, which is also that of the lab's hosts: they are its distribution."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run(["/usr/bin/python3", "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()
