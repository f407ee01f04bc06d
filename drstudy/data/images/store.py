"""A finished image store: where it is, what it holds, and one call that opens it or makes it."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.data import decoding
from drstudy.data.images import writing
from drstudy.data.images.crops import Crop
from drstudy.data.images.writing import StoreError

STAMP = "compared.json"
"""File of a store with size and time of the pixels when they were last compared with their digests."""


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

    def release(self) -> None:
        """Take the pixels that were read out of this process's memory; see :func:`release`."""
        release(self.images)


RELEASE_EVERY = 512
"""Images of a pass over a whole store after which the pages that it read are released."""


def release(array: np.ndarray) -> None:
    """Take the pages of a memory-mapped array that were read or written out of this process's memory. Who goes through a large file calls it now
    and then, or the whole file counts as memory of the process in the end. What is read again comes from the system's cache or the disk, and
    what was written gets to the disk as ever.

    Args:
        array: A memory map, or a view of one. Any other array is left as it is, as are private copies (mode ``c``), whose changes would be
            lost, and all arrays on a system that cannot do this.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


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
        if (target / "store.json").is_file():
            try:
                return open_store(target)
            except StoreError as error:
                print(f"{error} It is written again.", file=sys.stderr)
                (target / "store.json").unlink()
        for stale in ("images.npy", STAMP):
            (target / stale).unlink(
                missing_ok=True
            )  # of a store that was damaged or whose tables were not finished
        writing.fill(target, manifest, image_size, workers or os.cpu_count() or 1, max_megapixels)
        # its digests are of what was just written: reading all of it again would find nothing
        note_stamp(target)
    return open_store(target)


def store_key(manifest: pd.DataFrame, image_size: int, max_megapixels: float) -> str:
    """A key of what makes a store, 16 hexadecimal digits: ids, paths, sizes and times of all files, the crop size,
    the greatest file size in megapixels and the version of the code."""
    digest = hashlib.sha256(f"{writing.VERSION} {image_size} {max_megapixels:g}\n".encode())
    for image_id, path in zip(manifest["image_id"], manifest["path"], strict=True):
        try:
            status = paths.resolve(path).stat()
            stamp = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            stamp = "missing"
        digest.update(f"{image_id}\t{path}\t{stamp}\n".encode())
    return digest.hexdigest()[:16]


def open_store(path: str | os.PathLike[str], deep: bool = False) -> ImageStore:
    """Open a finished store, and check that it is what was written.

    The tables are compared with their digests. The pixels are compared, row by row, if size or time of their file is not that which was noted
    when they were last compared.

    Args:
        path: Folder of the store.
        deep: Compare the pixels in any case.

    Raises:
        StoreError: If it is missing, unfinished, or was changed or damaged since it was written.
    """
    folder = paths.resolve(path)
    file = folder / "store.json"
    if not file.is_file():
        raise StoreError(
            f"{paths.show(folder)} is not a finished image store. Run notebook 01 for this data set again."
        )
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        tables, count, size = info.get("tables", {}), info["images"], info["image_size"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{paths.show(file)} cannot be read ({error}). Run notebook 01 again.") from None
    for name, known in tables.items():
        if not (folder / name).is_file() or paths.sha256(folder / name) != known:
            raise StoreError(
                f"{paths.show(folder / name)} is not what was written with the store. Run notebook 01 again."
            )
    text = {"image_id": str, "path": str, "phash": str}
    index = pd.read_csv(folder / "index.csv", dtype=text, keep_default_na=False)
    measured = pd.read_csv(folder / "measures.csv", dtype=text, keep_default_na=False)
    problems = pd.read_csv(folder / "problems.csv", dtype=str, keep_default_na=False)
    pixels = folder / "images.npy"
    try:
        images = np.load(pixels, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{paths.show(pixels)} cannot be opened ({error}). Run notebook 01 again.") from None
    if images.dtype != np.uint8 or images.shape != (count, size, size, 3) or len(index) != count:
        raise StoreError(
            f"{paths.show(pixels)} is {images.dtype} {images.shape}, not {count} crops of {size} pixels. Run notebook 01 again."
        )
    store = ImageStore(folder, images, index, measured, problems, info)
    if deep or _stamp(pixels) != _noted(folder):
        _compare(store)
        note_stamp(folder)
    return store


def note_stamp(folder: Path) -> None:
    """Note size and time of a store's pixels, which have just been written or compared with their digests; without effect where the store cannot
    be written."""
    try:
        with paths.atomic(folder / STAMP) as temporary:
            temporary.write_text(json.dumps(_stamp(folder / "images.npy")), encoding="utf-8")
    except OSError:
        pass  # a store on a read-only disk is compared each time


def _stamp(pixels: Path) -> list[int]:
    status = pixels.stat()
    return [status.st_size, status.st_mtime_ns]


def _noted(folder: Path) -> list[int] | None:
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _compare(store: ImageStore) -> None:
    """Compare each crop with the digest that was noted when it was made.

    Raises:
        StoreError: Naming how many differ, and the first.
    """
    known = store.measures["crop_sha256"]
    differ = []
    for row in range(len(known)):
        if decoding.sha256(np.ascontiguousarray(store.images[row])) != known[row]:
            differ.append(row)
        if row % RELEASE_EVERY == 0:
            store.release()
    store.release()
    if differ:
        raise StoreError(
            f"{len(differ)} of {len(known)} crops in {paths.show(store.folder / 'images.npy')} are not what was written, the first "
            f"{store.index['image_id'][differ[0]]!r}. Run notebook 01 again."
        )
