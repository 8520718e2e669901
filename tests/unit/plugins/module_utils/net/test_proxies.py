"""A host's own addresses are used directly, whatever the environment's proxies."""

from __future__ import annotations

import urllib.request

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.net import proxies


@pytest.mark.parametrize("given", [{}, {"no_proxy": "a.example, b.example"}, {"NO_PROXY": "a.example"}])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:4100", "localhost:8000", "169.254.169.254"])
def test_own_addresses_need_no_proxy(given: dict[str, str], host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = proxies.exempt_own({**given, "http_proxy": "http://proxy.example:3128"})
    assert made["no_proxy"] == made["NO_PROXY"]
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    assert urllib.request.proxy_bypass(host)
    assert not urllib.request.proxy_bypass("images.example")


def test_what_was_exempt_stays_so_and_nothing_else_changes() -> None:
    made = proxies.exempt_own({"no_proxy": "a.example,127.0.0.1", "NO_PROXY": "b.example", "X": "y"})
    assert made["no_proxy"] == "a.example,127.0.0.1,b.example,localhost,::1,169.254.169.254"
    assert made["X"] == "y"
    assert proxies.exempt_own(made) == made
