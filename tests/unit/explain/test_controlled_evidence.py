"""The end-to-end check: a network whose evidence we control, explained and scored as in notebook 05.

Only haemorrhages decide its score, so the metrics themselves have to say: far beyond chance on haemorrhages (HE),
nothing beyond chance on hard exudates (EX). A learned one would not do: trained on "haemorrhages or not", a small
network may still look at the edges of exudates, and then the metrics are right to say so.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from drstudy.core import devices
from drstudy.data import phantom
from drstudy.explain.measures import baselines, comparison, localisation
from drstudy.explain.methods import cam
from drstudy.models import nets
from drstudy.show import map_tables

SIDE = 224
NEVER = ("MA", "SE", "VB", "IRMA", "NV", "PRH", "LASER", "DRUSEN")
"""Lesions that no photograph here has: only haemorrhages and exudates are left."""


CONFIG = phantom.PhantomConfig(
    n_patients=45, size=SIDE, seed=3, distribution=(0, 0, 1, 0, 0), difficulty=0, ungradable=0, laser=0
)


class Detector(nets.GradingNet):
    """Its score for grade 1 is the mean amount by which blue exceeds red: by construction, what is painted blue."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    input_size = SIDE

    def __init__(self):
        super().__init__("detector", torch.nn.Identity(), "single")

    def _declare(self):
        self.cam_layers = {"evidence": ""}

    def trunk(self, x):
        return functional.avg_pool2d(functional.relu(x[:, 2:] - x[:, :1]), 8)

    def tail(self, h):
        score = self.tap("evidence", h).mean((1, 2, 3))
        return torch.stack([score if grade == 1 else 0 * score for grade in range(5)], 1)


@pytest.fixture(scope="module")
def eyes():
    """Phantom eyes that have both haemorrhages and exudates."""
    made = (phantom.render(CONFIG, index, without=NEVER) for index in range(2 * CONFIG.n_patients))
    return [eye for eye in made if eye.masks["HE"].any() and eye.masks["EX"].any()]


def compared(net, images, eyes, rows):
    """Differences to the four baselines by lesion and metric, as notebook 05 computes them."""
    layer = next(iter(net.cam_layers))
    names = [eye.image_id for eye in eyes]
    explained = cam.explain_images(
        net, images, names, SIDE, devices.setup("cpu", "fp32", 1, 0), rows, np.ones(len(rows), np.int64)
    )
    masks, patients = ({eye.image_id: getattr(eye, name) for eye in eyes} for name in ("masks", "patient_id"))
    grids = {layer: explained.raw[layer].shape[1:]}
    beside = baselines.beside(images, rows, grids.values(), 0)
    table, lesions = localisation.measure({layer: explained.maps(layer)}, names, masks.get, 0.25, beside)
    pairs = comparison.pairs(grids)
    found = comparison.differences(comparison.prepare(table, patients), pairs, patients, 1000, 0)
    covered = comparison.coverage(lesions, pairs, patients, 1000, 0)
    covered = covered[covered["size"] == "all"].assign(metric="coverage")
    return pd.concat([found, covered]).set_index(["region", "metric", "against"]).sort_index()


def test_a_detector_of_haemorrhages_is_found_out(eyes):
    """Haemorrhages are painted blue, which nothing else in an eye is; its maps have cells of 8 pixels."""
    images = np.stack([eye.image for eye in eyes])
    for image, eye in zip(images, eyes):
        image[eye.masks["HE"]] = (0, 0, 255)
    assert len(eyes) >= 15
    found = compared(Detector(), images, eyes, np.arange(len(eyes)))
    for metric in (*comparison.HEADLINES, "coverage"):
        on_he, on_ex = found.loc[("HE", metric)], found.loc[("EX", metric)]
        assert map_tables.verdict(on_he.reset_index()) == "above all four", metric
        random = on_ex.loc["random 28x28"]
        assert random["difference_lo"] <= 0, f"{metric} on exudates is beyond chance"
    assert found.loc[("HE", "hit", "random 28x28"), "value"] == 1
