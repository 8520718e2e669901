from __future__ import annotations

import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import (
    is_open,
    make_directories,
    open_tree,
    readable_by_all,
)


@pytest.fixture
def strict() -> t.Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("strict")
def test_directories_in_between_can_be_passed_under_any_umask(tmp_path: Path) -> None:
    make_directories(str(tmp_path / "a" / "b" / "secret"), 0o700)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/secret")] == [0o755, 0o755, 0o700]


def test_what_an_earlier_run_made_too_strict_is_widened_and_nothing_is_narrowed(tmp_path: Path) -> None:
    (tmp_path / "strict").mkdir(mode=0o750)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o1777)
    make_directories(str(tmp_path / "strict"))
    make_directories(str(tmp_path / "open"))
    assert mode(tmp_path / "strict") == 0o755
    assert mode(tmp_path / "open") == 0o1777


@pytest.mark.usefixtures("strict")
def test_programs_make_files_that_everybody_can_read(tmp_path: Path) -> None:
    with readable_by_all():
        (tmp_path / "inside").touch()
    (tmp_path / "outside").touch()
    assert mode(tmp_path / "inside") == 0o644
    assert mode(tmp_path / "outside") == 0o600


@pytest.mark.usefixtures("strict")
def test_a_tree_is_opened_once_and_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch()
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "python").touch(mode=0o700)
    (tree / "module.py").touch()
    (tree / "link").symlink_to(secret)
    assert not is_open(str(tree))
    assert open_tree(str(tree)) == 4
    assert is_open(str(tree))
    assert mode(tree / "bin" / "python") == 0o755
    assert mode(tree / "module.py") == 0o644
    assert mode(secret) == 0o600
    assert open_tree(str(tree)) == 0
