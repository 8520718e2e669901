from __future__ import annotations

import json

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import Drains, Mark, NoticeMark, decide

CONFIG = """\
global
    maxconn 10
backend inflight
    stick-table type string
frontend edge_8000
    bind *:8000
    default_backend instances_8000

backend instances_8000
    balance leastconn
    server vllm-0 127.0.0.1:8100
    server vllm-10 127.0.0.1:8110

backend instances_8001
    server sglang-1 127.0.0.1:8101

backend elsewhere
    server other 10.0.0.1:80
"""


def mark(state: str = "drained", by: str = "operator", reason: str = "", since: str = "then") -> Mark:
    return Mark(state, by, reason, since)


def test_instances_are_read_from_the_configuration() -> None:
    assert [(i.backend, i.name, i.address, i.port) for i in edge_state.parse_instances(CONFIG)] == [
        ("instances_8000", "vllm-0", "127.0.0.1", 8100),
        ("instances_8000", "vllm-10", "127.0.0.1", 8110),
        ("instances_8001", "sglang-1", "127.0.0.1", 8101),
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [("vllm-0", "vllm-0"), ("0", "vllm-0"), ("1", "sglang-1"), ("10", "vllm-10"), ("2", None), ("vllm", None)],
)
def test_an_instance_is_found_by_name_or_index(name: str, found: str | None) -> None:
    instance = edge_state.find_instance(edge_state.parse_instances(CONFIG), name)
    assert (instance.name if instance else None) == found


@pytest.mark.parametrize(
    ("current", "wanted", "by", "expected"),
    [
        (None, None, "operator", None),
        (None, mark(), "operator", mark()),
        (mark(), None, "operator", None),
        (mark(by="rollout"), None, "rollout", None),
        (mark(by="rollout"), None, "operator", None),
        # A rollout does not change an operator's drain.
        (mark(reason="fan"), None, "rollout", mark(reason="fan")),
        (mark(reason="fan"), mark("lame_duck", "rollout"), "rollout", mark(reason="fan")),
        (mark(reason="fan"), mark("drained", "rollout", "new"), "rollout", mark(reason="fan")),
        # The same state again keeps its moment, and its reason unless there is a new one.
        (mark(reason="fan"), mark(since="now"), "operator", mark(reason="fan")),
        (mark(reason="fan"), mark(reason="disk", since="now"), "operator", mark(reason="disk")),
        (mark(by="rollout"), mark(since="now"), "operator", mark()),
        # Another state begins now.
        (mark("lame_duck"), mark(since="now"), "operator", mark(since="now")),
    ],
)
def test_who_may_change_what(current: Mark | None, wanted: Mark | None, by: str, expected: Mark | None) -> None:
    assert decide(current, wanted, by) == expected


def test_a_record_survives_its_file() -> None:
    drains = Drains().with_mark(None, mark(reason="fan")).with_mark("vllm-0", mark(by="rollout"))
    assert edge_state.read_drains(drains.document(), "drain.json") == drains
    assert drains.of(None) == mark(reason="fan")
    assert drains.with_mark("vllm-0", None).with_mark(None, None).document() == {}
    assert edge_state.read_drains(None, "drain.json") == Drains()


def test_haproxys_map_holds_the_host_only() -> None:
    assert Drains(instances={"vllm-0": mark()}).map_entries() == []
    assert Drains(host=mark("lame_duck")).map_entries() == [("host", "lame_duck")]


@pytest.mark.parametrize("document", [[], {"state": "drained"}, {"instances": {"vllm-0": {}}}, {"instances": [1]}])
def test_a_damaged_record_is_named(document: object) -> None:
    with pytest.raises(FleetError, match=r"drain\.json is not a record of drains"):
        edge_state.read_drains(document, "drain.json")


def test_a_map_file_survives_its_text() -> None:
    entries = [("ab", "team-a"), ("cd", "team-b")]
    text = edge_state.render_map("A title.", entries)
    assert text == "# A title.\nab team-a\ncd team-b\n"
    assert edge_state.parse_map(text + "\n  \n#x y\n") == entries


STATISTICS = [
    {"pxname": "edge_8000", "svname": "FRONTEND", "hrsp_5xx": "900", "slim": "8448"},
    {"pxname": "instances_8000", "svname": "vllm-0", "hrsp_5xx": "1", "slim": "512"},
    {"pxname": "instances_8000", "svname": "vllm-1", "hrsp_5xx": "1", "slim": ""},
    {
        "pxname": "instances_8000",
        "svname": "BACKEND",
        "hrsp_2xx": "70",
        "hrsp_4xx": "3",
        "hrsp_5xx": "2",
        "slim": "820",
    },
    {"pxname": "instances_8001", "svname": "BACKEND", "hrsp_2xx": "5", "hrsp_4xx": "", "hrsp_5xx": "1", "slim": ""},
    {"pxname": "inflight", "svname": "BACKEND", "hrsp_2xx": "", "slim": ""},
]


