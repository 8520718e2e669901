"""What the hosts inherit from the controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import controller
from lab.controller import Forward

GATEWAY, SUBNET = "10.99.0.1", "10.99.0.0/24"


@pytest.fixture(autouse=True)
def no_pip_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One pip.conf, the test's."""
    for name in (*controller.PIP_OPTIONS, "config-file"):
        monkeypatch.delenv("PIP_" + name.upper().replace("-", "_"), raising=False)
    for name in controller.UV_KEPT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(controller, "PIP_CONFIG", (tmp_path / "pip.conf",))
    return tmp_path / "pip.conf"


def test_pips_settings_come_from_its_file_and_the_environment_counts_more(
    no_pip_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pip_settings.write_text(
        "[global]\nindex-url = https://a.example/simple\nfind_links = /opt/one\n  /opt/two\nquiet = 1\n"
    )
    monkeypatch.setenv("PIP_INDEX_URL", "https://b.example/simple")
    assert controller.pip_options() == {
        "index-url": "https://b.example/simple",
        "find-links": "/opt/one /opt/two",
    }


def test_no_settings_give_none() -> None:
    assert controller.pip_options() == {}
    assert controller.uv_options({}) == {}


def test_uv_gets_pips_indexes_in_its_own_words() -> None:
    assert controller.uv_options(
        {
            "index-url": "https://a.example/simple",
            "extra-index-url": "https://b.example/simple file:///srv/simple",
            "find-links": "/opt/one /opt/two",
        }
    ) == {
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "UV_INDEX": "https://b.example/simple file:///srv/simple",
        "UV_FIND_LINKS": "/opt/one,/opt/two",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_uvs_own_settings_count_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://c.example/simple")
    assert controller.uv_options({"index-url": "https://a.example/simple"}) == {
        "UV_DEFAULT_INDEX": "https://c.example/simple"
    }


def test_directories_behind_indexes_are_found_once(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "my index").mkdir()
    values = [
        f"{tmp_path}/wheels https://a.example/simple",
        f"{tmp_path}/wheels,{tmp_path}/missing",
        f"file://{tmp_path}/my%20index",
    ]
    assert controller.local_directories(values) == [f"{tmp_path}/wheels", f"{tmp_path}/my index"]


def test_without_a_proxy_there_is_none() -> None:
    assert controller.proxies(GATEWAY, SUBNET) == ({}, [])


def test_a_proxy_is_passed_on_and_not_for_the_labs_own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "internal.example")
    variables, forwards = controller.proxies(GATEWAY, SUBNET)
    assert variables["https_proxy"] == variables["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert variables["no_proxy"] == f"internal.example,localhost,127.0.0.1,{SUBNET}"
    assert forwards == []


def test_a_proxy_on_loopback_is_relayed_on_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:pass@127.0.0.1:3128/")
    variables, forwards = controller.proxies(GATEWAY, SUBNET)
    assert variables["http_proxy"] == f"http://user:pass@{GATEWAY}:3128/"
    assert forwards == [Forward("tcp", 3128, "127.0.0.1:3128")]


@pytest.mark.parametrize(
    ("own", "upstream", "expected", "relayed"),
    [
        ("nameserver 192.0.2.53\nsearch a.example\n", "", "nameserver 192.0.2.53\nsearch a.example\n", False),
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n", "nameserver 192.0.2.1\n", False),
        ("nameserver 127.0.0.1\noptions edns0\n", "", f"nameserver {GATEWAY}\noptions edns0\n", True),
        ("nameserver 127.0.0.53\n", "nameserver 127.0.0.1\n", f"nameserver {GATEWAY}\n", True),
        ("nameserver fd00::53\nnameserver 192.0.2.53\n", "", "nameserver 192.0.2.53\n", False),
        ("# none\n", "", "", False),
    ],
)
def test_the_hosts_resolver_answers(own: str, upstream: str, expected: str, relayed: bool) -> None:
    text, forwards = controller.resolv_conf(own, upstream, GATEWAY)
    assert text == expected
    assert bool(forwards) is relayed
    assert {forward.port for forward in forwards} <= {53}
