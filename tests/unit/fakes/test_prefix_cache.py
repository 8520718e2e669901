"""The stand-in for an engine's prefix cache."""

from __future__ import annotations

import json

from tests.fakes.engine import MODEL, FakeEngine
from tests.fakes.prefix_cache import PrefixCache
from tests.project import open_directly

DOCUMENT = [f"word{number}" for number in range(64)]


def test_a_prompt_is_found_as_far_as_it_is_the_same() -> None:
    cache = PrefixCache(capacity=1000, block=16)
    assert cache.find(DOCUMENT) == 0
    cache.keep(DOCUMENT)
    assert cache.find([*DOCUMENT, "more"]) == 64
    # One token is always computed.
    assert cache.find(DOCUMENT) == 48
    assert cache.find([*DOCUMENT[:40], "other", *DOCUMENT[40:]]) == 32
    assert cache.find(["other", *DOCUMENT]) == 0


def test_it_holds_so_many_tokens_and_ends_go_first() -> None:
    cache = PrefixCache(capacity=96, block=16)
    cache.keep(DOCUMENT)
    cache.keep([*DOCUMENT[:16], *(f"other{number}" for number in range(48))])
    # The older document has lost its last block.
    assert cache.find([*DOCUMENT, "more"]) == 48


def test_an_engine_says_what_it_has_found() -> None:
    asked = [{"role": "user", "content": " ".join(DOCUMENT)}]
    cached = []
    with FakeEngine(cache=PrefixCache(1000)) as engine:
        for _turn in range(2):
            body = json.dumps({"model": MODEL, "messages": asked}).encode()
            with open_directly(f"{engine.url}/v1/chat/completions", data=body, timeout=10) as reply:
                answer = json.load(reply)
            cached.append((answer["usage"]["prompt_tokens"], answer["usage"]["prompt_tokens_details"]))
            asked += [answer["choices"][0]["message"], {"role": "user", "content": "And then?"}]
    # What it has answered is in its cache, too.
    assert cached == [(65, {"cached_tokens": 0}), (78, {"cached_tokens": 64})]
