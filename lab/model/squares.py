"""Pictures of a coloured square on a plain ground."""

from __future__ import annotations

import base64
import dataclasses
import io
import random
import typing as t

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 20, 20), "green": (20, 170, 40), "blue": (30, 60, 220)}
GROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128)}
SIZES = ((64, 64), (96, 96), (128, 128), (128, 96), (224, 224), (256, 256), (256, 192), (320, 240), (512, 512))
Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Square:
    """A picture in words, so that a test can describe and paint it."""

    width: int
    height: int
    left: int
    top: int
    side: int
    colour: str
    ground: str = "white"

    def paint(self) -> Image.Image:
        return _paint(self, COLOURS[self.colour], GROUNDS[self.ground])


def vary(rng: random.Random, colour: str, largest: int = 512) -> Image.Image:
    """Paint a square of ``colour``; everything else is random, including its exact shade.

    Args:
        rng: the random source.
        colour: a key of COLOURS.
        largest: the maximum length of the picture's edges.
    """
    if rng.random() < 0.6:
        width, height = rng.choice([size for size in SIZES if max(size) <= largest])
    else:
        width, height = rng.randint(28, largest), rng.randint(28, largest)
        if max(width, height) > 4 * min(width, height):
            height = width
    shorter = min(width, height)
    side = shorter if rng.random() < 0.1 else rng.randint(max(8, shorter // 5), shorter)
    square = Square(width, height, rng.randint(0, width - side), rng.randint(0, height - side), side, colour)
    if rng.random() < 0.7:
        ground = rng.choice(list(GROUNDS.values()))
    else:
        level = rng.randint(0, 255)
        ground = (level, level, level)
    return _paint(square, _shade(rng, colour), ground)


def _shade(rng: random.Random, colour: str) -> Colour:
    if rng.random() < 0.3:
        return COLOURS[colour]
    strong, weak = rng.randint(120, 255), rng.randint(0, 60)
    channels = [rng.randint(0, weak), rng.randint(0, weak), rng.randint(0, weak)]
    channels[list(COLOURS).index(colour)] = strong
    return t.cast("Colour", tuple(channels))


def _paint(square: Square, colour: Colour, ground: Colour) -> Image.Image:
    picture = Image.new("RGB", (square.width, square.height), ground)
    # The far edge is part of the rectangle.
    right, bottom = square.left + square.side - 1, square.top + square.side - 1
    ImageDraw.Draw(picture).rectangle((square.left, square.top, right, bottom), fill=colour)
    return picture


def read(url: str) -> Image.Image:
    """The picture of a ``data:`` URL."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
