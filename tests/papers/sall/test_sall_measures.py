"""Measures and tables of notebook 13 on fabricated predictions, against other ways to the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sall_eyes
import torch
from sklearn.metrics import roc_auc_score

from drstudy.core.names import PROBABILITIES
from drstudy.evaluation import calibration, metrics, statistics
from drstudy.papers.sall import figures, labels, maps, measures, params, runs, tables
from drstudy.papers.sall.model import Student
from drstudy.papers.sall.params import DISEASES

CLASSES = {"dr": 5, "amd": 4}


def predictions(
    settings=("single", "hard", "soft", "shuffled", "smoothing", "full"), seeds=3, fractions=(0.5, 1.0)
):
    """Fabricated predictions; a later setting is a little better."""
    rows = []
    for disease, count in CLASSES.items():
        random = np.random.default_rng(count)
        eyes = pd.DataFrame(
            {"image_id": [f"{i:03d}" for i in range(90)], "patient_id": [f"p{i // 2}" for i in range(90)]}
        )
        grade = random.integers(0, count, 90)
        for fraction in fractions:
            for place, setting in enumerate(settings):
                for seed in range(seeds):
                    noise = np.random.default_rng([place, seed, count]).normal(0, 1, (90, count))
                    logits = noise + (0.5 + 0.3 * place) * np.eye(count)[grade]
                    p = np.zeros((90, 5))
                    p[:, :count] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                    split = np.where(np.arange(90) < 30, "validation", "test")
                    about = {"setting": setting, "seed": seed, "fraction": fraction, "disease": disease}
                    rows.append(
                        eyes.assign(split=split, grade=grade, **about, **dict(zip(PROBABILITIES, p.T)))
                    )
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def tests():
    return measures.both_scales(predictions(), CLASSES)


@pytest.fixture(scope="module")
def networks(tests):
    return measures.drawn(tests[0], 50, 0, 15)


def test_every_value_is_that_of_the_shared_measures(tests, networks):
    """On the data themselves and on the resamples: the house's metrics, and a plain loop over one resample."""
    frame = tests[0]
    part = frame[(frame["setting"] == "soft") & (frame["seed"] == 1) & (frame["fraction"] == 1)]
    for disease in DISEASES:
        rows = part[(part["disease"] == disease) & (part["scale"] == measures.RAW)].sort_values("image_id")
        found = networks[1.0, "soft", disease, measures.RAW, 1].values
        wanted = metrics.evaluate(rows)
        for name in ("accuracy", "qwk", "macro_auc", "nll", "brier"):
            assert found[name][0] == pytest.approx(wanted[name], abs=1e-12)
        top, right = calibration.confidence(rows)
        assert found["ece"][0] == pytest.approx(calibration.ece(top, right), abs=1e-12)
        assert found["ece_adaptive"][0] == pytest.approx(
            calibration.ece(top, right, adaptive=True), abs=1e-12
        )
        weights = statistics.image_weights(rows["patient_id"], 50, 0)
        again = rows.iloc[np.repeat(np.arange(len(rows)), weights[7])]
        again = again.assign(image_id=[f"{i}" for i in range(len(again))])
        drawn = metrics.evaluate(again)
        for name in ("accuracy", "qwk", "macro_auc", "nll", "brier"):
            assert found[name][7] == pytest.approx(drawn[name], abs=1e-12)


def test_area_against_scikit_learn_with_ties():
    random = np.random.default_rng(0)
    score, positive = random.integers(0, 6, 60) / 5, random.random(60) < 0.4
    weights = random.integers(0, 3, (4, 60))
    for row, value in zip(weights, metrics.weighted_auc(positive, score, weights)):
        assert value == pytest.approx(roc_auc_score(positive, score, sample_weight=row), abs=1e-12)


def test_gains_are_paired_and_both_spreads_stand_apart(networks):
    table = measures.gains(networks)
    one = table[(table["setting"] == "full") & (table["disease"] == "dr") & (table["fraction"] == 1)]
    one = one[(one["scale"] == measures.RAW) & (one["metric"] == "accuracy")].iloc[0]
    each = [
        networks[1.0, "full", "dr", measures.RAW, seed].values["accuracy"]
        - networks[1.0, "single", "dr", measures.RAW, seed].values["accuracy"]
        for seed in range(3)
    ]
    points = [draws[0] for draws in each]
    assert one["value"] == pytest.approx(np.mean(points))
    assert one["seed_sd"] == pytest.approx(np.std(points, ddof=1))
    assert (one["seed_lo"], one["seed_hi"]) == pytest.approx((min(points), max(points)))
    lo, hi = np.percentile(np.mean(each, axis=0)[1:], [2.5, 97.5])
    assert (one["lo"], one["hi"]) == pytest.approx((lo, hi))
    assert "single" not in set(table["setting"])


