"""The end-to-end check: networks whose evidence we control, explained and scored as in notebook 05.

Only haemorrhages decide the label, so the metrics themselves have to say: far beyond chance on haemorrhages (HE),
nothing beyond chance on hard exudates (EX).
"""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from drstudy import devices, transforms
from drstudy.data import phantom
from drstudy.explain import baselines, cam, comparison, localisation
from drstudy.models import backbones

SIDE = 224
NEVER = ("MA", "SE", "VB", "IRMA", "NV", "PRH", "LASER", "DRUSEN")
"""Lesions that no photograph here has: only haemorrhages and exudates are left."""


CONFIG = phantom.PhantomConfig(
    n_patients=60, size=SIDE, seed=3, distribution=(0, 0, 1, 0, 0), difficulty=0, ungradable=0, laser=0
)


class Detector(backbones.GradingNet):
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
    images = np.stack([eye.image for eye in eyes])
    for image, eye in zip(images, eyes):
        image[eye.masks["HE"]] = (0, 0, 255)
    assert len(eyes) >= 15
    found = compared(Detector(), images, eyes, np.arange(len(eyes)))
    for metric in (*comparison.HEADLINES, "coverage"):
        on_he, on_ex = found.loc[("HE", metric)], found.loc[("EX", metric)]
        assert comparison.verdict(on_he.reset_index()) == "above all four", metric
        random = on_ex.loc["random 28x28"]
        assert random["difference_lo"] <= 0, f"{metric} on exudates is beyond chance"
    assert found.loc[("HE", "hit", "random 28x28"), "value"] == 1


class Local(backbones.EfficientNetLite):
    """EfficientNet-Lite0's first blocks, 8 pixels a cell, and a small tail: evidence is as local as its cells."""

    def _declare(self):
        self.cam_layers = {"local": "local"}
        self.local = torch.nn.Sequential(
            torch.nn.Conv2d(40, 48, 1), torch.nn.ReLU(), torch.nn.Conv2d(48, 32, 3, padding=1), torch.nn.ReLU()
        )
        self.last = torch.nn.Linear(32, 5)
        self.middle, self.scale = 0.0, 1.0

    def trunk(self, x):
        x = functional.relu6(self.net._bn0(self.net._conv_stem(x)))
        for block in self.net._blocks[:4]:
            x = block(x)
        return (x - self.middle) / self.scale

    def tail(self, h):
        return self.last(self.tap("local", self.local(h)).mean((2, 3)))


def test_a_network_that_only_haemorrhages_can_teach_is_found_out(eyes):
    """Each eye is photographed with and without haemorrhages, with and without exudates; the label is
    "haemorrhages", so exudates and all else are balanced out. Half of the patients teach, the others are
    explained."""
    patients = np.unique([eye.patient_id for eye in eyes])
    half = set(patients[: len(patients) // 2])
    taught = [eye for eye in eyes if eye.patient_id in half]
    asked = [eye for eye in eyes if eye.patient_id not in half]
    versions = [(eye, gone) for eye in taught for gone in ((), ("EX",), ("HE",), ("EX", "HE"))]
    photographs = [
        phantom.render(CONFIG, eye.image_id, without=(*NEVER, *gone)).image if gone else eye.image
        for eye, gone in versions
    ]
    label = torch.tensor([int("HE" not in gone) for _, gone in versions])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Local("efficientnet_lite0", backbones.build("efficientnet_lite0", "single", "bundled").net, "single")
        x = transforms.to_input(np.stack(photographs), SIDE, net.mean, net.std)
        with torch.no_grad():
            h = torch.cat([net.eval().trunk(part) for part in x.split(16)])
            net.middle, net.scale = h.mean((0, 2, 3), keepdim=True), h.std((0, 2, 3), keepdim=True)
            h = (h - net.middle) / net.scale
        adam = torch.optim.Adam([*net.local.parameters(), *net.last.parameters()], lr=3e-3, weight_decay=1e-4)
        for _ in range(60):
            for part in torch.randperm(len(h)).split(16):
                adam.zero_grad()
                functional.cross_entropy(net.tail(h[part]), label[part]).backward()
                adam.step()
        with torch.no_grad():
            assert (net.tail(h).argmax(1) == label).float().mean() == 1, "it has learned its lesson"
    found = compared(net, np.stack([eye.image for eye in asked]), asked, np.arange(len(asked)))
    for metric in (*comparison.HEADLINES, "coverage"):
        on_he, on_ex = found.loc[("HE", metric)], found.loc[("EX", metric)]
        print(metric, on_he[["value","difference_lo"]].to_string(), on_ex[["value","difference_lo","difference_hi"]].to_string())
    for metric in (*comparison.HEADLINES, "coverage"):
        on_he, on_ex = found.loc[("HE", metric)], found.loc[("EX", metric)]
        assert comparison.verdict(on_he.reset_index()) == "above all four", metric
        random = on_ex.loc["random 28x28"]
        assert random["difference_lo"] <= 0, f"{metric} on exudates is beyond chance"
