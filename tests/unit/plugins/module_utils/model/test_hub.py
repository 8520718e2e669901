from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.model import hub as model_hub
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import Problem
from ansible_collections.inference.fleet.plugins.module_utils.model.hub import Hub

from tests.fakes import hub as fake_hub
from tests.fakes.hub import Faults
from tests.unit.plugins.module_utils.model.models import MODEL, model_files


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[fake_hub.Hub]:
    monkeypatch.setattr(model_hub.time, "sleep", lambda _seconds: None)
    with fake_hub.start(page=2) as started:
        started.commit(MODEL, model_files())
        yield started


def test_a_branch_is_resolved_and_its_files_are_listed_page_by_page(hub: fake_hub.Hub) -> None:
    commit = hub.refs(MODEL)["main"]
    client = Hub(hub.url + "/", MODEL, "")
    assert client.resolve("main") == commit
    assert client.resolve(commit) == commit
    files = {file.path: file for file in client.files(commit)}
    assert {path: file.size for path, file in files.items()} == {path: len(one) for path, one in model_files().items()}
    assert files["config.json"].git_sha1
    assert not files["config.json"].sha256
    assert files["model-00001-of-00002.safetensors"].sha256


def test_a_stumbling_hub_is_asked_again(hub: fake_hub.Hub) -> None:
    hub.faults.statuses = [503, 429]
    assert Hub(hub.url, MODEL, "").resolve("main") == hub.refs(MODEL)["main"]


@pytest.mark.parametrize(
    ("faults", "revision", "token", "expected"),
    [
        (Faults(), "v9", "", r"has no revision 'v9' \(fleet_model_revision\).*It has main"),
        (Faults(token="hf_right"), "main", "", r"no token \(model_token_file is not set\) may not see it: HTTP 401"),
        (Faults(token="hf_right"), "main", "hf_wrong", r"refuses the token in model_token_file"),
        (Faults(token="hf_right", gated=True), "main", "hf_wrong", r"is gated on .*Ask for access at"),
        (Faults(token="hf_right", gated=True), "main", "", r"is gated on .*model_token_file is not set"),
        (Faults(status=404, code="RepoNotFound"), "main", "", r"There is no model .*HTTP 404 RepoNotFound"),
        (Faults(status=503), "main", "", r"answered HTTP 503 .*Try again later"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    hub: fake_hub.Hub, faults: Faults, revision: str, token: str, expected: str
) -> None:
    hub.faults = faults
    with pytest.raises(FleetError, match=expected) as caught:
        Hub(hub.url, MODEL, token).resolve(revision)
    assert hub.url in str(caught.value)
    assert "hf_wrong" not in str(caught.value)


def test_a_gated_model_is_open_to_those_who_were_let_in(hub: fake_hub.Hub) -> None:
    hub.faults = Faults(token="hf_right", gated=True)
    assert Hub(hub.url, MODEL, "hf_right").resolve("main") == hub.refs(MODEL)["main"]
    hub.commit(MODEL, {"model.gguf": b"x"})
    assert Hub(hub.url, MODEL, "hf_right").resolve("main") == hub.refs(MODEL)["main"]


def test_a_hub_that_cannot_be_reached_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_hub.time, "sleep", lambda _seconds: None)
    with pytest.raises(FleetError, match=r"cannot reach the model hub at http://127\.0\.0\.1:1/.*model_endpoint"):
        Hub("http://127.0.0.1:1", MODEL, "").resolve("main")


def test_something_else_at_the_address_is_no_hub(hub: fake_hub.Hub) -> None:
    with pytest.raises(FleetError, match=r"is no Hugging Face hub .*Correct model_endpoint"):
        Hub(hub.url + "/_fake/requests?", MODEL, "").resolve("main")


def test_a_name_that_leads_out_of_the_snapshot_is_refused(hub: fake_hub.Hub) -> None:
    commit = hub.commit(MODEL, {"../../etc/cron.d/x": b"x"})
    with pytest.raises(Problem, match="outside the snapshot"):
        Hub(hub.url, MODEL, "").files(commit)
