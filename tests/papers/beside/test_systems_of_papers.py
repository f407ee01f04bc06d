"""What each paper's notebook leaves for the comparison, from made-up scores and maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from drstudy.papers.glam import system as glam
from drstudy.papers.glam.params import REFERABLE, Glam
from drstudy.papers.lesions import system as lesions
from drstudy.papers.lesions.maps import LabelMaps
from drstudy.papers.ram import system as ram


@dataclass
class Network:
    """A trained network of notebook 11, without its weights."""

    network: str
    size: int
    scores: pd.DataFrame | None = None


def test_ram_compares_the_backbone_at_its_largest_size():
    trained = [
        Network("ram_net5", 256),
        Network("baseline_net5", 512),
        Network("lite", 128),
        Network("lite", 256),
    ]
    assert ram.chosen(trained, "lite") is trained[3]
    assert ram.chosen(trained[:2], "") is trained[0], "a baseline has no map"


def test_ram_cuts_its_score_where_validation_says():
    """Scores are twice the grade: rounding would call most eyes too high, cuts fitted on validation none."""
    grade = np.tile(np.arange(5), 8)
    rows = pd.DataFrame({"image_id": [f"e{k}" for k in range(40)], "grade": grade, "score": 2.0 * grade})
    rows["patient_id"], rows["split"] = rows["image_id"], np.repeat(["validation", "test"], 20)
    found = ram.predictions(Network("lite", 256, rows))
    assert found["predicted"].tolist() == grade.tolist()
    assert found["score"].tolist() == rows["score"].tolist()
    assert found["probability"].isna().all()


def said() -> pd.DataFrame:
    about = {"image_id": ["a", "b"], "patient_id": ["a", "b"], "split": "test", "grade": [1, 2]}
    own = pd.DataFrame(
        about | {"network": "lite", "p_MA": [0.9, 0.8], "p_HE": [0.1, 0.6], "p_EX": [0.2, 0.5]}
    )
    return pd.concat([own, own.assign(network="other", p_HE=0.0)], ignore_index=True)


def test_lesion_labels_beyond_microaneurysms_make_the_score():
    found = lesions.predictions(said(), "lite", ["MA", "HE", "EX"], "max")
    assert found["score"].tolist() == [0.2, 0.6]
    assert found["probability"].tolist() == [0.2, 0.6]
    assert found["predicted"].isna().all()
    noisy = lesions.predictions(said(), "lite", ["MA", "HE", "EX"], "noisy_or")
    assert noisy["score"].tolist() == pytest.approx([1 - 0.9 * 0.8, 1 - 0.4 * 0.5])


def test_maps_of_lesions_follow_the_order_of_the_eyes():
    parts = [
        LabelMaps(np.full((1, 2, 3, 3), value, np.float32), np.zeros((1, 2), np.float32), np.array([name]))
        for name, value in (("a", 1.0), ("b", 2.0))
    ]
    found = lesions.maps(parts, pd.DataFrame({"image_id": ["b", "a"]}), ["MA", "HE"])
    assert list(found) == ["MA", "HE", "lesion"]
    assert found["HE"][:, 0, 0].tolist() == [2.0, 1.0]
    assert found["lesion"][:, 0, 0].tolist() == [2.0, 1.0], "two maps, each with a probability of a half"


def test_glam_says_referable_by_the_lesions_beyond_microaneurysms_or_by_the_label_itself():
    assert glam.referable_codes(Glam()) == ["HE", "EX", "SE", "NV"]
    own = Glam(codes=(REFERABLE,), labels="grade", mask_epochs=0)
    assert glam.referable_codes(own) == [REFERABLE]
