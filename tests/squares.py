"""Small photographs with coloured squares as lesions, for tests of notebook 14: labels, masks, parameters, an untrained network."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from drstudy.core.devices import Compute
from drstudy.data.dataset import Dataset
from drstudy.papers.glam import training
from drstudy.papers.glam.params import Glam

CPU = Compute("cpu", "fp32")
SIZE, SIDE = 64, 16
CODES = ("MA", "HE", "NV")


@functools.cache
def eyes(train=16, validation=8, test=4, seed=0) -> tuple[Dataset, dict[str, dict]]:
    """Round grey fields; a red square is MA, a bright one HE, which has always MA beside it; NV is a blue tint, in one eye of four unknown.

    Returns:
        The photographs with their labels, and the masks of each.
    """
    random = np.random.default_rng(seed)
    count = train + validation + test
    images = random.normal(110, 8, (count, SIZE, SIZE, 3))
    y, x = np.mgrid[:SIZE, :SIZE]
    field = np.hypot(x - SIZE / 2, y - SIZE / 2) < 0.45 * SIZE
    ma, he, nv = np.arange(count) % 2, np.arange(count) % 4 == 1, np.arange(count) // 2 % 2
    masks = {}
    for i in range(count):
        found = {code: np.zeros((SIZE, SIZE), bool) for code in CODES}
        for code, there, channel, change in (("MA", ma[i], [1, 2], -80), ("HE", he[i], [0, 1, 2], 100)):
            if there:
                r, c = random.integers(16, 40, 2)
                images[i, r : r + 6, c : c + 6, channel] += change
                found[code][r : r + 6, c : c + 6] = True
        images[i, ..., 2] += 60 * nv[i]
        found["NV"][:] = nv[i] == 1
        masks[f"{i:02d}"] = found | {"NV": None if i % 4 == 3 else found["NV"]}
    images = np.where(field[..., None], images, 0).clip(0, 255).astype(np.uint8)
    row = random.permutation(count)
    stored = np.empty_like(images)
    stored[row] = images
    table = pd.DataFrame(
        {
            "image_id": list(masks),
            "patient_id": [f"p{i // 2:02d}" for i in range(count)],
            "grade": pd.array(ma, dtype="Int64"),
            "split": np.repeat(["train", "validation", "test"], [train, validation, test]),
            "row": row,
        }
    )
    labels = pd.DataFrame({"lesion_MA": ma, "lesion_HE": he, "lesion_NV": nv}).astype(float)
    labels.loc[labels.index % 4 == 3, "lesion_NV"] = np.nan
    labels.insert(0, "image_id", table["image_id"])
    return Dataset(stored, table, f"squares-{seed}").with_targets(labels), masks


def params(**changes) -> Glam:
    given = {
        "codes": CODES,
        "input_size": SIZE,
        "grid": SIDE,
        "hidden": 8,
        "views": 2,
        "batch_size": 6,
        "seed": 3,
    }
    given |= {"released_size": 0, "threads": 1, "device": "cpu", "fine_share": 0.05, "all_share": 0.1}
    given |= {name: 6 for name in ("epochs", "local_epochs", "refined_epochs", "mask_epochs")}
    return Glam(**given | changes)


@functools.cache
def built():
    """The network of :func:`params`; what tests change does not change its start."""
    return training.build(params(), eyes()[0], CPU)
