"""The image store: field-of-view crops of a whole data set in one memory-mapped array, written once.

Each file is decoded once; what the audit measures is measured on that occasion. Work is done in blocks by
processes that write their rows themselves, so memory does not grow with the number of images, and the result
does not depend on how many processes there are. A killed run goes on where it was: each block's rows are
noted with a digest of their pixels, and what the disk does not hold (after a power cut) is done again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.data import decoding, measures
from drstudy.data import manifest as manifests
from drstudy.data.decoding import BadImage
from drstudy.data.measures import MEASURE_SIDE, fov_mask

__all__ = ["ImageStore", "build", "fov_mask", "load_masks", "open_store"]

VERSION = 3
"""Of what this module and those below it compute; raised with any change of pixels or measurements."""
BLOCK = 32
"""Images that a process does in one go."""
SPARE_BYTES = 64 * 2**20
BLACK = 12
"""A picture with no pixel above this level (of 255) is all black."""
REPORT_SECONDS = 15.0

GEOMETRY = ("x0", "y0", "side", "width", "height", "reduce")
FACTS = (
    "file_bytes",
    "file_sha256",
    "crop_sha256",
    "width",
    "height",
    "format",
    "mode",
    "bits",
    "orientation",
)


class StoreError(RuntimeError):
    """An image store that cannot be written or is not one."""


def shrink(square: np.ndarray, size: int) -> np.ndarray:
    """Bring a square to another side.

    By two or more, and for masks, each pixel is the mean of the area that it covers. A photograph is shrunk by less
    bilinearly, which there differs from that mean by a fraction of a level, at a quarter of the time; it is what a JPEG decoder
    that has halved its picture as often as it may leaves to be done.

    Args:
        square: (s, s) or (s, s, 3), uint8 or float32.
        size: Side of the result; a larger one than ``s`` is interpolated.
    """
    ratio = min(square.shape[:2]) / size
    areas = ratio >= 2 or (ratio >= 1 and square.dtype != np.uint8)
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if areas else cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Crop:
    """A square around the field of view, in pixels of the upright full-size picture; it may reach beyond the
    edges.

    Attributes:
        x0, y0: Its left and upper corner (may be negative).
        side: Its side.
        width, height: Of the whole picture.
    """

    x0: int
    y0: int
    side: int
    width: int
    height: int

    def cut(self, array: np.ndarray, size: int, interpolation: int | None = None) -> np.ndarray:
        """Cut the square out of an array that shows the whole picture at any scale; black beyond the edges.

        Args:
            array: (h, w) or (h, w, 3), uint8 or float32; h and w have the picture's proportions.
            size: Side of the result.
            interpolation: One of OpenCV's; ``None`` is :func:`shrink`'s.

        Returns:
            (size, size[, 3])
        """
        fx, fy = array.shape[1] / self.width, array.shape[0] / self.height
        x0, y0 = round(self.x0 * fx), round(self.y0 * fy)
        x1, y1 = (
            max(x0 + 1, round((self.x0 + self.side) * fx)),
            max(y0 + 1, round((self.y0 + self.side) * fy)),
        )
        inside = array[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
        below, right = y1 - y0 - max(0, -y0) - inside.shape[0], x1 - x0 - max(0, -x0) - inside.shape[1]
        border = max(0, -y0), below, max(0, -x0), right
        square = cv2.copyMakeBorder(inside, *border, cv2.BORDER_CONSTANT, value=0) if any(border) else inside
        if interpolation is not None:
            return cv2.resize(square, (size, size), interpolation=interpolation)
        return shrink(square, size)


@dataclass(frozen=True)
class ImageStore:
    """A finished store.

    Attributes:
        folder: ``data/images/<key>``.
        images: (N, S, S, 3) uint8 RGB, memory-mapped, read only.
        index: One row an image: ``row`` (its place in ``images``), ``image_id``, ``path``, and the geometry
            ``x0, y0, side`` (the square in pixels of the upright full-size picture), ``width, height`` (of
            that picture) and ``reduce`` (the decoder's scale).
        measures: One row an image, in the same order: file facts, field of view, quality, perceptual hash.
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


# --- one image ------------------------------------------------------------------------------------


def prepare(
    content: bytes, suffix: str, image_size: int, max_megapixels: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Decode a file, find its field of view, cut and measure it.

    The JPEG decoder's own reduction is used as far as the crop keeps at least ``image_size`` (and the
    measuring side) pixels; where the field turns out smaller than the picture promised, the file is decoded
    again at a finer scale.

    Returns:
        The (S, S, 3) uint8 RGB crop, and one flat record: geometry, file facts, measurements, ``notes``.

    Raises:
        BadImage: If the file cannot be used.
    """
    head = decoding.header(content, suffix, max_megapixels)
    need = max(image_size, MEASURE_SIDE)
    reduce = decoding.reduction(head, need)
    while True:
        pixels = decoding.pixels(content, head, reduce)
        field = measures.find_field(pixels)
        if (field is None or field.brightest <= BLACK) and pixels.max() <= BLACK:
            raise BadImage("all black")
        if field is None or field.side >= need or reduce == 1:
            break
        reduce //= 2
    notes = list(head.notes)
    if field is None:
        notes.append(("no field of view can be told from the background", "used: whole picture"))
        field = measures.Field(0, 0, pixels.shape[1], pixels.shape[0], np.ones((8, 8), np.uint8), 255)
    side = max(1, round(field.side)) * reduce
    x0 = round((field.x0 + field.x1) / 2 * reduce - side / 2)
    y0 = round((field.y0 + field.y1) / 2 * reduce - side / 2)
    # a reduced picture covers whole blocks, so its far edge may lie up to reduce-1 pixels beyond the file's
    crop = Crop(x0, y0, side, pixels.shape[1] * reduce, pixels.shape[0] * reduce)
    image = crop.cut(pixels, image_size)
    standard = crop.cut(pixels, MEASURE_SIDE) if image_size < MEASURE_SIDE else shrink(image, MEASURE_SIDE)
    record = {
        "x0": x0,
        "y0": y0,
        "side": side,
        "width": head.width,
        "height": head.height,
        "reduce": reduce,
        "file_bytes": head.file_bytes,
        "file_sha256": decoding.sha256(content),
        "crop_sha256": decoding.sha256(np.ascontiguousarray(image)),
        "format": head.format,
        "mode": head.mode,
        "bits": head.bits,
        "orientation": head.orientation,
        "field_x0": round(field.x0 * reduce, 1),
        "field_y0": round(field.y0 * reduce, 1),
        "field_x1": round(field.x1 * reduce, 1),
        "field_y1": round(field.y1 * reduce, 1),
        "field_share": field.share,
        **measures.quality(standard, crop.cut(field.mask, MEASURE_SIDE, cv2.INTER_NEAREST)),
        "phash": measures.perceptual_hash(standard),
        "notes": notes,
    }
    return image, record


def _do_block(
    array: Path, block: list[tuple[int, str, str]], image_size: int, max_megapixels: float
) -> list[dict[str, Any]]:
    """Prepare a block of (row, image_id, path), write the pixels of those that can be used, say what became
    of each."""
    cv2.setNumThreads(1)
    store = np.load(array, mmap_mode="r+")
    records = []
    for row, image_id, path in block:
        resolved = paths.resolve(path)
        try:
            store[row], record = prepare(
                decoding.read_bytes(resolved), resolved.suffix, image_size, max_megapixels
            )
        except BadImage as error:
            record = {"bad": str(error)}
        records.append({"row": row, "image_id": image_id, "path": path, **record})
    return records


# --- the store ------------------------------------------------------------------------------------


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
        workers: Processes; 0 is one a core.
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
    with locked(target / "lock"):
        if not (target / "store.json").is_file():
            _fill(target, manifest, image_size, workers or os.cpu_count() or 1, max_megapixels)
    return open_store(target)


def store_key(manifest: pd.DataFrame, image_size: int, max_megapixels: float) -> str:
    """What makes a store, as 16 hexadecimal digits: ids, paths, sizes and times of all files, the crop size,
    the code's version."""
    digest = hashlib.sha256(f"{VERSION} {image_size} {max_megapixels:g}\n".encode())
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


def _fill(target: Path, manifest: pd.DataFrame, image_size: int, workers: int, max_megapixels: float) -> None:
    shape = (len(manifest), image_size, image_size, 3)
    array, journal = target / "images.part.npy", target / "rows.jsonl"
    _reserve(array, journal, shape)
    _drop_torn_line(journal)
    done = _written(array, journal)
    todo = [
        (row, image_id, path)
        for row, (image_id, path) in enumerate(zip(manifest["image_id"], manifest["path"], strict=True))
        if row not in done
    ]
    blocks = [todo[start : start + BLOCK] for start in range(0, len(todo), BLOCK)]
    report = _Progress(len(manifest), len(done))
    with open(journal, "ab") as file:
        for records in _run(blocks, array, image_size, max_megapixels, workers):
            file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
            file.flush()
            report.add(len(records))
    _finish(target, array, journal, shape)


def _run(
    blocks: Sequence[list], array: Path, image_size: int, max_megapixels: float, workers: int
) -> Iterator[list[dict[str, Any]]]:
    """Do the blocks, in this process or in several; at most two a process are under way."""
    workers = min(workers, len(blocks))
    if workers <= 1:
        for block in blocks:
            yield _do_block(array, block, image_size, max_megapixels)
        return
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([__name__])
    waiting, running = iter(blocks), set[Future]()
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for block in waiting:
                running.add(pool.submit(_do_block, array, block, image_size, max_megapixels))
                if len(running) >= 2 * workers:
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        yield future.result()
            for future in running:
                yield future.result()
    except BrokenProcessPool:
        raise StoreError(
            "A process that decodes images was killed, probably for want of memory. What was done is kept: "
            "run it again, with fewer WORKERS or a smaller MAX_MEGAPIXELS."
        ) from None


def _reserve(array: Path, journal: Path, shape: tuple[int, ...]) -> None:
    """Make the array's file at its full size, so that a full disk is an error now and not a crash later."""
    needed = int(np.prod(shape))
    if array.exists() and journal.exists() and _has_shape(array, shape):
        return
    array.unlink(missing_ok=True)
    journal.unlink(missing_ok=True)
    free = shutil.disk_usage(array.parent).free
    if needed >= 2**30:
        print(
            f"image store: {needed / 1e9:.1f} GB in {paths.show(array.parent)}, {free / 1e9:.0f} GB are free",
            file=sys.stderr,
        )
    if needed + SPARE_BYTES > free:
        raise StoreError(
            f"The image store of {shape[0]} images of side {shape[1]} needs {needed / 1e9:.2f} GB in "
            f"{paths.show(array.parent)}, where {free / 1e9:.2f} GB are free. Free some space, set "
            "DRSTUDY_DATA to a larger disk, or lower IMAGE_SIZE."
        )
    _allocate(array, shape)
    journal.touch()


def _allocate(array: Path, shape: tuple[int, ...]) -> np.memmap:
    """An array on disk whose every block is really there: writing to it cannot find the disk full."""
    mapped = np.lib.format.open_memmap(array, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(array, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, array.stat().st_size)
    return mapped


def _has_shape(array: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(array, mmap_mode="r").shape == shape
    except (OSError, ValueError):
        return False


def _drop_torn_line(journal: Path) -> None:
    """Cut off a last line that a kill left without its end."""
    with open(journal, "r+b") as file:
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
        file.truncate(whole)


def _written(array: Path, journal: Path) -> set[int]:
    """Rows of an earlier run that need not be done again: noted, and their pixels as noted."""
    pixels = np.load(array, mmap_mode="r")
    return {
        row
        for row, record in _records(journal).items()
        if "bad" in record or decoding.sha256(pixels[row]) == record["crop_sha256"]
    }


def _records(journal: Path) -> dict[int, dict[str, Any]]:
    """By row, in their order; of a row that was done twice, the later record."""
    with open(journal, "rb") as file:
        found = {record["row"]: record for record in map(json.loads, file)}
    return dict(sorted(found.items()))


def _finish(target: Path, array: Path, journal: Path, shape: tuple[int, ...]) -> None:
    """Drop the rows of unusable images, write the tables, and last ``store.json``."""
    records = list(_records(journal).values())
    usable = [record for record in records if "bad" not in record]
    problems = [(record["path"], record["bad"], manifests.EXCLUDED) for record in records if "bad" in record]
    problems += [
        (record["path"], problem, action) for record in usable for problem, action in record["notes"]
    ]
    if not usable:
        raise StoreError(
            f"None of the {len(records)} images can be used; the first: {problems[0][0]}: {problems[0][1]}."
        )
    if len(usable) < len(records):
        _compact(array, [record["row"] for record in usable], target / "images.npy")
    else:
        os.replace(array, target / "images.npy")
    frame = pd.DataFrame(usable).drop(columns="notes")
    frame["row"] = np.arange(len(frame))
    _write(frame[["row", "image_id", "path", *GEOMETRY]], target / "index.csv")
    measured = [name for name in frame if name not in ("row", "path", "x0", "y0", "side", "reduce")]
    _write(frame[measured], target / "measures.csv")
    _write(manifests.problems(problems), target / "problems.csv")
    info = {
        "images": len(usable),
        "image_size": shape[1],
        "version": VERSION,
        "sha256": decoding.sha256("".join(frame["crop_sha256"]).encode()),  # of the rows' digests, in order
    }
    with paths.atomic(target / "store.json") as temporary:
        temporary.write_text(json.dumps(info, indent=1) + "\n")
    array.unlink(missing_ok=True)
    journal.unlink(missing_ok=True)


def _compact(array: Path, rows: list[int], target: Path) -> None:
    """Copy the usable rows, block by block, into an array without gaps."""
    source = np.load(array, mmap_mode="r")
    with paths.atomic(target) as temporary:
        packed = _allocate(temporary, (len(rows), *source.shape[1:]))
        for start in range(0, len(rows), BLOCK):
            packed[start : start + BLOCK] = source[rows[start : start + BLOCK]]
        packed.flush()


def _write(frame: pd.DataFrame, path: Path) -> None:
    with paths.atomic(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file. One process at a time; the system releases the lock of a process that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Progress:
    """A plain line on stderr every quarter of a minute, for logs and terminals alike."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.new = total, done, 0
        self.began = self.last = time.monotonic()
        if 0 < done < total:
            print(f"images: going on, {done} of {total} were done before", file=sys.stderr)

    def add(self, count: int) -> None:
        self.done, self.new = self.done + count, self.new + count
        now = time.monotonic()
        if now - self.last >= REPORT_SECONDS and self.done < self.total:
            rate = self.new / (now - self.began)
            left = (self.total - self.done) / rate
            print(
                f"images: {self.done} of {self.total}, {rate:.0f} a second, {left / 60:.1f} min left",
                file=sys.stderr,
            )
            self.last = now


# --- masks ----------------------------------------------------------------------------------------


def load_masks(
    row: pd.Series, crop: Crop, codes: Sequence[str], image_size: int, coverage: bool = False
) -> dict[str, np.ndarray]:
    """Lesion and anatomy masks of an image, in the geometry of its stored crop.

    Args:
        row: Of the manifest.
        crop: Of :meth:`ImageStore.crop`.
        codes: Such as ``["MA", "EX"]``; those without a mask file are left out of the result.
        image_size: Side of the store's crops.
        coverage: Return the share of each pixel that the mask covers instead of whether it touches it.

    Returns:
        By code: (S, S) bool, true where the mask covers any part of the pixel, so that a microaneurysm
            smaller than a pixel is not lost; or float32 coverage, 0 to 1.

    Raises:
        BadImage: If a mask cannot be read or has not the picture's proportions.
    """
    masks = {}
    for code in codes:
        path = row.get(f"mask_{code}", "")
        if not path:
            continue
        content = decoding.read_bytes(paths.resolve(path))
        head = decoding.header(content, Path(path).suffix, np.inf)
        if abs(head.width / crop.width - head.height / crop.height) > 0.01:
            raise BadImage(
                f"mask {path} is {head.width}x{head.height}, not of the proportions of its image "
                f"({crop.width}x{crop.height})"
            )
        mask = (decoding.pixels(content, head).max(axis=2) > 0).astype(np.float32)
        share = crop.cut(mask, image_size)
        masks[code] = share if coverage else share > 0
    return masks
