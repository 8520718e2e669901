"""Fill a directory with the wheels that the engines' CPU locks name and the public index does not have.

``python -m lab.wheels.build --output DIR``. An existing wheel with the right hash is kept; a new one is verified and
then moved into place, so that a directory in use is never half written.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

from lab.wheels import shims

DEFAULT_OUTPUT = Path("/var/cache/inference-fleet/wheelhouse")
VLLM, TORCH, TORCHVISION = "0.32.0", "2.13.0", "0.28.0"
# SGLang 0.5.23 needs this.
SGLANG_KERNEL = "0.4.10"
# pip, because uv installs wheels but cannot download one to a file.
PIP = "26.3"
# The index of CPU builds on PyTorch's installation page, or a mirror of it; used last.
TORCH_INDEX = os.environ.get("LAB_TORCH_INDEX", "")
TARGET = ("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_x86_64")


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A file with known content."""

    name: str
    sha256: str

    def is_in(self, folder: Path) -> bool:
        path = folder / self.name
        return path.is_file() and _sha256(path) == self.sha256

    @property
    def requirement(self) -> str:
        distribution, version = self.name.split("-")[:2]
        return f"{distribution}=={version} --hash=sha256:{self.sha256}\n"


TORCH_CPU = Wheel(
    f"torch-{TORCH}+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
    "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
)
TORCHVISION_SOURCE = Wheel(
    f"torchvision-{TORCHVISION}-cp311-cp311-manylinux_2_28_x86_64.whl",
    "7e80f543b22503d9415e126db5f0ff3917036925e38560ee6b9ae38c571a4002",
)
TORCHVISION_PYONLY = Wheel(
    f"torchvision-{TORCHVISION}+pyonly-py3-none-any.whl",
    "c9d8e3cc2d837d6b64aa519d8d88ce76477cdaa2aa21aad4289c92db57164a1c",
)
VLLM_ALIAS = Wheel(
    f"vllm-{VLLM}+cpu-py3-none-any.whl",
    "de8858a5782c1bf0deb1e07b967a58b7bc89ac284c4186eb54d76b866be303ab",
)
SGLANG_KERNEL_CPU = Wheel(
    f"sglang_kernel-{SGLANG_KERNEL}+cpu-py3-none-any.whl",
    "2786c7ff5a0ac75ca2bc06808e8cd61c40e40dec00631d3c7fe243eca4c6dc88",
)
WHEELHOUSE = (TORCH_CPU, TORCHVISION_PYONLY, VLLM_ALIAS, SGLANG_KERNEL_CPU)
# Shims without an input, by their names.
_MADE: dict[str, t.Callable[[], bytes]] = {
    VLLM_ALIAS.name: lambda: shims.vllm_alias(VLLM),
    SGLANG_KERNEL_CPU.name: lambda: shims.sglang_kernel(SGLANG_KERNEL),
}


class BuildError(Exception):
    """The wheelhouse cannot be completed; the message says what to do."""


def build(output: Path, find_links: t.Sequence[str] = (), torch_index: str = TORCH_INDEX) -> list[str]:
    """Complete the wheelhouse.

    Args:
        output: the directory; created if missing.
        find_links: further places that may have torch's CPU wheel.
        torch_index: the index to use when no configured place has it; empty for none.

    Returns:
        The names of the wheels that were added.
    """
    output.mkdir(parents=True, exist_ok=True)
    with _locked(output):
        for remains in output.glob(".new-*"):  # of a run that was killed
            shutil.rmtree(remains)
        missing = [wheel for wheel in WHEELHOUSE if not wheel.is_in(output)]
        if not missing:
            return []
        # Beside the wheels, because a rename is atomic only within a file system.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=output) as temporary:
            new = Path(temporary)
            for wheel in missing:
                if wheel.name in _MADE:
                    (new / wheel.name).write_bytes(_MADE[wheel.name]())
                elif wheel == TORCHVISION_PYONLY:
                    _download(TORCHVISION_SOURCE, new)
                    source = io.BytesIO((new / TORCHVISION_SOURCE.name).read_bytes())
                    (new / wheel.name).write_bytes(shims.torchvision_pyonly(source, TORCHVISION))
                else:
                    _torch(wheel, new, find_links, torch_index)
                found = _sha256(new / wheel.name)
                if found != wheel.sha256:
                    raise BuildError(f"{wheel.name} came out with sha256 {found}, and {wheel.sha256} was expected")
                (new / wheel.name).chmod(0o644)
                (new / wheel.name).replace(output / wheel.name)
    return [wheel.name for wheel in missing]


def _torch(wheel: Wheel, folder: Path, find_links: t.Sequence[str], torch_index: str) -> None:
    places = [*find_links, *filter(None, os.environ.get("UV_FIND_LINKS", "").split(","))]
    attempts = [[f"--find-links={place}" for place in places]]
    if torch_index:
        attempts.append([f"--extra-index-url={torch_index}"])
    reasons = []
    for options in attempts:
        try:
            return _download(wheel, folder, options)
        except BuildError as error:
            reasons.append(str(error))
    raise BuildError(
        f"{wheel.name} is in none of the places that pip looks in. Put the file into a folder and name it with "
        "`--find-links FOLDER` or PIP_FIND_LINKS, or name an index that has PyTorch's CPU builds (PyTorch's "
        f"installation page names one) with LAB_TORCH_INDEX or PIP_EXTRA_INDEX_URL. Its sha256 is {wheel.sha256}. "
        f"pip said: {reasons[0]}"
    )


def _download(wheel: Wheel, folder: Path, options: t.Sequence[str] = ()) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(wheel.requirement)
    # pip keeps its own configuration, so that its mirrors, proxies and certificates are used.
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv) if uv.exists() else "uv", "run", "--no-project", "--quiet", f"--python={sys.executable}"]
    command += [f"--with=pip=={PIP}", "python", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", *TARGET, f"--dest={folder}", *options]
    done = subprocess.run(
        [*command, f"--requirement={requirements}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not wheel.is_in(folder):
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-3:]
        raise BuildError(f"{wheel.name} cannot be downloaded: {' '.join(said) or 'no reason given'}")


@contextlib.contextmanager
def _locked(folder: Path) -> t.Iterator[None]:
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def main(arguments: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fill a folder with the wheels of the lab's engines.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="default: %(default)s")
    parser.add_argument("--find-links", action="append", default=[], metavar="FOLDER_OR_URL", help="may have torch")
    parser.add_argument("--torch-index", default=TORCH_INDEX, metavar="URL", help="asked last; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        added = build(options.output, options.find_links, options.torch_index)
    except (BuildError, OSError, shims.ShimError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {'added ' + ', '.join(added) if added else 'complete'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
