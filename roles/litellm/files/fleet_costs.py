# SPDX-License-Identifier: GPL-3.0-or-later
"""The most that a request can cost, as far as it can be known before it is answered. Knows nothing of LiteLLM."""

from __future__ import annotations

import dataclasses
import typing as t

#: Tokens that a chat template adds at most: its own words, and how tools are explained.
TEMPLATE_TOKENS = 512

#: What a request calls the length of its answer.
LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

#: What it calls how many answers it wants.
CHOICES = ("n", "best_of")

_MEDIA = ("image", "video", "audio", "file")


@dataclasses.dataclass(frozen=True)
class Tariff:
    """What tokens cost, and how many are taken to be where a request does not say.

    Attributes:
        prices: of a token of the prompt and of the answer, by model; the highest that a fallback can make of it.
        output_tokens: of an answer without a bound.
        media_tokens: of an image, a video or an audio file.
    """

    prices: t.Mapping[str, tuple[float, float]]
    output_tokens: int
    media_tokens: int

    def most(self, request: t.Mapping[str, t.Any], models: t.Iterable[str], generates: bool) -> float:
        """What a request costs at most.

        Args:
            request: its body.
            models: whatever it names.
            generates: whether there is an answer to be written; embeddings have none.
        """
        # What LiteLLM puts into the body counts as if it stood there.
        inner = request.get("extra_body")
        bodies = [request, inner] if isinstance(inner, t.Mapping) else [request]
        named = [self.prices[name] for name in models if name in self.prices] or list(self.prices.values())
        written = self._answer_tokens(bodies) if generates else 0.0
        return max((read * self._prompt_tokens(request) + write * written for read, write in named), default=0.0)

    def _prompt_tokens(self, request: t.Mapping[str, t.Any]) -> int:
        """No token is shorter than a byte, so the bytes of all texts are a bound."""
        return TEMPLATE_TOKENS + sum(self._tokens(value) for name, value in request.items() if name != "metadata")

    def _tokens(self, value: t.Any, in_media: bool = False) -> int:
        if isinstance(value, str):
            return 0 if in_media else len(value.encode(errors="replace"))
        if isinstance(value, t.Mapping):
            kind = value.get("type")
            media = isinstance(kind, str) and any(word in kind for word in _MEDIA)
            inside = in_media or media
            return self.media_tokens * media + sum(
                len(str(name)) + self._tokens(item, inside and name != "text") for name, item in value.items()
            )
        if isinstance(value, (list, tuple)):
            return sum(self._tokens(item, in_media) for item in value)
        return 1

    def _answer_tokens(self, bodies: t.Sequence[t.Mapping[str, t.Any]]) -> float:
        lengths = [number for body in bodies for name in LENGTHS if (number := _number(body.get(name))) is not None]
        if any(isinstance(body.get(name), str) for body in bodies for name in LENGTHS):
            # Nothing says that every engine does.
            lengths.append(float(self.output_tokens))
        choices = [number for body in bodies for name in CHOICES if (number := _number(body.get(name))) is not None]
        prompts = [len(body["prompt"]) for body in bodies if isinstance(body.get("prompt"), list)]
        return max(lengths, default=float(self.output_tokens)) * max(choices, default=1.0) * max(prompts, default=1)


def _number(value: t.Any) -> float | None:
    """A count that a request gives; None where it is none, which an engine refuses."""
    if isinstance(value, str):
        # Engines take a number out of a text, too.
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # A larger one is no number of tokens, and may be too large for a float.
    return float(min(value, 10**9)) if value > 0 else None


def parse(document: t.Mapping[str, t.Any]) -> Tariff:
    """The tariff that the role wrote."""
    prices = {name: (float(read), float(write)) for name, (read, write) in document.get("prices", {}).items()}
    return Tariff(prices, int(document.get("output_tokens", 4096)), int(document.get("media_tokens", 16384)))
