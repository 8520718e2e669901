from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.filter.keys import FilterModule
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys

FILTERS = FilterModule().filters()
STORE = "a1" * 16
NOW = "2026-11-22T12:00:00Z"
A, B, DEAD = ("a" * 64, "b" * 64, "d" * 64)

Item = dict[str, t.Any]


def key(digest: str, slot: str = "current", **changes: t.Any) -> Item:
    times = {"created": "2026-11-10T12:00:00Z", "activated": "", "retire_at": "", "retired": ""}
    return {"slot": slot, "sha256": digest, "fingerprint": api_keys.hash_fingerprint(digest), **times, **changes}


def client(name: str, *keys: Item, **changes: t.Any) -> Item:
    limits: Item = {"requests_per_minute": None, "max_concurrent": None, "expires": "", "models": []}
    return {"name": name, "stored_keys": list(keys), "due": False, "expired": False, **limits, **changes}


def dead(digest: str, name: str = "team-a") -> Item:
    return {**key(digest), "name": name, "retired": "2026-11-20T12:00:00Z"}


def store(*clients: Item, **changes: t.Any) -> Item:
    read = {"id": STORE, "generation": 3, "name": "the key store /k.json on here"}
    return {"clients": list(clients), "retired": [], "rotation": None, "store": read, **changes}


def host(
    uses: dict[str, tuple[str, int]] | None = None, since: str | None = "2026-11-01T12:00:00Z", **changes: t.Any
) -> Item:
    usage = [
        {"fingerprint": api_keys.hash_fingerprint(digest), "last_used": last_used, "requests": requests}
        for digest, (last_used, requests) in (uses or {}).items()
    ]
    accepts = [api_keys.hash_fingerprint(digest) for digest in (A, B)]
    return {"usage": usage, "since": since, "accepts": accepts, **changes}


def rows(content: Item, hosts: dict[str, Item]) -> list[Item]:
    found: list[Item] = FILTERS["key_rows"](content, hosts, NOW)
    return found


def notes(content: Item, hosts: dict[str, Item], clients: t.Sequence[str] = ()) -> list[str]:
    found: list[str] = FILTERS["key_notes"](content, hosts, clients)
    return found


def test_each_host_that_used_a_key_has_a_row() -> None:
    hosts = {
        "i-2": host({A: ("2026-11-22T11:00:30Z", 7)}),
        "i-1": host({A: ("2026-11-21T09:30:00Z", 1)}, since="2026-11-20T00:00:00Z"),
    }
    assert rows(store(client("team-a", key(A), due=True)), hosts) == [
        {
            "client": "team-a",
            "key": "sk-…aaaaaaaa",
            "state": "current",
            "age": "12d",
            "due": True,
            "limits": "",
            "host": "i-1",
            "last_used": "2026-11-21 09:30",
            "requests": 1,
            "since": "2026-11-20 00:00",
        },
        {
            "client": "team-a",
            "key": "sk-…aaaaaaaa",
            "state": "current",
            "age": "12d",
            "due": True,
            "limits": "",
            "host": "i-2",
            "last_used": "2026-11-22 11:00",
            "requests": 7,
            "since": "2026-11-01 12:00",
        },
    ]


@pytest.mark.parametrize(
    ("hosts", "named", "since"),
    [
        ({"i-1": host(since="2026-11-12T00:00:00Z")}, "i-1", "2026-11-12 00:00"),
        (
            {"i-1": host(since="2026-11-11T00:00:00Z"), "i-2": host(since="2026-11-12T00:00:00Z")},
            "all 2",
            "2026-11-12 00:00",
        ),
    ],
)
def test_the_hosts_that_did_not_use_a_key_share_a_row(hosts: dict[str, Item], named: str, since: str) -> None:
    (row,) = rows(store(client("team-a", key(A))), hosts)
    assert (row["host"], row["last_used"], row["requests"], row["since"]) == (named, "not since", 0, since)


