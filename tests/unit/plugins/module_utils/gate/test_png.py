from __future__ import annotations

import base64
import io

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gate.png import data_url, solid_square
from PIL import Image


@pytest.mark.parametrize("size", [1, 64, 300])
@pytest.mark.parametrize("rgb", [(255, 0, 0), (1, 2, 3)])
def test_a_square_is_a_png_of_one_colour(rgb: tuple[int, int, int], size: int) -> None:
    image = Image.open(io.BytesIO(solid_square(rgb, size)))
    image.load()
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (size, size))
    assert image.getcolors() == [(size * size, rgb)]


def test_a_data_url_holds_the_png() -> None:
    kind, data = data_url(b"\x89PNG").split(",")
    assert (kind, base64.b64decode(data)) == ("data:image/png;base64", b"\x89PNG")
