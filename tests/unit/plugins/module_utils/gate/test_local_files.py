from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gate.golden import CheckFailure
from ansible_collections.inference.fleet.plugins.module_utils.gate.local_files import (
    EXISTING,
    QUESTIONS,
    Question,
    difference,
    refusal,
)
from ansible_collections.inference.fleet.plugins.module_utils.net.http import Reply

FILE = Question("image_url", "file://")


def reply(status: int, message: str) -> Reply:
    return Reply(status, {}, message.encode(), 0.1)


def test_a_refusal_is_reported_without_the_name() -> None:
    assert refusal(FILE, EXISTING, reply(400, f"no file://{EXISTING}, nor {EXISTING}")) == "400: no …, nor …"


@pytest.mark.parametrize(("status", "reason"), [(200, "file_opened"), (500, "status"), (302, "status")])
def test_what_is_no_refusal_fails(status: int, reason: str) -> None:
    with pytest.raises(CheckFailure) as caught:
        refusal(FILE, EXISTING, reply(status, "…"))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("existing", "missing", "differs"),
    [
        (["400: no"], ["400: no"], False),
        (["400: no picture"], ["400: no such file"], True),
        (["400: no", "400: refused"], ["400: refused", "400: refused"], False),
        (["400: no picture", "400: no picture"], ["400: no such file", "400: no such file"], True),
    ],
)
def test_hosts_may_refuse_in_two_ways_and_not_by_what_is_there(
    existing: list[str], missing: list[str], differs: bool
) -> None:
    assert (difference(FILE, existing, missing) is not None) is differs


def test_pictures_videos_and_sounds_are_asked_for_as_urls_and_as_paths() -> None:
    assert {question.url("/x") for question in QUESTIONS} == {"/x", "file:///x"}
    assert len(QUESTIONS) == 6
