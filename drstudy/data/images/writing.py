"""Writing an image store: in blocks, by several processes, to be continued after a kill.

Processes write their rows themselves, so memory does not grow with the number of images, and the result does
not depend on how many processes there are. Each block's rows are noted with a digest of their pixels; what
the disk does not hold (after a power cut) is done again.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.data import decoding
from drstudy.data import manifest as manifests
from drstudy.data.decoding import BadImage
from drstudy.data.images.crops import prepare

VERSION = 4
"""Version of the pixels and measurements, part of a store's key; raised with any change of either."""
BLOCK = 32
"""Images that a process does in one go."""
SPARE_BYTES = 64 * 2**20
"""Bytes of the disk that a store leaves free."""
WATCH_SECONDS = 1.0
"""Time between two looks of a worker at the process that it works for."""
REPORT_SECONDS = 15.0
"""Time between two lines on the progress."""

GEOMETRY = ("x0", "y0", "side", "width", "height", "reduce")


class StoreError(RuntimeError):
    """An image store that cannot be written or is not one."""


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


def fill(target: Path, manifest: pd.DataFrame, image_size: int, workers: int, max_megapixels: float) -> None:
    """Write a store, or go on with one that a kill has left unfinished. ``store.json`` is written last.

    Args:
        target: Folder of the store.
        manifest: See :mod:`drstudy.data.manifest`.
        image_size: Side S of the crops, pixels.
        workers: Number of processes.
        max_megapixels: Larger files are left out.

    Raises:
        StoreError: If the disk is too full, a worker was killed, or no image at all can be used.
    """
    shape = (len(manifest), image_size, image_size, 3)
    array, journal = target / "images.part.npy", target / "rows.jsonl"
    paths.sweep(target)
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
    with journal.open("ab") as file:
        for records in _run(blocks, array, image_size, max_megapixels, workers):
            file.write(b"".join(_line(record) for record in records))
            file.flush()
            report.add(len(records))
    _finish(target, array, journal, shape)


def _run(
    blocks: Sequence[list], array: Path, image_size: int, max_megapixels: float, workers: int
) -> Iterator[list[dict[str, Any]]]:
    """Do the blocks, in this process or in several; at most two per process are under way."""
    workers = min(workers, len(blocks))
    if workers <= 1:
        for block in blocks:
            yield _do_block(array, block, image_size, max_megapixels)
        return
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    waiting, running = iter(blocks), set[Future]()
    try:
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=_end_with, initargs=(os.getpid(),)
        ) as pool:
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
            "A process that decodes images was killed, probably because memory ran out. Finished images are kept. "
            "Run it again with fewer WORKERS or a smaller MAX_MEGAPIXELS."
        ) from None


def _end_with(main: int) -> None:
    """Let a worker end when the process that it works for ends, however that is killed; else it would wait for work for ever."""
    server = os.getppid()

    def watch() -> None:
        while paths.lives(main) and os.getppid() == server:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
        with array.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, array.stat().st_size)
    return mapped


def _has_shape(array: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(array, mmap_mode="r").shape == shape
    except (OSError, ValueError, EOFError):
        return False


def _drop_torn_line(journal: Path) -> None:
    """Cut off a last line that a kill left without its end."""
    with journal.open("r+b") as file:
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


def _line(record: dict[str, Any]) -> bytes:
    """A line of the journal: the record and, before it, its digest."""
    text = json.dumps(record).encode()
    return decoding.sha256(text)[:16].encode() + b" " + text + b"\n"


def _records(journal: Path) -> dict[int, dict[str, Any]]:
    """By row, in their order; of a row that was done twice, the later record. Lines that are not what was written (a power cut may leave anything) count
    as not written."""
    found: dict[int, dict[str, Any]] = {}
    with journal.open("rb") as file:
        for line in file:
            digest, _, text = line.rstrip(b"\n").partition(b" ")
            if decoding.sha256(text)[:16].encode() == digest:
                record = json.loads(text)
                found[record["row"]] = record
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
        _compact(array, [record["row"] for record in usable])
    frame = pd.DataFrame(usable).drop(columns="notes")
    frame["row"] = np.arange(len(frame))
    paths.write_csv(frame[["row", "image_id", "path", *GEOMETRY]], target / "index.csv")
    measured = [name for name in frame if name not in ("row", "path", "x0", "y0", "side", "reduce")]
    paths.write_csv(frame[measured], target / "measures.csv")
    paths.write_csv(manifests.problems(problems), target / "problems.csv")
    info = {
        "images": len(usable),
        "image_size": shape[1],
        "version": VERSION,
        "sha256": decoding.sha256("".join(frame["crop_sha256"]).encode()),  # of the rows' digests, in order
        "tables": {
            name: paths.sha256(target / name) for name in ("index.csv", "measures.csv", "problems.csv")
        },
    }
    paths.replace(array, target / "images.npy")
    with paths.atomic(target / "store.json") as temporary:
        temporary.write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8", newline="\n")
    journal.unlink(missing_ok=True)


def _compact(array: Path, rows: list[int]) -> None:
    """Move the usable rows together within the file, which takes no further room, and cut off the rest.

    A kill in between leaves rows that do not have their noted digests, or a file of another shape, which the next run makes again.
    """
    packed = np.load(array, mmap_mode="r+")
    for place, row in enumerate(rows):
        if place != row:
            packed[place] = packed[row]
    packed.flush()
    shape, offset = (len(rows), *packed.shape[1:]), packed.offset
    del packed
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape},
    )
    if header.tell() != offset:
        raise StoreError(f"{paths.show(array)} has an unknown header. Delete its folder and start again.")
    with array.open("r+b") as file:
        file.write(header.getvalue())
        file.truncate(offset + int(np.prod(shape)))


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
