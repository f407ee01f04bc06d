"""What classifiers say of generated pictures, on features and pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pictures_made import eyes
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from untrained import network

from drstudy.core.devices import Compute
from drstudy.papers.gan import agreement, arms, encoders, heads
from drstudy.papers.gan.heads import HeadRecipe, Known
from drstudy.training import transforms

CPU = Compute("cpu", "fp32")


def clouds(shift, count=60, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 8)), random.normal(size=(count, 8)) + shift


def patients(count=60):
    return np.array([f"p{i // 2}" for i in range(count)]), np.array([f"generated-{i}" for i in range(count)])


def test_what_differs_is_told_apart_and_what_does_not_is_not():
    apart = agreement.real_or_generated(*clouds(2.0), patients(), 5, 200, 0)
    assert apart["value"] > 0.98
    assert apart["pictures"] == 120
    alike = agreement.real_or_generated(*clouds(0.0), patients(), 5, 200, 0)
    assert alike["lo"] < 0.5 < alike["hi"]


def test_a_patient_is_never_on_both_sides():
    """Features say only whose eye it is. With both eyes of a patient in one fold nothing can be learnt."""
    codes = np.repeat(np.random.default_rng(0).normal(size=(60, 8)) * 5, 2, 0)
    names = np.array([f"p{i // 2}" for i in range(120)])
    found = agreement.real_or_generated(codes[::1][:60], codes[60:], (names[:60], names[60:]), 5, 50, 0)
    assert found["value"] < 0.75
    with pytest.raises(ValueError, match="FOLDS is 40, but the smaller set has 30 patients"):
        agreement.real_or_generated(codes[:60], codes[60:], (names[:60], names[60:]), 40, 50, 0)


def test_the_area_is_that_of_an_independent_library(monkeypatch):
    seen = {}
    measures = agreement.multilabel.measures

    def spy(positive, score, called, weights):
        seen.update(positive=positive, score=score)
        return measures(positive, score, called, weights)

    monkeypatch.setattr(agreement.multilabel, "measures", spy)
    found = agreement.real_or_generated(*clouds(0.5), patients(), 3, 20, 0)
    assert found["value"] == pytest.approx(roc_auc_score(seen["positive"], seen["score"]), abs=1e-12)


def test_heads_taught_by_generated_pictures():
    """Generated pictures with the right grades teach as well as real ones; with exchanged grades they teach nothing."""
    centres = 3 * np.eye(5, 8, dtype=np.float32)

    def cloud(seed, count=20):
        grades = np.repeat(np.arange(5), count)
        drawn = centres[grades] + np.random.default_rng(seed).normal(size=(5 * count, 8))
        return Known(drawn.astype(np.float32), grades)

    train, test = cloud(0), cloud(1)
    table = agreement.pd.DataFrame(
        {
            "image_id": [str(i) for i in range(100)],
            "patient_id": [str(i // 2) for i in range(100)],
            "split": "test",
            "grade": test.grades,
        }
    )
    parts = {"train": train, "validation": cloud(2), "small": train, "augmented": train}
    source = np.arange(len(train))
    p = HeadRecipe(steps=80, batch_size=32, learning_rate=0.03)
    for exchanged in (False, True):
        fakes = cloud(3, 40)
        if exchanged:
            fakes = Known(fakes.features, (fakes.grades + 2) % 5)
        none = np.empty(0)
        found = arms.Material(
            **parts,
            source=source,
            fakes=fakes,
            test=test,
            table=table,
            held=table[:0],
            middle=none,
            scale=none,
        )
        predictions = agreement.train_on_generated(found, p, 2, CPU)
        scores = agreement.taught_scores(predictions, 50, 0).set_index(["taught_by", "metric"])
        assert scores.loc[("real", "qwk"), "value"] > 0.8
        assert np.isnan(scores.loc[("real_small", "qwk"), "difference"])
        gap = scores.loc[("generated", "qwk")]
        assert (gap["difference_hi"] < 0) == exchanged
        assert gap["difference"] == pytest.approx(gap["value"] - scores.loc[("real_small", "qwk"), "value"])


def test_agreement_by_grade():
    table = agreement.pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "patient_id": list("abcdef"),
            "split": "all",
            "grade": [0, 0, 1, 1, 1, 3],
        }
    )
    predicted = np.array([0, 1, 1, 1, 2, 0])
    said = table.assign(**{f"p{k}": (predicted == k).astype(float) for k in range(5)})
    found = agreement.by_grade({"generated": said}, 50, 0).set_index("grade")
    assert found.loc["0", "value"] == 0.5
    assert found.loc["1", "value"] == pytest.approx(2 / 3)
    assert found.loc["3", "value"] == 0
    assert np.isnan(found.loc["4", "value"])
    assert found["pictures"].to_dict() == {"0": 2, "1": 3, "2": 0, "3": 1, "4": 0, "all": 6}
    counts = agreement.confusion({"generated": said})["generated"]
    assert counts[1].tolist() == [0, 2, 1, 0, 0]


def test_kappa_is_on_one_mix_of_grades_and_shares_on_all_pictures():
    """Grade 0 is always right and grade 4 never; kappa hangs on how many there are of each."""

    def said(zeros, fours):
        grades = np.repeat([0, 4], [zeros, fours])
        predicted = np.where(
            np.arange(zeros + fours) % 2, 0, grades
        )  # every second picture is predicted as 0
        names = [f"{i:03d}" for i in range(len(grades))]
        table = agreement.pd.DataFrame(
            {"image_id": names, "patient_id": names, "split": "all", "grade": grades}
        )
        return table.assign(**{f"p{k}": (predicted == k).astype(float) for k in range(5)})

    real, made = said(40, 10), said(40, 200)
    possible = {0: "yes", 1: "no", 2: "yes", 3: "not measurable", 4: "no"}
    mix = np.array([40, 0, 0, 0, 10])
    found = agreement.by_grade({"real": real, "generated": made}, 50, 0, mix, possible)
    rows = found.set_index(["set", "grade"])
    assert rows.loc[("generated", "4"), ["pictures", "value"]].tolist() == [200, 0.5]
    assert rows.loc[("generated", "all"), "pictures"] == rows.loc[("real", "all"), "pictures"] == 50
    drawn = made.iloc[agreement.pictures.by_counts(made["grade"].to_numpy(), mix, np.random.default_rng(0))]
    expected = cohen_kappa_score(
        drawn["grade"], drawn[[f"p{k}" for k in range(5)]].to_numpy().argmax(1), weights="quadratic"
    )
    assert rows.loc[("generated", "all"), "value"] == pytest.approx(expected)
    whole = agreement.by_grade({"real": real, "generated": made}, 50, 0).set_index(["set", "grade"])
    assert whole.loc[("real", "all"), "value"] == rows.loc[("real", "all"), "value"]
    assert whole.loc[("generated", "all"), "value"] != rows.loc[("generated", "all"), "value"]
    assert rows.loc[("real", "all"), "generable"] == ""
    shown = agreement.display(found)
    assert shown.columns.tolist() == ["generable", "real", "generated"]
    assert shown["generable"].tolist() == ["yes", "no", "yes", "not measurable", "no", ""]
    assert shown.index.tolist() == ["0", "1", "2", "3", "4", "all (QWK)"]
    assert shown.loc["4", "generated"].startswith("0.50 [")
    with pytest.raises(ValueError, match="3 pictures of grade 1 are needed"):
        agreement.by_grade({"real": real}, 50, 0, np.array([1, 3, 0, 0, 0]))


@pytest.mark.parametrize("side", [0, 1])
def test_no_interval_of_few_patients(side):
    names = list(patients())
    names[side] = np.array([f"few-{i % 4}" for i in range(60)])
    found = agreement.real_or_generated(*clouds(0.0), tuple(names), 3, 20, 0)
    assert np.isfinite(found["value"])
    assert np.isnan([found["lo"], found["hi"]]).all()


def test_the_grading_network_looks_at_pictures_of_any_size():
    net = network("resnet18")
    net.input_size = 64
    some = eyes(6, 0)
    said = agreement.graded(net, some, CPU)
    assert said["grade"].tolist() == some.grades.tolist()
    np.testing.assert_allclose(said[[f"p{k}" for k in range(5)]].sum(axis=1), 1)
    encoder = encoders.graded(net, CPU)
    assert (encoder.name, encoder.input_size) == ("graded", 64)
    with torch.no_grad(), net.record("layer4") as kept:
        net(transforms.to_input(some.images, 64, net.mean, net.std))
    np.testing.assert_allclose(
        encoder.features(some), kept["layer4"].mean((2, 3)).numpy(), rtol=1e-3, atol=1e-4
    )
    maps = agreement.heat(net, some, CPU)
    assert maps.shape == (6, 16, 16)
    assert (maps >= 0).all()
    assert maps.max() > 0


def test_the_same_head_for_the_same_seed():
    features = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    known = Known(features, np.arange(20) % 5)
    first, second = (heads.fit(known, known, HeadRecipe(steps=5, seed=1), CPU).weight for _ in range(2))
    assert first.equal(second)
