"""What each paper's notebook leaves for the comparison, from made-up scores and maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sall_eyes
import torch
from untrained import network

from drstudy.evaluation import common
from drstudy.papers.gan import system as gan
from drstudy.papers.gan.arms import Material
from drstudy.papers.gan.encoders import Encoder
from drstudy.papers.gan.heads import Known
from drstudy.papers.glam import system as glam
from drstudy.papers.glam.params import REFERABLE, Glam
from drstudy.papers.lesions import system as lesions
from drstudy.papers.lesions.maps import LabelMaps
from drstudy.papers.ram import system as ram
from drstudy.papers.sall import feed as sall_feed
from drstudy.papers.sall import labels as sall_labels
from drstudy.papers.sall import params as sall_params
from drstudy.papers.sall import system as sall
from drstudy.papers.sall.model import Student
from drstudy.training import networks


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


# --- SALL ------------------------------------------------------------------------------------------


def audited(folder: str, **changes) -> SimpleNamespace:
    return SimpleNamespace(folder=Path(folder), params={"SOURCE": "phantom", "SEED": 0} | changes)


def test_sall_refuses_synthetic_people_that_it_learnt_from(coloured_eyes):
    data = coloured_eyes(train=8, validation=5, test=6)
    with pytest.raises(sall_labels.LabelError, match="same SEED, 0"):
        sall.eyes(data, audited("a"), audited("b"))
    for learnt in (audited("b", SEED=1), audited("b", SOURCE="odir"), audited("a")):
        found = sall.eyes(data, audited("a"), learnt)
        assert found["split"].value_counts().to_dict() == {"test": 6, "validation": 4}, (
            "one patient is in both"
        )


def test_a_sall_student_grades_photographs_of_another_set_as_it_grades_its_own(coloured_eyes):
    """Its own validation and test photographs, given as another set, get the probabilities that its stored features give."""
    data = coloured_eyes(train=6, validation=3, test=4)
    p = sall_params.Sall(input_size=64, batch_size=4, width=8, weights="none")
    recipe = p.recipe("single", 0)
    feed, _ = sall_feed.open_pooled(networks.build(recipe, data, sall_eyes.CPU), data, recipe, sall_eyes.CPU)
    student = Student(feed.width, 8, {"dr": 5, "amd": 4}, seed=3).eval()
    costs = pd.DataFrame({"setting": ["teachers", "full"], "seed": 0, "fraction": 1.0, "seconds": [2.0, 3.0]})
    results = SimpleNamespace(students={("full", 0): {"dr": student}}, costs=costs)
    one = sall.Student(feed, results, p, data)
    eyes = common.eyes(data.part("test"), data.part("validation"))
    found, maps = one.leave(eyes)
    with torch.no_grad():
        wanted = student(feed.still)["dr"].double().softmax(1).numpy()
    order = feed.clean["image_id"].tolist()
    wanted = wanted[[order.index(name) for name in found["image_id"]]]
    assert found["probability"].to_numpy() == pytest.approx(wanted[:, 2:].sum(1), abs=1e-5)
    assert found["predicted"].tolist() == wanted.argmax(1).tolist()
    assert maps["lesion"].shape[0] == len(eyes)
    assert (maps["lesion"] >= 0).all()
    assert one.costs(eyes)["seconds_to_train"] == pytest.approx(5 + feed.seconds_prepare)


# --- GAN -------------------------------------------------------------------------------------------


def test_the_gan_classifier_has_maps_whose_mean_is_its_score(coloured_eyes):
    """Before the ReLU a map sums to the score of its grade without the constant, so weights and scale are in the right places."""
    data = coloured_eyes(train=12, validation=6, test=7)
    encoder = Encoder("lite0", network("efficientnet_lite0"), 64, sall_eyes.CPU)
    raw = {
        split: encoder.features(data.images[data.part(split)["row"].to_numpy()])
        for split in ("train", "validation", "test")
    }
    middle, scale = raw["train"].mean(0), raw["train"].std(0) + 0.1
    known = {
        s: Known(((f - middle) / scale).astype(np.float32), data.part(s)["grade"].to_numpy())
        for s, f in raw.items()
    }
    tables = {s: data.part(s)[common.ABOUT] for s in raw}
    nothing = {name: known["train"] for name in ("small", "augmented", "fakes")}
    material = Material(
        **known,
        **nothing,
        source=np.arange(12),
        table=tables["test"],
        held=tables["validation"],
        middle=middle,
        scale=scale,
    )
    head = torch.nn.Linear(raw["train"].shape[1], 5)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    found = gan.predictions(material, head)
    assert found["split"].value_counts().to_dict() == {"test": 7, "validation": 6}
    eyes = common.eyes(data.part("test"), data.part("validation"))
    one = gan.Classifier(material, head, encoder, data)
    heat = one.maps(eyes)["lesion"]
    assert (heat >= 0).all()
    assert heat.max() > 0
    assert len(heat) == len(eyes)
    place = {name: k for k, name in enumerate(pd.concat([tables["test"], tables["validation"]])["image_id"])}
    features = np.concatenate([known["test"].features, known["validation"].features])
    with torch.no_grad():
        logits = head(torch.from_numpy(features[[place[name] for name in eyes["image_id"]]]))
        target = 1 + logits[:, 1:].argmax(1)
        constant = head.bias[target] - head.weight[target] @ torch.from_numpy(middle / scale).float()
        own = logits.gather(1, target[:, None])[:, 0] - constant
    # maps are clamped at 0, so they sum to at least the score, and to just it where nothing is clamped
    assert (heat.sum((1, 2)) >= own.numpy() - 1e-3 * abs(own.numpy()) - 1e-3).all()
    assert (
        one.costs({}, "", eyes)["parameters_system"]
        == sum(q.numel() for q in encoder.net.parameters()) + 5 * 1281
    )
