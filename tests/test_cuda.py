"""The same numbers on a CUDA device as on the CPU: features, maps, training, in each precision; skipped where there is no device.

The first command for a user with a GPU: `pytest tests/test_cuda.py` (docs/gpu.md).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from drstudy.core import devices
from drstudy.core.devices import Compute
from drstudy.explain.methods import cam
from drstudy.papers.transfer import params
from drstudy.training import features, grading, loop, networks, prediction

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this computer has no CUDA device")

CPU = Compute("cpu", "fp32")
ROUNDING = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Largest difference from the CPU's fp32, over the largest value: about a hundred layers, each with the rounding of its type
(eps 1.2e-7, 9.8e-4, 7.8e-3). The features of another view differ by more than 0.3."""
NETWORKS = ("efficientnet_lite0", "densenet121")


@pytest.fixture(scope="module")
def data(coloured_eyes):
    return coloured_eyes(train=40, validation=15, test=21)


def recipe(**changes):
    given = {"backbone": "efficientnet_lite0", "input_size": 64, "batch_size": 8, "views": 2, "seed": 3}
    given |= {"epochs": 3, "select_by": "last"}
    if changes.get("backbone") == "densenet121":
        given["weights"] = "none"
    return params.FineTuning(**(given | changes))


class Run:
    """Features, training, predictions and maps of a recipe on a device, as notebooks 03 and 05 do it."""

    def __init__(self, data, device, precision, train=True, **changes):
        self.compute = devices.setup(device, precision, 1, 3)
        self.p = recipe(**changes)
        self.net = networks.build(self.p, data, self.compute)
        self.features = features.open_features(self.net, data, self.p, self.compute)
        self.first = next(iter(self.features.draws(torch.arange(8), torch.zeros(8, dtype=torch.long))))
        if train:
            self.history = loop.fit(
                grading.Grading(self.net, self.features, self.p, self.compute), None
            ).history
        self.predictions = pd.concat(
            [
                prediction.table(self.net, self.features, split, self.compute)
                for split in ("validation", "test")
            ]
        )

    def maps(self, data):
        names = [str(i) for i in range(len(data.images))]
        grades = np.arange(len(names)) % 5  # fixed, since a rounded logit may predict another grade
        return cam.explain_images(self.net, data.images, names, 64, self.compute, target=grades)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().float().cpu(), expected.detach().float().cpu()
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("precision", list(ROUNDING))
@pytest.mark.parametrize("backbone", NETWORKS)
def test_features_and_maps_are_those_of_the_cpu(data, own_folders, backbone, precision):
    cpu = Run(data, "cpu", "fp32", train=False, backbone=backbone)
    cuda = Run(data, "cuda", precision, train=False, backbone=backbone)
    assert cuda.first.inputs.is_cuda
    assert apart(cuda.first.inputs, cpu.first.inputs) < ROUNDING[precision]
    ours, theirs = cuda.maps(data), cpu.maps(data)
    for layer, expected in theirs.raw.items():
        agreement = [
            spearmanr(a.ravel(), b.ravel()).statistic
            for a, b in zip(ours.raw[layer], expected)
            if a.std() > 0 and b.std() > 0
        ]
        assert np.median(agreement) > (0.999 if precision == "fp32" else 0.95)


@pytest.mark.parametrize("feature_store", [True, False], ids=["stored", "live"])
@pytest.mark.parametrize("precision", list(ROUNDING))
def test_training_learns_and_is_the_same_bytes_again(data, own_folders, precision, feature_store):
    first = Run(data, "cuda", precision, feature_store=feature_store, epochs=6)
    again = Run(data, "cuda", precision, feature_store=feature_store, epochs=6)
    assert np.isfinite(first.history["loss"]).all()
    losses = first.history.groupby("epoch")["loss"].mean()
    assert losses.iloc[-1] < losses.iloc[0]
    pd.testing.assert_frame_equal(first.predictions, again.predictions, check_exact=True)


def test_training_in_fp32_is_near_that_of_the_cpu(data, own_folders):
    """Of a network without dropout, whose draws depend on the device. Rounding grows from step to step; a wrong view, label or gradient
    would change the first losses by 0.1 and more."""
    cpu, cuda = (Run(data, device, "fp32", backbone="densenet121") for device in ("cpu", "cuda"))
    steps = len(cpu.history) // 3
    assert np.abs(cpu.history["loss"] - cuda.history["loss"])[:steps].max() < 0.01
