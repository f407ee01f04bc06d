"""The choice of the epoch by masks of validation eyes."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from drstudy.papers.glam import measuring
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


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"N_PATIENTS": 9, "IMAGE_SIZE": 64}, True),
        ({"SEED": 1}, False),
        ({"SOURCE": "idrid"}, False),
    ],
)
def test_patients_of_other_photographs_had_no_say_in_the_cuts(tmp_path, monkeypatch, changes, counts):
    given = {"SOURCE": "phantom", "DATA_ROOT": "", "SEED": 0, "DISTRIBUTION": "mild", "DIFFICULTY": 0.5}
    given |= {"N_PATIENTS": 3, "IMAGE_SIZE": 32}
    audit = SimpleNamespace(params=given)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/cuts.csv").write_text("map,region,cut,dice,eyes\nglobal,MA,0.5,0.4,3\n")
    (tmp_path / "tables/cut_patients.csv").write_text("patient_id\np0001\n")
    run = SimpleNamespace(params={"AUDIT": "results/a"}, path=lambda name: tmp_path / name)
    monkeypatch.setattr(measuring.records, "load", lambda folder: audit)
    found = measuring.load_cuts(run, SimpleNamespace(params=given | changes))
    assert found.patients == (frozenset({"p0001"}) if counts else frozenset())
    assert found.table["cut"].tolist() == [0.5]
