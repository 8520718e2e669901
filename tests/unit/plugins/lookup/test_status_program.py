"""The lookup that packs the program of the status page."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from ansible import constants
from ansible_collections.inference.fleet.plugins.lookup.status_program import LookupModule
from ansible_collections.inference.fleet.plugins.plugin_utils.status.program import pack_status_program


def test_the_program_is_in_the_directory_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(constants), "DEFAULT_LOCAL_TMP", str(tmp_path))
    [path] = LookupModule().run([])
    assert Path(path).parent == tmp_path
    assert Path(path).read_bytes() == pack_status_program()
    assert "__main__.py" in zipfile.ZipFile(path).namelist()
