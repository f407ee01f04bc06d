"""A finished image store: where it is, what it holds, and one call that opens it or makes it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.data.images import writing
from drstudy.data.images.crops import Crop
from drstudy.data.images.writing import StoreError


@dataclass(frozen=True)
class ImageStore:
    """A finished store.

    Attributes:
        folder: ``data/images/<key>``.
        images: (N, S, S, 3) uint8 RGB, memory-mapped, read only.
        index: One row per image: ``row`` (its place in ``images``), ``image_id``, ``path``, and the geometry
            ``x0, y0, side`` (the square in pixels of the upright full-size picture), ``width, height`` (of
            that picture) and ``reduce`` (the decoder's scale).
        measures: One row per image, in the same order: file facts, field of view, quality, perceptual hash.
        problems: Columns file, problem, action: what decoding had to leave out or convert.
        info: Content of ``store.json``.
    """

    folder: Path
    images: np.ndarray
    index: pd.DataFrame
    measures: pd.DataFrame
    problems: pd.DataFrame
    info: dict[str, Any]

    @property
    def image_size(self) -> int:
        return self.images.shape[1]

    def row(self, image_id: str) -> int:
        """The place of an image in ``images``.

        Raises:
            KeyError: If it is not in the store.
        """
        found = self.index.loc[self.index["image_id"] == image_id, "row"]
        if found.empty:
            raise KeyError(
                f"There is no image {image_id!r} in {paths.show(self.folder)} ({len(self.index)} images)."
            )
        return int(found.iloc[0])

    def crop(self, image_id: str) -> Crop:
        """The square that was cut out of an image."""
        found = self.index.iloc[self.row(image_id)]
        return Crop(*(int(found[name]) for name in ("x0", "y0", "side", "width", "height")))


def build(
    manifest: pd.DataFrame,
    image_size: int,
    workers: int = 0,
    max_megapixels: float = 120.0,
    folder: str | os.PathLike[str] | None = None,
) -> ImageStore:
    """Write the store of a manifest under ``data/images/<key>``, or open it where it is already there.

    Args:
        manifest: See :mod:`drstudy.data.manifest`.
        image_size: Side S of the crops, pixels.
        workers: Number of processes; 0 is one per core.
        max_megapixels: Larger files are left out.
        folder: Parent of the store; default ``data/images``.

    Raises:
        StoreError: If the disk is too full, a worker was killed, or no image at all can be used.
    """
    if manifest.empty:
        raise StoreError(
            "The manifest has no images: nothing to store. Look at the quarantine for the reasons."
        )
    key = store_key(manifest, image_size, max_megapixels)
    target = (Path(folder) if folder else paths.data() / "images") / key
    target.mkdir(parents=True, exist_ok=True)
    with paths.locked(target / "lock"):
        if not (target / "store.json").is_file():
            writing.fill(target, manifest, image_size, workers or os.cpu_count() or 1, max_megapixels)
    return open_store(target)


def store_key(manifest: pd.DataFrame, image_size: int, max_megapixels: float) -> str:
    """A key of what makes a store, 16 hexadecimal digits: ids, paths, sizes and times of all files, the crop size,
    the greatest file size in megapixels and the version of the code."""
    digest = hashlib.sha256(f"{writing.VERSION} {image_size} {max_megapixels:g}\n".encode())
    for image_id, path in zip(manifest["image_id"], manifest["path"], strict=True):
        try:
            status = os.stat(paths.resolve(path))
            stamp = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            stamp = "missing"
        digest.update(f"{image_id}\t{path}\t{stamp}\n".encode())
    return digest.hexdigest()[:16]


def open_store(path: str | os.PathLike[str]) -> ImageStore:
    """Open a finished store.

    Raises:
        StoreError: If it is missing or unfinished.
    """
    folder = paths.resolve(path)
    file = folder / "store.json"
    if not file.is_file():
        raise StoreError(
            f"{paths.show(folder)} is not a finished image store. Run notebook 01 for this data set again."
        )
    info = json.loads(file.read_text())
    text = {"image_id": str, "path": str, "phash": str}
    index = pd.read_csv(folder / "index.csv", dtype=text, keep_default_na=False)
    measured = pd.read_csv(folder / "measures.csv", dtype=text, keep_default_na=False)
    problems = pd.read_csv(folder / "problems.csv", dtype=str, keep_default_na=False)
    return ImageStore(folder, np.load(folder / "images.npy", mmap_mode="r"), index, measured, problems, info)
