"""The lookup that enables the callback; a real run in callback/test_rollout.py shows that Ansible then loads it."""

from __future__ import annotations

import pytest
from ansible import constants
from ansible_collections.inference.fleet.plugins.callback import rollout
from ansible_collections.inference.fleet.plugins.lookup.progress import CALLBACK, LookupModule


def test_the_callback_is_enabled_once_beside_those_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "CALLBACKS_ENABLED", ["ansible.posix.timer"])
    assert LookupModule().run(["variables.yml"]) == ["variables.yml"]
    LookupModule().run(["variables.yml"])
    assert vars(constants)["CALLBACKS_ENABLED"] == ["ansible.posix.timer", "inference.fleet.rollout"]


def test_its_name_is_that_of_the_callback() -> None:
    assert rollout.CallbackModule.CALLBACK_NAME == CALLBACK
