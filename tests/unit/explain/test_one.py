"""One photograph explained: probabilities as in a batch, the map as an independent package computes it, outlines at a cut of others."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from photographs import photograph
from trained_eyes import SIZE, audit
from untrained import network

from drstudy.core.devices import Compute
from drstudy.core.names import PROBABILITIES
from drstudy.data import dataset
from drstudy.data.measures import fov_mask
from drstudy.evaluation import calibration
from drstudy.explain import one
from drstudy.explain.measures import common_maps, localisation
from drstudy.models import heads, nets
from drstudy.training import prediction, transforms

CPU = Compute("cpu", "fp32")


@pytest.fixture(scope="module")
def net():
    made = network("efficientnet_lite0")
    made.input_size = 96
    return made


@pytest.fixture(scope="module")
def image():
    return photograph(3, SIZE)


def test_probabilities_are_those_of_the_study(net, image):
    found = one.explain(net, image, CPU)
    expected = prediction.predict(net, image[None], CPU, 96)[0]
    assert np.allclose(found.probabilities, expected, atol=1e-6, rtol=0)
    assert found.predicted == expected.argmax()
    assert found.referable == pytest.approx(expected[2:].sum(), abs=1e-6)
    assert (found.calibrated, found.outlines, found.status) == (None, (), "")


def test_the_map_is_the_exact_class_activation_map(net, image):
    """Mean of the map plus the bias is the score of the predicted grade, computed here from the layer and the head by hand."""
    found = one.explain(net, image, CPU)
    x = transforms.to_input(image[None], 96, net.mean, net.std)
    with torch.no_grad(), net.record(found.layer) as kept:
        scores = net(x)[0]
    weight, bias = heads.collapsed(net.net.get_submodule(net.head_path))
    by_hand = torch.einsum("c,chw->hw", weight[found.predicted].float(), kept[found.layer][0])
    cells = by_hand.numel()
    assert np.allclose(found.raw * cells, by_hand, atol=1e-4, rtol=1e-4)
    assert found.raw.sum() + bias[found.predicted].item() == pytest.approx(
        scores[found.predicted].item(), abs=1e-4
    )
    assert found.heat.shape == image.shape[:2]
    assert found.heat.min() >= 0


def test_calibration_is_that_of_the_study_and_changes_no_grade(net, image):
    found = one.explain(net, image, CPU, temperature=3.0)
    row = pd.DataFrame([found.probabilities], columns=PROBABILITIES)
    assert np.allclose(
        found.calibrated, calibration.scaled(row, 3.0)[PROBABILITIES].to_numpy()[0], atol=1e-12
    )
    assert found.calibrated.argmax() == found.predicted
    assert found.calibrated.max() < found.probabilities.max()
    assert found.best is found.calibrated


def predicting(net, grade: int):
    """The network with a bias by which it predicts this grade."""
    made = copy.deepcopy(net)
    with torch.no_grad():
        made.net.get_submodule(made.head_path).bias[:] = torch.eye(5)[grade] * 50
    return made


def test_regions_are_where_the_map_reaches_the_cut(net, image):
    sure = predicting(net, 3)
    heat = one.explain(sure, image, CPU).heat
    cut = float(np.quantile(heat[heat > 0], 0.7))
    found = one.explain(sure, image, CPU, cut=cut)
    assert (found.predicted, found.status) == (3, "outlined")
    inside = sum(outline.area for outline in found.outlines)
    fov = fov_mask(image)
    assert 0 < inside <= ((heat >= cut) & fov).sum()
    assert one.explain(sure, image, CPU, cut=float(heat.max()) + 1).status == "below the cut"


def test_evidence_against_disease_is_not_outlined(net, image):
    healthy = predicting(net, 0)
    found = one.explain(healthy, image, CPU, cut=1e-9)
    assert (found.predicted, found.status, found.outlines) == (0, "not predicted", ())


def test_networks_of_other_outputs_are_refused(image):
    other = nets.build("efficientnet_lite0", outputs=1)
    other.input_size = 96
    with pytest.raises(ValueError, match="1 outputs; only networks of 5 grades"):
        one.explain(other, image, CPU)


@pytest.fixture
def masked(own_folders):
    return audit(own_folders / "eyes")


def test_the_cut_is_the_value_that_finds_the_lesions_of_validation_eyes_best(masked):
    """Maps that are 0.75 on the lesion of every eye and at most 0.3 elsewhere: any cut between parts them without an error."""
    table = dataset.load(masked).table
    masks_of = localisation.masks_of(masked)
    eyes = table[table["split"] != "train"]
    maps = np.stack([_of(masks_of(name)["EX"]) for name in eyes["image_id"]])
    made = common_maps.CommonMaps(
        maps[:, None], np.array(["lesion"]), eyes["image_id"].to_numpy(str), eyes["split"].to_numpy(str)
    )
    patients = dict(zip(table["image_id"], table["patient_id"]))
    cut, count = one.fit_cut(made, masks_of, patients)
    assert 0.3 < cut <= 0.75
    assert count == (eyes["split"] == "validation").sum()
    assert one.fit_cut(made, masks_of, {}) == (pytest.approx(float("nan"), nan_ok=True), 0)


def _of(mask: np.ndarray) -> np.ndarray:
    cells = mask.reshape(32, 3, 32, 3).max((1, 3))
    ramp = np.linspace(0, 0.3, 32)[None, :].repeat(32, 0)
    return np.where(cells > 0.4, 0.75, ramp)


def test_what_is_unlike_the_training_photographs_is_named():
    seen = pd.DataFrame({"brightness": np.linspace(50, 150, 101), "contrast": np.full(101, 20.0)})
    assert one.outside_range({"brightness": 100, "contrast": 20}, seen, list(seen)) == []
    [clause] = one.outside_range({"brightness": 211, "contrast": 20}, seen, list(seen))
    assert clause == "brightness 211 is above 99% of them (51 to 149)"
    [clause] = one.outside_range({"brightness": 100, "contrast": 3}, seen, list(seen))
    assert clause.startswith("contrast 3 is below 99% of them")
