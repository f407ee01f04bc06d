"""Sets of small photographs with a grade and a patient each, real or generated: what every comparison of this folder takes.

Real photographs come from the image store and are resized to the generator's size, so that real and generated pictures have the same
number of pixels. A generated picture has no patient; it counts as one of its own, which makes the bootstrap over patients a bootstrap
over generated pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drstudy.core.names import GRADES, N_GRADES
from drstudy.data.dataset import Dataset
from drstudy.papers.gan import feed


@dataclass(frozen=True)
class Pictures:
    """Photographs of one size.

    Attributes:
        images: (N, S, S, 3) uint8 RGB.
        grades: (N,) int64, 0 to 4: the label of a real photograph, the requested grade of a generated one.
        patients: (N,) text.

    Raises:
        ValueError: If an array has another shape or type, a grade is not 0 to 4, or there is no picture.
    """

    images: np.ndarray
    grades: np.ndarray
    patients: np.ndarray

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(
                f"Pictures must be uint8 RGB of shape (N, S, S, 3), but these are {self.images.dtype} of shape {shape}. Scale a generator's "
                "output to 0..255 and put the channels last."
            )
        if not len(self.images):
            raise ValueError(
                "There is no picture in the set. Generate some, or give the split a larger share."
            )
        for name in ("grades", "patients"):
            if getattr(self, name).shape != (len(self.images),):
                raise ValueError(
                    f"There are {len(self.images)} pictures, but {name} has the shape {getattr(self, name).shape}; give one for each picture."
                )
        if self.grades.dtype != np.int64 or not np.isin(self.grades, GRADES).all():
            raise ValueError(
                f"Grades must be int64 from 0 to 4, but these are {self.grades.dtype} with the values {np.unique(self.grades).tolist()}."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of a picture, pixels."""
        return self.images.shape[1]

    @property
    def counts(self) -> np.ndarray:
        """Number of pictures of each grade, (5,) int64."""
        return np.bincount(self.grades, minlength=N_GRADES)

    def take(self, positions: np.ndarray) -> Pictures:
        """The pictures at these positions, (M,) int64 or (N,) bool, in this order."""
        return Pictures(self.images[positions], self.grades[positions], self.patients[positions])


def real(data: Dataset, split: str | Sequence[str], size: int) -> Pictures:
    """The real photographs of one or several splits, resized to the generator's size.

    Args:
        data: Photographs and split.
        split: A split, ``all``, or several splits.
        size: Side of the generator's pictures, pixels.

    Raises:
        ValueError: If a photograph has no grade; a generator is conditioned on grades, so such photographs must be left out before.
    """
    names = [split] if isinstance(split, str) else list(split)
    parts = [data.part(name) for name in names]
    rows = np.concatenate([part["row"].to_numpy(np.int64) for part in parts])
    missing = sum(int(part["grade"].isna().sum()) for part in parts)
    if missing:
        raise ValueError(
            f"{missing} photographs of the split {', '.join(names)} have no grade. Leave them out before pictures are compared by grade."
        )
    grades = np.concatenate([part["grade"].to_numpy(np.int64) for part in parts])
    patients = np.concatenate([part["patient_id"].to_numpy(str) for part in parts])
    return Pictures(resized(data.images, size, rows), grades, patients)


def generated(images: np.ndarray, grades: np.ndarray) -> Pictures:
    """Generated pictures, each as a patient of its own.

    Args:
        images: (N, S, S, 3) uint8 RGB.
        grades: (N,) int64, the grade that was requested.

    Raises:
        ValueError: As :class:`Pictures`.
    """
    names = np.array([f"generated-{number:06d}" for number in range(len(images))], dtype=str)
    return Pictures(np.asarray(images), np.asarray(grades), names)


def resized(images: np.ndarray, size: int, rows: np.ndarray | None = None) -> np.ndarray:
    """Photographs at another size, anti-aliased (:func:`drstudy.training.transforms.resize`).

    Args:
        images: (N, S, S, 3) uint8.
        size: Side of the result, pixels.
        rows: (M,) rows that are wanted; ``None`` is all.

    Returns:
        (M, size, size, 3) uint8.
    """
    rows = np.arange(len(images)) if rows is None else rows
    return np.ascontiguousarray(feed.shrunk(images, rows, size).permute(0, 2, 3, 1).numpy())


def noised(images: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    """Photographs (N, S, S, 3) uint8 with normal noise of a standard deviation in grey levels, rounded and clipped."""
    return np.rint(images + random.normal(0, deviation, images.shape)).clip(0, 255).astype(np.uint8)


def by_counts(grades: np.ndarray, wanted: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Positions of ``wanted`` pictures of each grade, drawn without replacement as long as there are enough of the grade.

    A grade with fewer pictures than wanted gives all of them as often as possible, and then some of them once more.

    Args:
        grades: (N,) int64.
        wanted: (5,) number of pictures for each grade.
        random: Generator of the draws.

    Returns:
        (sum of wanted,) int64, grade by grade.

    Raises:
        ValueError: If pictures of a grade are wanted and there is none.
    """
    found, each = [], random.spawn(N_GRADES)  # so that another number of one grade changes no other grade
    for grade, count in enumerate(np.asarray(wanted, dtype=int)):
        places = np.flatnonzero(grades == grade)
        if count and not len(places):
            raise ValueError(
                f"{count} pictures of grade {grade} are needed, but the set has none of this grade."
            )
        rounds = -(-count // len(places)) if len(places) else 0
        drawn = [each[grade].permutation(places) for _ in range(rounds)]
        found.append(np.concatenate(drawn)[:count] if drawn else np.empty(0, np.int64))
    return np.concatenate(found).astype(np.int64)
