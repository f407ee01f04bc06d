"""Duplicate photographs: the same pixels, or nearly the same, of one patient or of different ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pandas as pd

from drstudy.data import measures
from drstudy.data.images import ImageStore

DETAIL_SIDE = 64
"""Side, in pixels, of the copy whose fine detail is compared."""
DETAIL_SIGMA = 4.0
"""Standard deviation, in pixels of that copy, of the Gaussian that removes what is not fine detail."""
NEAR_CORRELATION = 0.93
"""Two crops are near duplicates if the correlation of their fine detail is at least this. Among real photographs of
different eyes the greatest correlation was 0.91 (two with the same glare). Copies that were made lighter, smaller or
more compressed had 0.88 to 1."""
HASH_BLOCK = 512
"""Images of which all are compared with all of another such block at a time."""
KEPT_DETAILS = 4 * HASH_BLOCK
"""Images whose fine detail is kept in memory: those of two blocks that are compared, and some more."""
ANGLES, RINGS = 96, (3, 30)
"""Directions, and range of rings (of 32 from the centre to the rim), in which a crop is described whatever its rotation."""
TURNED_LIKENESS = 0.95
"""Cosine of two such descriptions from which a turned copy is looked for. Copies that were turned by 90 or 180 degrees or mirrored and saved again had
0.985 to 1, and by other angles about 0.97; of 45,000 pairs of real photographs of different eyes 99.9 % were below 0.92."""

COLUMNS = ("image_id_a", "image_id_b", "distance", "correlation", "kind")


def find(store: ImageStore, bits: int) -> pd.DataFrame:
    """Exact and near duplicates, of the same patient or of different ones.

    Exact: the same stored pixels (so also the same file). Near: perceptual hashes (64-bit DCT) at most
    ``bits`` apart, *and* fine detail that correlates at :data:`NEAR_CORRELATION` or more; the hash alone
    collides often, as all fundus photographs look alike. Hashes are compared all with all, in blocks of
    packed bits (35,000 images: 6e8 comparisons). Turned: mirrored, or turned by any angle, with fine detail that correlates as much when it is
    turned back. A copy whose field of view is cut differently, as when a field with a flat edge is turned by 120 degrees, may be missed.

    Memory grows by 3.5 kB per image (a description that does not depend on rotation). The pixels are read in blocks and not kept.

    Args:
        store: The image store.
        bits: Greatest Hamming distance, 0 to 64.

    Returns:
        ``image_id_a, image_id_b, distance, correlation, kind`` (``exact``, ``near`` or ``turned``), one row per
        pair. Of equal images each is paired with the first one, and only the first one is compared with the others.
    """
    ids = store.index["image_id"].to_numpy()
    exact = _equal_pairs(store.measures)
    copies = {copy for _, copy in exact}
    first = np.array([place for place in range(len(ids)) if place not in copies], dtype=int)
    hashes = np.array([int(value, 16) for value in store.measures["phash"]], dtype=np.uint64)
    rows = [(a, b, int(np.bitwise_count(hashes[a] ^ hashes[b])), 1.0, "exact") for a, b in exact]

    @functools.lru_cache(maxsize=KEPT_DETAILS)
    def fine(place: int) -> np.ndarray:
        found = detail(np.asarray(store.images[place]))
        store.release()  # the system reads the neighbours too, so a few photographs would bring in the whole store
        return found

    for one, other, distance in _close_pairs(hashes[first], bits):
        a, b = int(first[one]), int(first[other])
        correlation = float(np.dot(fine(a).astype(np.float32), fine(b).astype(np.float32)))
        if correlation >= NEAR_CORRELATION:
            rows.append((a, b, distance, round(correlation, 4), "near"))
    near = {(a, b) for a, b, *_ in rows}
    for one, other, correlation in _turned_pairs(store, first, fine):
        a, b = int(first[one]), int(first[other])
        if (a, b) not in near:
            rows.append((a, b, int(np.bitwise_count(hashes[a] ^ hashes[b])), round(correlation, 4), "turned"))
    rows.sort(key=lambda row: (row[4], row[0], row[1]))
    return pd.DataFrame([(ids[a], ids[b], *rest) for a, b, *rest in rows], columns=list(COLUMNS))


def _equal_pairs(measured: pd.DataFrame) -> list[tuple[int, int]]:
    groups = measured.groupby("crop_sha256", sort=False).indices.values()
    return sorted((int(places[0]), int(other)) for places in groups for other in places[1:])


def _blocks(count: int) -> Iterator[tuple[slice, slice]]:
    """All pairs of blocks (the second not before the first) of so many images."""
    for start in range(0, count, HASH_BLOCK):
        for other in range(start, count, HASH_BLOCK):
            yield slice(start, start + HASH_BLOCK), slice(other, other + HASH_BLOCK)


def _close_pairs(hashes: np.ndarray, bits: int) -> Iterator[tuple[int, int, int]]:
    """Pairs (a < b, distance) of hashes at most ``bits`` apart."""
    for rows, columns in _blocks(len(hashes)):
        distances = np.bitwise_count(hashes[rows, None] ^ hashes[None, columns])
        for row, column in np.argwhere(distances <= bits):
            a, b = int(rows.start + row), int(columns.start + column)
            if b > a:
                yield a, b, int(distances[row, column])


def _turned_pairs(
    store: ImageStore, places: np.ndarray, fine: Callable[[int], np.ndarray]
) -> Iterator[tuple[int, int, float]]:
    """Pairs (a < b, correlation) of which one is a turned or mirrored copy of the other.

    The size of the Fourier coefficients along circles around the centre does not depend on rotation or reflection, so it finds candidates. Their
    angle is where the circles correlate most, and the crop that is turned back by it must be like the other one.
    """
    sizes = _sizes(store, places)
    for rows, columns in _blocks(len(places)):
        likeness = sizes[rows] @ sizes[columns].T
        for row, column in np.argwhere(likeness >= TURNED_LIKENESS):
            a, b = int(rows.start + row), int(columns.start + column)
            if b <= a:
                continue
            crop, other = (np.asarray(store.images[places[place]]) for place in (a, b))
            circles, others = (_polar(fine(int(places[place]))) for place in (a, b))
            correlation = max(_turned_back(crop, other, circles, others, mirror) for mirror in (False, True))
            if correlation >= NEAR_CORRELATION:
                yield a, b, correlation
        if columns.stop >= len(places):
            store.release()


def _sizes(store: ImageStore, places: np.ndarray) -> np.ndarray:
    """Size of the Fourier coefficients along circles around the centre, (N, frequencies x rings) float32, each row of unit length."""
    sizes = np.empty((len(places), (ANGLES // 3) * (RINGS[1] - RINGS[0])), np.float32)
    for start in range(0, len(places), HASH_BLOCK):
        block = slice(start, start + HASH_BLOCK)
        sizes[block] = _sizes_of(
            np.stack([_polar(detail(np.asarray(store.images[place]))) for place in places[block]])
        )
        store.release()
    return sizes


def _sizes_of(polar: np.ndarray) -> np.ndarray:
    sizes = np.abs(np.fft.rfft(polar, axis=1))[:, 1 : ANGLES // 3 + 1].reshape(len(polar), -1)
    return sizes / np.maximum(1e-9, np.linalg.norm(sizes, axis=1, keepdims=True))


def _polar(fine: np.ndarray) -> np.ndarray:
    """Fine detail along circles around the centre, (:data:`ANGLES`, rings) float32; each point weighs as the area that it stands for."""
    middle = (DETAIL_SIDE - 1) / 2
    square = fine.astype(np.float32).reshape(DETAIL_SIDE, DETAIL_SIDE)
    size = (DETAIL_SIDE // 2, ANGLES)
    circles = cv2.warpPolar(square, size, (middle, middle), DETAIL_SIDE / 2, cv2.INTER_LINEAR)
    return circles[:, slice(*RINGS)] * np.sqrt(np.arange(*RINGS, dtype=np.float32))


def _turned_back(
    crop: np.ndarray, other: np.ndarray, circles: np.ndarray, others: np.ndarray, mirror: bool
) -> float:
    """Correlation of the fine detail of a crop with that of another one, which is mirrored if asked and turned to fit best."""
    if mirror:
        other, others = other[:, ::-1], _polar(detail(np.ascontiguousarray(other[:, ::-1])))
    product = (np.fft.rfft(circles, axis=0) * np.fft.rfft(others, axis=0).conj()).sum(axis=1)
    shift = int(np.fft.irfft(product, n=ANGLES).argmax())
    side = len(crop)
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), -360.0 * shift / ANGLES, 1)
    turned = cv2.warpAffine(np.ascontiguousarray(other), turn, (side, side))
    return float(np.dot(detail(crop).astype(np.float32), detail(turned).astype(np.float32)))


def detail(crop: np.ndarray) -> np.ndarray:
    """Fine detail of a stored crop, for correlation: grey, 64 x 64, without its smooth part, inside the
    field.

    Args:
        crop: (S, S, 3) uint8 RGB.

    Returns:
        (4096,) float16 of unit length (all zero where there is no detail): a dot product is a correlation.
    """
    size = (DETAIL_SIDE, DETAIL_SIDE)
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    field_share = cv2.resize(measures.fov_mask(crop).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    framed = cv2.copyMakeBorder(
        (field_share > 0.99).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0
    )
    inner = cv2.erode(framed, np.ones((5, 5), np.uint8))[1:-1, 1:-1] > 0
    fine = grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_SIGMA)
    fine = np.where(inner, fine - fine[inner].mean() if inner.any() else 0.0, 0.0).ravel()
    return (fine / max(1e-6, float(np.linalg.norm(fine)))).astype(np.float16)


def annotate(pairs: pd.DataFrame, manifest: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Add whether the two images of each pair have the same patient, split and grade (an unknown grade equals no other).

    Args:
        pairs: Result of :func:`find`.
        manifest: See :mod:`drstudy.data.manifest`.
        split: Columns ``image_id`` and ``split``.

    Returns:
        ``pairs`` with the bool columns ``same_patient, same_split, same_grade``.
    """
    by_id = manifest.set_index("image_id")
    side = split.set_index("image_id")["split"]
    a, b = pairs["image_id_a"], pairs["image_id_b"]
    grades = a.map(by_id["grade"]).astype("Int64"), b.map(by_id["grade"]).astype("Int64")
    return pairs.assign(
        same_patient=(a.map(by_id["patient_id"]) == b.map(by_id["patient_id"])).astype(bool),
        same_split=(a.map(side) == b.map(side)).astype(bool),
        same_grade=(grades[0] == grades[1]).fillna(False).astype(bool),
    )
