"""Fixtures of all unit tests."""

from __future__ import annotations

import functools
import importlib
import json
import typing as t
from unittest import mock

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args

Result = dict[str, t.Any]


class RunModule(t.Protocol):
    def __call__(self, name: str, args: dict[str, t.Any], *, check: bool = False, diff: bool = False) -> Result: ...


@pytest.fixture(scope="session", autouse=True)
def _short_aws() -> t.Iterator[None]:
    """Read botocore's description of a service once, not in each session of boto3; moto without AWS's own images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        try:
            from botocore import session
        except ImportError:  # on a host's Python
            pass
        else:
            patch.setattr(session, "create_loader", functools.cache(session.create_loader))
        yield


@pytest.fixture
def run_module(capfd: pytest.CaptureFixture[str]) -> RunModule:
    """Run a module of this collection in this process, as Ansible would, and return its JSON result."""

    def run(name: str, args: dict[str, t.Any], *, check: bool = False, diff: bool = False) -> Result:
        module = importlib.import_module(f"ansible_collections.inference.fleet.plugins.modules.{name}")
        capfd.readouterr()
        with (
            # A module has a process of its own, in which no other module has warned.
            mock.patch.object(warnings, "_global_warnings", {}),
            mock.patch.object(warnings, "_global_deprecations", {}),
            # The controller's plugins, which other tests import, would display the warnings of a module.
            mock.patch.object(_internal, "is_controller", False),
            patch_module_args({**args, "_ansible_check_mode": check, "_ansible_diff": diff}),
            pytest.raises(SystemExit),
        ):
            module.main()
        result: Result = json.loads(capfd.readouterr().out)
        return result

    return run
