"""The wheelhouse: the same bytes from the same inputs, and nothing half done."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import typing as t
import zipfile
from pathlib import Path

import pytest

from lab.wheels import build, shims

EXTENSION = b"import torch\n\ndef _has_ops():\n    return False\n"
METADATA = b"Metadata-Version: 2.4\nName: torchvision\nVersion: 0.28.0\nRequires-Dist: torch==2.13.0\n"


def source(**changes: bytes) -> io.BytesIO:
    """A wheel with the shape of torchvision's."""
    files = {
        "torchvision/__init__.py": b"",
        "torchvision/extension.py": EXTENSION,
        "torchvision/_C.so": b"\x7fELF",
        "torchvision/image.so.1": b"\x7fELF",
        "torchvision.libs/libcudart.13.so": b"\x7fELF",
        "torchvision-0.28.0.dist-info/METADATA": METADATA,
        "torchvision-0.28.0.dist-info/WHEEL": b"Tag: cp311-cp311-manylinux_2_28_x86_64\n",
        "torchvision-0.28.0.dist-info/RECORD": b"",
    }
    files.update({name.replace("__", "/") + ".py": content for name, content in changes.items()})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    buffer.seek(0)
    return buffer


def members(wheel: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_torchvision_comes_out_the_same_twice() -> None:
    assert shims.torchvision_pyonly(source(), "0.28.0") == shims.torchvision_pyonly(source(), "0.28.0")


def test_torchvision_keeps_python_and_loses_binaries() -> None:
    files = members(shims.torchvision_pyonly(source(), "0.28.0"))
    assert not [name for name in files if ".so" in name or ".libs" in name]
    assert files["torchvision/extension.py"].startswith(EXTENSION)
    assert b"nms" in files["torchvision/extension.py"]
    assert b"\nVersion: 0.28.0+pyonly\n" in files["torchvision-0.28.0+pyonly.dist-info/METADATA"]
    assert b"Root-Is-Purelib: true" in files["torchvision-0.28.0+pyonly.dist-info/WHEEL"]


def test_the_record_names_every_file_with_its_digest() -> None:
    files = members(shims.torchvision_pyonly(source(), "0.28.0"))
    record = {
        row[0]: row[1] for row in csv.reader(files["torchvision-0.28.0+pyonly.dist-info/RECORD"].decode().split())
    }
    assert set(record) == set(files)
    for name, content in files.items():
        if not name.endswith("/RECORD"):
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert record[name] == f"sha256={digest}"


def test_a_torchvision_of_another_shape_is_refused() -> None:
    with pytest.raises(shims.ShimError, match="_has_ops"):
        shims.torchvision_pyonly(source(torchvision__extension=b"import torch\n"), "0.28.0")
    with pytest.raises(shims.ShimError, match=r"Version: 0\.29\.0"):
        shims.torchvision_pyonly(source(), "0.29.0")


def test_the_alias_has_the_hash_that_the_lock_was_made_with() -> None:
    assert hashlib.sha256(shims.vllm_alias(build.VLLM)).hexdigest() == build.VLLM_ALIAS.sha256


@pytest.fixture
def one_wheel(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A wheelhouse of the alias alone, and no pip. Gives the commands that were run."""
    commands: list[list[str]] = []

    def run(command: list[str], **_options: t.Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: No matching distribution found\n")

    monkeypatch.setattr(build, "WHEELHOUSE", (build.VLLM_ALIAS,))
    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.mark.usefixtures("one_wheel")
def test_a_complete_wheelhouse_is_left_alone(tmp_path: Path) -> None:
    house = tmp_path / "a/house"
    assert build.build(house) == [build.VLLM_ALIAS.name]
    before = (house / build.VLLM_ALIAS.name).stat()
    assert build.build(house) == []
    assert (house / build.VLLM_ALIAS.name).stat() == before


@pytest.mark.usefixtures("one_wheel")
def test_a_damaged_wheel_is_built_again_and_remains_are_removed(tmp_path: Path) -> None:
    (tmp_path / build.VLLM_ALIAS.name).write_bytes(b"half")
    (tmp_path / ".new-killed").mkdir()
    assert build.build(tmp_path) == [build.VLLM_ALIAS.name]
    assert build.VLLM_ALIAS.is_in(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", build.VLLM_ALIAS.name]


def test_without_torch_the_message_says_how_to_provide_it(
    one_wheel: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "WHEELHOUSE", (build.TORCH_CPU,))
    monkeypatch.setenv("UV_FIND_LINKS", "/from/uv")
    assert (
        build.main(["--output", str(tmp_path), "--find-links", "/mine", "--torch-index", "https://example.test"]) == 1
    )
    message = capsys.readouterr().err
    for part in (build.TORCH_CPU.name, build.TORCH_CPU.sha256, "--find-links", "No matching distribution"):
        assert part in message
    assert "WARNING" not in message
    assert {"--find-links=/mine", "--find-links=/from/uv"} <= set(one_wheel[0])
    assert "--extra-index-url=https://example.test" in one_wheel[1]
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_wheel_with_another_hash_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "VLLM_ALIAS", build.Wheel(build.VLLM_ALIAS.name, "0" * 64))
    monkeypatch.setattr(build, "WHEELHOUSE", (build.VLLM_ALIAS,))
    with pytest.raises(build.BuildError, match=r"0{64} was expected"):
        build.build(tmp_path)
    assert not (tmp_path / build.VLLM_ALIAS.name).exists()