def test_temperature_of_four_classes_takes_no_part_of_the_fifth():
    """Probabilities that are too sure by T = 2 are found out, and the absent class keeps 0 at any temperature."""
    random = np.random.default_rng(2)
    logits = random.normal(0, 1.5, (4000, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    grade = (p.cumsum(1) < random.random(4000)[:, None]).sum(1)
    sharp = np.exp(2 * logits) / np.exp(2 * logits).sum(1, keepdims=True)
    frame = pd.DataFrame({"grade": grade, **dict(zip(PROBABILITIES, np.c_[sharp, np.zeros(4000)].T))})
    found = calibration.fit_temperature(frame, 4)
    assert found == pytest.approx(2, abs=0.15)
    scaled = calibration.scaled(frame, 50.0, 4)
    assert (scaled["p4"] == 0).all()
    assert np.allclose(scaled[PROBABILITIES].sum(axis=1), 1)
    assert np.allclose(calibration.scaled(frame, 2.0, 4)[PROBABILITIES[:4]], p, atol=1e-9)


def test_temperature_is_fitted_on_validation_alone():
    whole = predictions(settings=("single",), seeds=1, fractions=(1.0,))
    other = whole.copy()
    test = other["split"] == "test"
    other.loc[test, "grade"] = (other.loc[test, "grade"] + 1) % 4
    assert measures.both_scales(whole, CLASSES)[1].equals(measures.both_scales(other, CLASSES)[1])


def test_claims_have_a_row_for_each_quantity_of_the_ledger(networks):
    import yaml

    from drstudy.core import paths

    found = tables.claims(networks, measures.gains(networks), pd.DataFrame(), networks)
    ledger = yaml.safe_load((paths.root() / "drstudy/papers/sall/claims.yaml").read_text())
    wanted = {one["where"]["quantity"] for claim in ledger for one in claim["evidence"]}
    assert wanted == set(found["quantity"])
    by = found.set_index("quantity")
    assert by.loc[[name for name in by.index if name.startswith("heat")], "value"].isna().all(), (
        "no masks, no number"
    )
    base = np.mean(
        [networks[1.0, "single", "dr", measures.RAW, seed].values["accuracy"][0] for seed in range(3)]
    )
    points = by.loc["accuracy gain, dr, points", "value"]
    assert by.loc["accuracy gain, dr, relative", "value"] == pytest.approx(points / base)


def test_claims_without_half_of_the_labels_have_no_number_there():
    found, _ = measures.both_scales(predictions(fractions=(0.25, 1.0)), CLASSES)
    drawn = measures.drawn(found, 20, 0, 15)
    by = tables.claims(drawn, measures.gains(drawn), pd.DataFrame(), drawn).set_index("quantity")
    assert np.isnan(by.loc["half of the labels less all labels, dr", "value"])
    assert np.isfinite(by.loc["accuracy gain at the smallest fraction, dr", "value"])


def test_claims_of_fewer_data_have_no_number_where_all_labels_are_the_smallest_share():
    found, _ = measures.both_scales(predictions(fractions=(1.0,)), CLASSES)
    drawn = measures.drawn(found, 20, 0, 15)
    by = tables.claims(drawn, measures.gains(drawn), pd.DataFrame(), drawn).set_index("quantity")
    for disease in DISEASES:
        assert np.isnan(
            by.loc[f"accuracy gain at the smallest fraction, {disease}", ["value", "lo", "hi"]]
        ).all()
        assert np.isfinite(by.loc[f"accuracy gain, {disease}, points", "value"])


def test_tables_and_figures_show_every_setting(tests, networks):
    scores, gains = measures.scores(networks), measures.gains(networks)
    shown = tables.display_gains(scores, gains, gains)
    assert len(shown) == 2 * 6
    assert (shown["gain by seed"] != "").sum() == 2 * 5
    assert len(tables.display_calibration(scores)) == 2 * 6 * 2
    curves = measures.reliability(tests[0], figures.CURVES, 15)
    for figure in (
        figures.gains(gains, measures.gains_by_seed(networks)),
        figures.fractions(scores),
        figures.reliability(curves),
    ):
        assert [axis.get_title() for axis in figure.axes[:2]] == ["DR", "AMD"]


# --- what needs features ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    p = params.Sall(
        epochs=2,
        steps=3,
        batch_size=8,
        width=8,
        seeds=2,
        folds=2,
        fractions=(0.5, 1.0),
        settings=("single", "soft", "full"),
        resamples=20,
    )
    table = sall_eyes.truth()
    feed = sall_eyes.feed(table, p.recipe("single", 0))
    origin = labels.assign(table, 0)
    return p, table, feed, origin, runs.train_all(feed, table, origin, p)


def test_all_trainings_are_there_and_repeat(small):
    p, table, feed, origin, results = small
    keys = results.predictions.groupby(["setting", "seed", "fraction", "disease"]).size()
    assert len(keys) == 3 * 2 * 2 * 2
    test = results.predictions[results.predictions["split"] == "test"]
    assert test.groupby(["setting", "seed", "fraction", "disease"]).size().nunique() == 1
    again = runs.train_all(feed, table, origin, p)
    pd.testing.assert_frame_equal(results.predictions, again.predictions)
    costs = measures.costs(results.costs).set_index("setting")
    assert set(costs.index) == {"teachers", "single", "soft", "full"}
    assert costs.loc[["single", "soft", "full"], "epoch"].between(1, p.epochs).all()
    assert np.isnan(costs.loc["teachers", "epoch"])
    assert costs.loc["teachers", "seconds"] > costs.loc["single", "seconds"], (
        "single task is among the teachers"
    )


def test_teacher_quality_counts_hidden_photographs_only(small):
    _p, table, feed, origin, results = small
    shown = labels.shown(table, origin)
    found = measures.teacher_quality(feed, table, shown, {"seed 0": results.teachers[0]}, 20, 0)
    seen = shown.set_index("image_id").loc[feed.train["image_id"]]
    for disease in DISEASES:
        part = found[(found["disease"] == disease) & (found["metric"] == "accuracy")].set_index("kind")
        assert part.loc["other collection", "photographs"] == seen[disease].isna().sum()
        assert part.loc["own, out of fold", "photographs"] == seen[disease].notna().sum()
    counted = measures.teacher_confusion(feed, table, shown, results.teachers[0])
    by = counted.groupby("disease")["photographs"].sum()
    assert all(by[name] == seen[name].isna().sum() for name in DISEASES)


def test_a_probe_finds_the_collection_where_features_show_it(small):
    _p, table, feed, origin, results = small
    found = measures.origin_probe(feed, origin, table, results.students, 20, 0).set_index("setting")
    assert set(found.index) == {"soft", "full"}
    blind = {("soft", 0): dict.fromkeys(DISEASES, Student(feed.width, 8, CLASSES))}
    with torch.no_grad():
        blind["soft", 0]["dr"].shared.weight.zero_()
    assert measures.origin_probe(feed, origin, table, blind, 20, 0)["value"].item() == pytest.approx(0.5)


def test_a_map_is_the_gradient_of_the_logit():
    """Against automatic differentiation through pooling, standardisation, the shared layer and the head."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.rand(3, 6, 4, 5, generator=generator, requires_grad=True)
    mean, spread = torch.rand(6, generator=generator), torch.rand(6, generator=generator) + 0.5
    student = Student(6, 8, CLASSES, seed=4).eval()
    logits = student((layer.mean((2, 3)) - mean) / spread)["amd"]
    target = 1 + logits[:, 1:].argmax(1)
    gradient = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), layer)[0]
    wanted = (gradient.mean((2, 3), keepdim=True) * layer).sum(1).clamp(min=0)
    found = maps.evidence(student, "amd", layer.detach(), mean, spread)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert found.max() > 0


def test_maps_of_dr_are_measured_only_on_eyes_with_dr(coloured_eyes):
    """Both test eyes have bleeding and drusen in their masks; the second has no DR, so that its bleeding is a sign of AMD."""
    data = coloured_eyes(train=1, validation=1, test=2)
    eyes = data.part("test")
    size = data.images.shape[1]
    mask = np.zeros((size, size), np.float32)
    mask[:8, :8] = 1
    truth = pd.DataFrame({"image_id": eyes["image_id"], "dr": [2.0, 0.0], "amd": [0.0, 2.0]})
    heat = np.random.default_rng(0).random((2, 4, 4))
    found = maps.measure(
        {("single", 0, disease): heat for disease in DISEASES},
        data,
        eyes,
        truth,
        lambda _: {"HE": mask, "DRUSEN": mask, "FOV": np.ones((size, size), bool)},
        0,
    )
    of = {disease: set(part["image_id"]) for disease, part in found.groupby("disease")}
    assert of == {"dr": {eyes["image_id"].iloc[0]}, "amd": set(eyes["image_id"])}
    assert found.loc[found["disease"] == "amd", "aupr"].isna().all()
    assert found.loc[found["disease"] == "dr", "aupr"].notna().all()
