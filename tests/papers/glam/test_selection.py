"""The choice of the epoch by masks of validation eyes."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from drstudy.papers.glam.selection import ByMasks

SIDE = 8


@pytest.fixture
def masks():
    draw = np.random.default_rng(0)
    found = {}
    for name in ("a", "b"):
        fov = np.zeros((16, 16), bool)
        fov[:, 2:14] = True
        found[name] = {"FOV": fov, "MA": draw.random((16, 16)) > 0.9, "HE": None}
    found["b"]["MA"] = np.zeros((16, 16), bool)  # an eye without the lesion has no say
    return found


def measure(masks) -> ByMasks:
    return ByMasks(pd.DataFrame({"image_id": ["a", "b"]}), masks.__getitem__, ["MA", "HE"], SIDE)


def test_value_is_the_average_precision_of_eyes_with_the_lesion(masks):
    chosen, draw = measure(masks), torch.rand(2, 2, SIDE, SIDE)
    chosen.add(draw, np.array([0, 1]))
    pooled = masks["a"]["MA"].reshape(8, 2, 8, 2).any((1, 3))[:, 1:7]
    expected = average_precision_score(pooled.ravel(), draw[0, 0].numpy()[:, 1:7].ravel())
    assert chosen.value() == pytest.approx(expected, abs=1e-9)
    chosen.start()
    assert chosen.value() == 0


def test_finer_maps_are_averaged(masks):
    chosen, draw = measure(masks), torch.rand(2, 2, 2 * SIDE, 2 * SIDE)
    chosen.add(draw, np.array([0, 1]))
    fine = chosen.value()
    chosen.start()
    chosen.add(torch.nn.functional.avg_pool2d(draw, 2), np.array([0, 1]))
    assert chosen.value() == pytest.approx(fine)


def test_another_mask_is_another_training(masks):
    before = measure(masks).facts()["masks"]
    masks["a"]["MA"][:] = False
    assert measure(masks).facts()["masks"] != before