def test_answers_are_counted_behind_the_edge() -> None:
    # Health checks of a drained host are answered 503 by the frontend, which is not an error of a client.
    assert edge_state.responses(STATISTICS) == {"2xx": 75, "4xx": 3, "5xx": 3}


def test_the_edge_bounds_some_instances() -> None:
    assert edge_state.request_limits(STATISTICS) == {"vllm-0": 512}


def test_another_gateway_is_no_instance_of_this_host() -> None:
    config = """backend instances_4000
    server engine-0 127.0.0.1:4001 observe layer4
    server gateway-2 10.0.0.2:4000 no-check track peers_4000/gateway-2 backup
backend instances_4000_local
    server engine-0 127.0.0.1:4001 track instances_4000/engine-0 maxconn 512
"""
    assert [(one.backend, one.name) for one in edge_state.parse_instances(config)] == [("instances_4000", "engine-0")]


def notice(state: str = "drained", since: str = "then", notices: tuple[str, ...] = ("spot",)) -> NoticeMark:
    return NoticeMark(state, "spot, terminates 12:03:10 UTC", since, notices)


@pytest.mark.parametrize(
    ("host", "aws", "state", "by"),
    [
        (None, None, None, None),
        (None, notice(), "drained", "aws"),
        (None, notice("lame_duck"), "lame_duck", "aws"),
        (None, notice("overridden"), None, None),
        (None, notice("ending"), None, None),
        # An operator's mark counts first, a rollout's last, and a drain more than a lame duck.
        (mark(), notice(), "drained", "operator"),
        (mark("lame_duck"), notice(), "drained", "aws"),
        (mark(), notice("lame_duck"), "drained", "operator"),
        (mark(by="rollout"), notice(), "drained", "aws"),
        (mark(by="rollout"), notice("lame_duck"), "drained", "rollout"),
        (mark("lame_duck", "rollout"), notice("lame_duck"), "lame_duck", "aws"),
        (mark(), notice("overridden"), "drained", "operator"),
    ],
)
def test_one_mark_decides_what_the_host_does(
    host: Mark | None, aws: NoticeMark | None, state: str | None, by: str | None
) -> None:
    drains = Drains(host, aws=aws)
    out = drains.out
    assert ((out.state, out.by) if out else (None, None)) == (state, by)
    assert drains.map_entries() == ([("host", state)] if state else [])
    assert drains.summary().get("by") == by


def test_a_notice_survives_its_file_beside_an_operators_mark() -> None:
    drains = Drains(mark(reason="fan"), {"engine-0": mark()}, notice())
    assert edge_state.read_drains(json.loads(json.dumps(drains.document())), "drain.json") == drains
    assert [one["by"] for one in drains.summary()["marks"]] == ["operator", "aws"]
    assert Drains(aws=notice()).document() == {"aws": notice().document()}
    assert Drains().summary() == {}


@pytest.mark.parametrize(
    ("current", "can_notice", "over", "expected"),
    [
        (None, True, False, notice("lame_duck", "now")),
        (None, False, False, notice("drained", "now")),
        (notice("lame_duck"), True, False, notice("lame_duck")),
        (notice("lame_duck"), False, False, notice("lame_duck")),
        (notice("lame_duck"), True, True, notice("drained", "now")),
        (notice("drained"), True, False, notice("drained")),
        (notice("ending"), True, False, notice("lame_duck", "now")),
        # What an operator has overridden does nothing, until there is something new.
        (notice("overridden"), True, False, notice("overridden")),
        (notice("overridden", notices=("asg", "spot")), True, True, notice("overridden", notices=("asg", "spot"))),
        (notice("overridden", notices=("asg",)), True, False, notice("lame_duck", "now")),
        # The drain goes on where what is announced changes.
        (notice("drained", notices=("asg",)), True, False, notice("drained")),
    ],
)
def test_a_notice_goes_from_lame_duck_to_drained(
    current: NoticeMark | None, can_notice: bool, over: bool, expected: NoticeMark
) -> None:
    assert edge_state.announce(current, notice("lame_duck", "now"), can_notice, over) == expected


@pytest.mark.parametrize(
    ("aws", "by", "expected"),
    [
        (None, "operator", None),
        (notice(), "rollout", notice()),
        (notice(), "operator", notice("overridden")),
        (notice(notices=()), "operator", None),
        (notice(notices=()), "rollout", None),
    ],
)
def test_an_operator_may_override_a_notice_and_a_rollout_may_not(
    aws: NoticeMark | None, by: str, expected: NoticeMark | None
) -> None:
    assert edge_state.undrain(aws, by) == expected