def test_a_key_that_is_younger_than_all_that_is_known_was_never_used() -> None:
    hosts = {"i-1": host({A: (NOW, 3)}), "i-2": host(), "i-3": host()}
    first, second = rows(store(client("team-a", key(A))), hosts)
    assert (first["host"], first["requests"]) == ("i-1", 3)
    assert (second["host"], second["last_used"], second["requests"]) == ("2 others", "never", 0)


def test_hosts_that_say_nothing_count_neither_way() -> None:
    hosts: dict[str, Item] = {"i-1": {"unreachable": True}, "i-2": {}, "i-3": host(since=None)}
    (row,) = rows(store(client("team-a", key(A))), hosts)
    assert (row["host"], row["last_used"], row["requests"], row["since"]) == (None, "not known", None, None)


def test_keys_have_states() -> None:
    clients = [
        client("a", key(A), key(B, "pending", created="2026-11-22T11:59:00Z")),
        client("b", key(A), key(B, "previous", retire_at="2026-11-23T12:00:00Z")),
        client("c", key(A), key(B, "previous", retired="2026-11-21T12:00:00Z"), expired=True, due=False),
    ]
    found = rows(store(*clients), {"i-1": host()})
    assert [(row["client"], row["state"], row["age"], row["due"]) for row in found] == [
        ("a", "current", "12d", False),
        ("a", "pending", "1m", None),
        ("b", "current", "12d", False),
        ("b", "previous until 2026-11-23 12:00", "12d", None),
        ("c", "current, expired", "12d", False),
        ("c", "retired, expired", "12d", None),
    ]


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({}, ""),
        ({"requests_per_minute": 600, "max_concurrent": 8}, "600 requests/min, 8 at once"),
        ({"expires": "2027-01-31T00:00:00Z", "models": ["org/one"]}, "until 2027-01-31, only org/one"),
        ({"expires": "2027-01-31T12:30:00Z", "models": ["one", "two"]}, "until 2027-01-31 12:30, only 2 models"),
    ],
)
def test_limits_are_short(limits: Item, shown: str) -> None:
    assert rows(store(client("a", key(A), **limits)), {"i-1": host()})[0]["limits"] == shown


def test_where_all_is_well_there_is_nothing_to_say() -> None:
    content = store(client("team-a", key(A)), retired=[dead(DEAD)])
    assert notes(content, {"i-1": host({A: (NOW, 1), DEAD: ("2026-11-19T12:00:00Z", 9)})}) == []


def test_a_dead_key_that_a_host_takes_is_an_alarm() -> None:
    content = store(client("team-a", key(A)), retired=[dead(DEAD)])
    taken = ["sk-…aaaaaaaa", "sk-…dddddddd"]
    used = {DEAD: ("2026-11-20T12:00:07Z", 9)}
    hosts = {"i-1": host(accepts=taken), "i-2": host(used, accepts=taken), "i-3": host()}
    assert notes(content, hosts) == [
        "ALARM: i-1 still takes the dead key sk-…dddddddd of team-a, retired 2026-11-20 12:00. Run playbooks/site.yml "
        "-l i-1, which updates its edge, or playbooks/rotate_keys.yml where a rotation is in progress.",
        "ALARM: i-2 still takes the dead key sk-…dddddddd of team-a, retired 2026-11-20 12:00, and took it at "
        "2026-11-20 12:00. Run playbooks/site.yml -l i-2, which updates its edge, or playbooks/rotate_keys.yml where a "
        "rotation is in progress.",
    ]


@pytest.mark.parametrize(("last_used", "reported"), [("2026-11-20T12:00:40Z", False), ("2026-11-20T12:06:00Z", True)])
def test_a_dead_key_that_was_taken_for_long_is_reported(last_used: str, reported: bool) -> None:
    content = store(client("team-a", key(A)), retired=[dead(DEAD)])
    lines = notes(content, {"i-1": host({DEAD: (last_used, 9)})})
    if reported:
        assert lines == [
            "i-1 took the dead key sk-…dddddddd of team-a, retired 2026-11-20 12:00, until 2026-11-20 12:06. It "
            "refuses it now. Its access log says who used it: journalctl -u haproxy --grep key=dddddddd"
        ]
    else:
        assert lines == []


