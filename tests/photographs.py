"""Plain pictures that look enough like fundus photographs for the data rooms, made in milliseconds, and their
files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image


def photograph(
    seed: int = 0, size: int = 300, width: int | None = None, centre=None, radius: float | None = None
):
    """An orange disc with blotches and dark lines on black, (size, width, 3) uint8 RGB; another seed, another
    eye."""
    rng = np.random.default_rng(seed)
    height, width = size, width or size
    centre = centre or (width / 2, height / 2)
    radius = radius or 0.46 * height
    y, x = np.mgrid[:height, :width].astype(np.float32)
    away = np.hypot(x - centre[0], y - centre[1]) / radius
    blotches = cv2.resize(
        rng.normal(size=(9, 9)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    light = 1.1 - 0.35 * away**2 + 0.06 * blotches
    image = light[:, :, None] * np.array([190, 100, 50], np.float32)
    lines = np.zeros((height, width), np.float32)
    for _ in range(14):
        points = (np.cumsum(rng.normal(size=(12, 2)), axis=0) * radius / 8 + centre).astype(np.int32)
        cv2.polylines(lines, [points], False, 1.0, max(1, round(radius / 60)))
    image *= (1 - 0.45 * cv2.GaussianBlur(lines, (0, 0), max(0.5, radius / 200)))[:, :, None]
    return np.clip(np.where((away <= 1)[:, :, None], image, 0), 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "JPEG", **options) -> bytes:
    """The bytes of a file; JPEG at quality 95 without chroma subsampling unless told otherwise."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if kind == "JPEG":
        options = {"quality": 95, "subsampling": 0, **options}
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def eyepacs(root: Path, n_patients: int, size: int = 120, grades=None) -> pd.DataFrame:
    """Write a set in the Kaggle layout; returns its label table (image, level)."""
    (root / "train").mkdir(parents=True, exist_ok=True)
    names = [f"{patient}_{eye}" for patient in range(n_patients) for eye in ("left", "right")]
    levels = list(grades) if grades is not None else [(place // 2) % 5 for place in range(len(names))]
    for place, name in enumerate(names):
        (root / "train" / f"{name}.jpeg").write_bytes(encoded(photograph(place, size)))
    table = pd.DataFrame({"image": names, "level": levels})
    table.to_csv(root / "trainLabels.csv", index=False)
    return table


def stored(tmp_path: Path, pictures: dict[str, bytes], size: int = 128):
    """A store of named files and its manifest; names like ``3_left`` give patient and eye."""
    from drstudy.data import images, manifest

    rows = []
    for name, content in pictures.items():
        path = tmp_path / f"{name}.jpeg"
        path.write_bytes(content)
        patient, _, eye = name.partition("_")
        eye = eye if eye in ("left", "right") else ""
        rows.append(
            {
                "image_id": name,
                "path": str(path),
                "patient_id": patient,
                "eye": eye,
                "grade": 0,
                "source": "t",
            }
        )
    table = manifest.build(rows)
    return images.build(table, size, workers=1, folder=tmp_path / "stores"), table


def scaled(picture: np.ndarray, factor: float) -> np.ndarray:
    """The picture, lighter or darker by a factor."""
    return np.clip(picture * factor, 0, 255).astype(np.uint8)


def folder_of(root: Path, files: dict[str, bytes]) -> pd.DataFrame:
    """Write files and return a manifest of them."""
    from drstudy.data import manifest

    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, content in files.items():
        (root / name).write_bytes(content)
        rows.append({"image_id": Path(name).stem, "path": str(root / name), "grade": 0, "source": "folder"})
    return manifest.build(rows)


def bomb(side: int) -> bytes:
    """A PNG that says it is side x side and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


EYE = photograph(1)
GOOD = encoded(EYE)
BROKEN = {
    "truncated": (GOOD[: len(GOOD) // 2], "truncated file"),
    "cut head": (GOOD[:10], "cannot be opened|not an image"),
    "empty": (b"", "empty file"),
    "text": (b"no image at all, only words", "not an image"),
    "html": (b"<html>quota exceeded</html>", "not an image"),
    "black": (encoded(np.zeros((300, 300, 3), np.uint8)), "all black"),
    "nearly black": (encoded(np.full((300, 300, 3), 6, np.uint8)), "all black"),
    "bomb": (bomb(50_000), "2500 megapixels, more than"),
    "large": (bomb(9_000), "81 megapixels, more than MAX_MEGAPIXELS 50"),
    "short png": (encoded(EYE, "PNG")[:2000], "truncated|cannot be decoded"),
}
"""Files that cannot be used (the content, and what the message must match)."""
