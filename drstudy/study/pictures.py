"""Figures inside a page: re-encoded so that a report with a hundred of them, and its printed PDF, can be sent by mail.

A browser that prints to PDF keeps a JPEG as it is, and unpacks every other picture to its pixels, which makes photographs five times as large.
Photographs are therefore JPEG. Drawings are WebP without loss, whose few colours a PDF packs well.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

DRAWN = 250_000
"""Bytes of a PNG up to which it is a drawing, which is kept to the pixel; a larger one holds photographs, which may lose a little."""

MOST = 400_000
"""Bytes of a figure inside the page."""

QUALITIES = (80, 70, 55)
"""Of JPEG, tried in this order."""

SMALLER = 0.8
"""Factor of the size, again and again, where no quality is enough."""


@dataclass(frozen=True)
class Picture:
    """A figure as the page holds it: ``src`` is a ``data:`` address; ``width`` and ``height`` are those of the file, in pixels."""

    src: str
    width: int
    height: int


def embed(file: Path, most: int = MOST) -> Picture:
    """A PNG file inside an address: drawings as WebP without loss, photographs as JPEG at a quality that looks the same.

    Args:
        file: A PNG file.
        most: Bytes of the picture that it may not pass.
    """
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    size = picture.size
    small = _encoded(picture, "WEBP", lossless=True, method=2) if file.stat().st_size <= DRAWN else b""
    kind = "webp"
    if not small or len(small) > most:
        small, kind = _photographs(picture, most), "jpeg"
    return Picture(f"data:image/{kind};base64,{base64.b64encode(small).decode('ascii')}", *size)


def _photographs(picture: Image.Image, most: int) -> bytes:
    """The first of :data:`QUALITIES` that is small enough, at the first size at which one is."""
    while True:
        for quality in QUALITIES:
            small = _encoded(picture, "JPEG", quality=quality, optimize=True, progressive=True)
            if len(small) <= most:
                return small
        picture = picture.resize(
            [max(1, round(SMALLER * side)) for side in picture.size], Image.Resampling.LANCZOS
        )


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return held.getvalue()
