"""Figures inside a page: drawings keep every pixel, photographs become small."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from drstudy.study import pictures


def opened(picture: pictures.Picture, expected: str) -> tuple[bytes, Image.Image]:
    kind, _, text = picture.src.partition(",")
    assert kind == f"data:image/{expected};base64"
    content = base64.b64decode(text)
    return content, Image.open(io.BytesIO(content))


def test_a_drawing_keeps_its_pixels(tmp_path):
    drawing = np.full((60, 90, 3), 255, np.uint8)
    drawing[20:22, 5:80] = (0, 114, 178)
    Image.fromarray(drawing).save(tmp_path / "a.png")
    picture = pictures.embed(tmp_path / "a.png")
    assert (picture.width, picture.height) == (90, 60)
    np.testing.assert_array_equal(np.asarray(opened(picture, "webp")[1].convert("RGB")), drawing)


def test_a_photograph_is_smaller_than_its_limit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (400, 500, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > pictures.DRAWN
    content, image = opened(pictures.embed(tmp_path / "b.png"), "jpeg")
    assert image.format == "JPEG", "which a printed page keeps as it is"
    assert len(content) <= pictures.MOST
    small = pictures.embed(tmp_path / "b.png", most=20_000)
    content, image = opened(small, "jpeg")
    assert len(content) <= 20_000
    assert image.width < 500, "no quality is enough, so it is scaled down"
    assert (small.width, small.height) == (500, 400), "the page shows it at its own size"
