from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.receipts.receipt import (
    FORMAT,
    Receipt,
    differences,
    parse,
    shortened,
)

PATH = "/var/lib/inference/receipt.json"
RECEIPT = Receipt("abc", {"units": ["haproxy.service"]}, {"unit": {"haproxy.service": "active enabled"}})


def test_what_is_written_is_read() -> None:
    assert parse(RECEIPT.document(), PATH) == (RECEIPT, "")


def test_a_bare_host_has_none() -> None:
    assert parse(None, PATH) == (None, "no run has converged the host yet")


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"format": "1"},
        {**RECEIPT.document(), "digest": 1},
        {**RECEIPT.document(), "places": {"units": "haproxy"}},
        {**RECEIPT.document(), "found": {"unit": "active"}},
    ],
)
def test_what_is_no_receipt_does_not_count(document: t.Any) -> None:
    assert parse(document, PATH) == (None, f"{PATH} is no receipt")


def test_a_newer_format_does_not_count_and_both_versions_are_named() -> None:
    receipt, reason = parse({**RECEIPT.document(), "format": FORMAT + 1}, PATH)
    assert receipt is None
    assert reason == f"{PATH} has format {FORMAT + 1}, and this version of the collection reads {FORMAT}"


def test_nothing_differs_from_itself() -> None:
    assert differences(RECEIPT.found, RECEIPT.found) == []


def test_a_difference_names_what_was_and_what_is() -> None:
    before = {
        "file": {
            "/etc/a": f"file 0640 root:haproxy sha256:{'a' * 64}",
            "/etc/gone": "file 0644 root:root",
            "/etc/link": "link 0777 root:root ../x",
        },
        "unit": {"haproxy.service": "active enabled"},
    }
    now = {
        "file": {
            "/etc/a": f"file 0644 root:haproxy sha256:{'b' * 64}",
            "/etc/link": "link 0777 root:root ../y",
            "/etc/new": "file 0600 root:root",
        },
        "unit": {"haproxy.service": "active disabled"},
    }
    assert differences(before, now) == [
        "file /etc/a: 0644, was 0640, sha256:bbbbbbbbbbbb, was sha256:aaaaaaaaaaaa",
        "file /etc/gone: missing",
        "file /etc/link: ../y, was ../x",
        "file /etc/new: new (file 0600 root:root)",
        "unit haproxy.service: disabled, was enabled",
    ]


def test_many_differences_are_counted() -> None:
    lines = [f"file /etc/{number}: missing" for number in range(30)]
    assert shortened(lines) == [*lines[:20], "and 10 more"]
    assert shortened(lines[:20]) == lines[:20]
