"""How many experts marked each pixel of a photograph, in the geometry of the image store (source ``diaretdb1``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from drstudy.core import paths, records
from drstudy.core.names import FIELD
from drstudy.data import decoding, images, labels, manifest
from drstudy.data.sources import diaretdb1

SOURCE = "diaretdb1"

HALF = 0.5
"""Share of a pixel of the store that must have at least so many votes."""


class VotesError(ValueError):
    """An audit whose source has no votes."""


def reader(audit: records.Record, codes: Sequence[str]) -> Callable[[str], dict[str, np.ndarray | None]]:
    """A reader of the votes of one photograph at a time.

    A pixel of the store covers several pixels of the file, or a part of one. It has v votes if at least half of it has v
    votes or more, so the pixels with at least v votes are those of the mask at that threshold.

    Args:
        audit: Record of notebook 01 for the source ``diaretdb1``, with any ``VOTES``.
        codes: Codes of lesions, or ``DISC``.

    Returns:
        A function from image_id to ``{code: (S, S) uint8, 0 to 4}``: all 0 where nobody marked the kind, ``None`` where it was not
        annotated; ``FOV`` is the field of view, (S, S) bool, found in the photograph. It raises ``KeyError`` if the
        photograph is not in the audit, and :class:`drstudy.data.decoding.BadImage` if a file cannot be used.

    Raises:
        VotesError: If the source is another.
    """
    table, store = manifest.read(audit.path("manifest.csv")), labels.store_of(audit)
    others = sorted(set(table["source"]) - {SOURCE})
    if others:
        raise VotesError(
            f"The audit is of {', '.join(others)}, which has no votes of experts: give one of {SOURCE}."
        )
    known, rows = labels.status(table, codes), table.set_index("image_id")

    def read(image_id: str) -> dict[str, np.ndarray | None]:
        crop, size = store.crop(image_id), store.image_size
        found: dict[str, np.ndarray | None] = {}
        for code in codes:
            path = rows.loc[image_id].get(f"mask_{code}", "")
            if path:
                found[code] = _cut(path, crop, size)
            else:
                absent = known.loc[image_id, code] == labels.ABSENT
                found[code] = np.zeros((size, size), np.uint8) if absent else None
        return found | {FIELD: images.fov_mask(store.images[store.row(image_id)])}

    return read


def _cut(path: str, crop: images.Crop, size: int) -> np.ndarray:
    """The votes of one file on the pixels of the store."""
    content = decoding.read_bytes(paths.resolve(path))
    head = decoding.header(content, Path(path).suffix, np.inf)
    votes = diaretdb1.count(decoding.pixels(content, head))
    shares = [
        crop.cut((votes >= least).astype(np.float32), size) for least in range(1, diaretdb1.EXPERTS + 1)
    ]
    return (np.stack(shares) >= HALF).sum(0).astype(np.uint8)