@pytest.mark.parametrize(("asked", "count"), [([], 2), (["team-a"], 1), (["team-c"], 0)])
def test_dead_keys_of_others_are_left_out(asked: list[str], count: int) -> None:
    content = store(client("team-a", key(A)), retired=[dead(DEAD), dead("e" * 64, "removed")])
    taking = host(accepts=["sk-…aaaaaaaa", "sk-…dddddddd", "sk-…eeeeeeee"])
    assert len(notes(content, {"i-1": taking}, asked)) == count


def test_a_host_that_refuses_live_keys_is_reported() -> None:
    content = store(
        client("team-a", key(A), key("f" * 64, "previous")),
        client("team-b", key("e" * 64, "current"), key("0" * 64, "previous", retired="2026-11-20T12:00:00Z")),
    )
    assert notes(content, {"i-1": host()}) == [
        "i-1 refuses live keys: team-a sk-…ffffffff (previous), team-b sk-…eeeeeeee (current). Run playbooks/site.yml "
        "-l i-1."
    ]


def test_a_rotation_in_progress_is_reported_and_its_keys_are_not() -> None:
    rotation = {
        "id": "r1",
        "step": "pending",
        "clients": ["team-a"],
        "by": "anna",
        "controller": "ops-1",
        "pid": 4711,
        "started": "2026-11-22T11:50:00Z",
        "resumed": "2026-11-22T11:50:00Z",
    }
    content = store(client("team-a", key(A), key("f" * 64, "pending")), rotation=rotation)
    assert notes(content, {"i-1": host()}) == [
        "Rotation r1 of team-a is in progress, in step pending: begun 2026-11-22 11:50, by anna on ops-1 (process "
        "4711). If that process is gone, playbooks/rotate_keys.yml goes on with it."
    ]
    content["rotation"]["resumed"] = "2026-11-22T11:55:00Z"
    assert "begun 2026-11-22 11:50, continued 2026-11-22 11:55, by anna" in notes(content, {})[0]


def test_hosts_that_were_not_read_are_named_with_the_reason() -> None:
    hosts: dict[str, Item] = {
        "i-1": {"unreachable": True, "msg": "ssh: long story"},
        "i-2": {},
        "i-3": {"msg": "There is no program."},
        "i-4": host(since=None),
        "i-5": host(),
    }
    assert notes(store(client("team-a", key(A))), hosts) == [
        "i-1 does not answer, so which keys were used there is not known.",
        "i-2 does not answer, so which keys were used there is not known.",
        "i-3 was not read: There is no program.",
        "i-4 does not know which keys were used: its HAProxy does not run (playbooks/status.yml), or does not count "
        "yet (playbooks/site.yml).",
    ]


def test_a_store_without_clients_is_reported() -> None:
    assert rows(store(), {"i-1": host()}) == []
    assert notes(store(), {"i-1": host()}) == [
        "The key store has no client. Add some to fleet_clients and run playbooks/keys.yml."
    ]


def test_a_host_of_another_store_is_an_alarm() -> None:
    parts = {"keys": {"generation": 7, "digest": "x"}}
    ours = {"store": STORE, "name": "the key store /k.json on laptop", "parts": parts}
    theirs = {"store": "b2" * 16, "name": "the key store /k.json on there", "parts": parts}
    hosts = {"i-1": host(taken=ours), "i-2": host(taken=theirs), "i-3": host(taken=None), "i-4": host()}
    (line,) = notes(store(client("team-a", key(A))), hosts)
    assert "i-2 belongs to key store b2b2b2b2… (the key store /k.json on there)" in line
    assert "this table is of store a1a1a1a1… (the key store /k.json on here)" in line
