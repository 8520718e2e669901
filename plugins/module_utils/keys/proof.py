# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Proof that a host accepts the live keys, each with a real answer, and refuses the dead ones on every route."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint
from ansible_collections.inference.fleet.plugins.module_utils.gate.chat import CHAT_PATH, MODELS_PATH, question
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpFailure, Reply, excerpt

#: The routes of OpenAI's API, and further ones that engines have.
ROUTES = (
    ("GET", MODELS_PATH),
    ("POST", CHAT_PATH),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/rerank"),
    ("POST", "/v1/score"),
)

#: The edge knows the key and has another reason to refuse the request; the key counts as accepted. A gateway's code for
#: a limit is the status.
_HELD_BACK = frozenset(
    {"rate_limit_exceeded", "concurrency_limit_exceeded", "model_not_allowed", "draining", "budget_exceeded", "429"}
)
#: No client's key.
UNKNOWN_KEY = "sk-no-client-has-this-key"
#: A retry is right: the service is overloaded.
_BUSY = frozenset({429, 502, 503, 504})
_PAUSE = 0.5


@dataclasses.dataclass(frozen=True)
class ClientKey:
    """A key and its client."""

    name: str
    key: str = dataclasses.field(repr=False)

    @property
    def label(self) -> str:
        return f"{self.name} {fingerprint(self.key)}"


class Asked(t.Protocol):
    """Sends a request with a key.

    Raises:
        HttpFailure: there was no whole answer.
    """

    def __call__(self, url: str, key: str, method: str, path: str, document: t.Any) -> Reply: ...


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was seen.

    Attributes:
        answered: keys with a real completion, or known to an edge that answers none just now.
        refused: how many requests with dead keys were refused.
        failures: a sentence for each wrong answer.
    """

    answered: list[str]
    refused: int
    failures: list[str]


class Prover:
    """Tests the edges and engines of one host.

    Args:
        ask: sends a request.
        edges: base URLs of the host's edge, one for each of its ports.
        engines: base URLs of its instances.
        model: the served model's name.
        patience: seconds for which a busy service is retried.
        at_once: requests in flight.
    """

    def __init__(
        self, ask: Asked, edges: list[str], engines: list[str], model: str, patience: float, at_once: int
    ) -> None:
        self._ask = ask
        self._edges = edges
        self._engines = engines
        self._patience = patience
        self._at_once = at_once
        self._question = question(model, "What is the capital of France? Answer with one word.", 8)

    def prove(self, live: list[ClientKey], dead: list[ClientKey], completions: int) -> Proof:
        """Test every key.

        Args:
            live: every edge must accept them.
            dead: every edge and every engine must refuse them, on every route.
            completions: the number of live keys that are tested with a completion, the others with the list of models.
        """
        accept = [(url, key, number < completions) for url in self._edges for number, key in enumerate(live)]
        refuse = [
            (url, key, method, path)
            for url in (*self._edges, *self._engines)
            for key in dead
            for method, path in ROUTES
        ]
        with concurrent.futures.ThreadPoolExecutor(self._at_once) as pool:
            accepted = list(pool.map(lambda one: self._accepted(*one), accept))
            refused = list(pool.map(lambda one: self._refused(*one), refuse))
        unlike = dict.fromkeys(failure for failure in (*accepted, *refused) if failure)
        failed = {(url, key) for (url, key, _whole), failure in zip(accept, accepted) if failure}
        answered = [key.label for key in live if all((url, key) not in failed for url in self._edges)]
        return Proof(answered, refused.count(""), list(unlike))

    def _accepted(self, url: str, key: ClientKey, whole: bool) -> str:
        """What is wrong with the answer; empty when nothing is."""
        method, path, document = ("POST", CHAT_PATH, self._question) if whole else ("GET", MODELS_PATH, None)
        until = time.monotonic() + self._patience
        while True:
            try:
                reply = self._ask(url, key.key, method, path, document)
            except HttpFailure as failure:
                said, again = failure.said, failure.kind in ("refused", "reset", "timeout")
            else:
                if reply.status == 200 or _code(reply) in _HELD_BACK:
                    return "" if not whole or reply.status != 200 else self._emptiness(url, key, reply)
                said, again = f"{reply.status} {excerpt(reply.text())}", reply.status in _BUSY
            if not again or time.monotonic() >= until:
                return f"{url} does not accept the live key of {key.label}: {method} {path} gave {said}."
            time.sleep(_PAUSE)

    @staticmethod
    def _emptiness(url: str, key: ClientKey, reply: Reply) -> str:
        try:
            text = reply.json()["choices"][0]["message"]["content"]
        except (HttpFailure, LookupError, TypeError):
            text = None
        return "" if text else f"{url} answers the key of {key.label} without a word: {excerpt(reply.text())}."

    def _refused(self, url: str, key: ClientKey, method: str, path: str) -> str:
        document = None if method == "GET" else self._question
        try:
            reply = self._ask(url, key.key, method, path, document)
        except HttpFailure as failure:
            return (
                f"{url} could not be seen to refuse the dead key of {key.label}: {method} {path} gave {failure.said}."
            )
        if reply.status == 401:
            return ""
        # A gateway's process answers so on an unknown route before it checks a key. The edge does not.
        if reply.status == 404 and url in self._engines and self._lacks(url, method, path, document):
            return ""
        return f"{url} does not refuse the dead key of {key.label}: {method} {path} gave {reply.status} and not 401."

    def _lacks(self, url: str, method: str, path: str, document: t.Any) -> bool:
        """Whether an unknown key gets the same answer: then the route does not exist for any key."""
        try:
            return self._ask(url, UNKNOWN_KEY, method, path, document).status == 404
        except HttpFailure:
            return False


def _code(reply: Reply) -> str:
    """The code of an error in OpenAI's shape; empty where there is none."""
    try:
        return str(reply.json()["error"]["code"])
    except (HttpFailure, LookupError, TypeError):
        return ""
