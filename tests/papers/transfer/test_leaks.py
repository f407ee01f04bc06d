"""Folds that leak, on purpose: dealt as they say, counted by hand, and seen where there is nothing else to see."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from fabricated import eyes

from drstudy.core.devices import Compute
from drstudy.data import splits
from drstudy.data.dataset import Dataset
from drstudy.papers.transfer import leaks, params, training
from drstudy.training import features, networks

CPU = Compute("cpu", "fp32")
FOLDS = 4


@pytest.fixture(scope="module")
def images() -> pd.DataFrame:
    return eyes(200, shares=(0.4, 0.15, 0.22, 0.13, 0.1))


def dealt(images: pd.DataFrame, way: str, **more) -> pd.DataFrame:
    return training.deal(images, way, FOLDS, 3, **more)


@pytest.mark.parametrize("way", [training.HONEST, training.AGAIN])
def test_honest_folds_keep_patients_whole_and_test_each_image_once(images, way):
    found = dealt(images, way)
    assert found["image_id"].tolist() == images["image_id"].tolist()
    assert found.groupby("patient_id")["fold"].nunique().max() == 1
    assert leaks.exposure(found) == {"rows": len(images), "copy": 0, "duplicate": 0, "fellow": 0}
    assert sorted(found["fold"].unique()) == list(range(FOLDS))


def test_again_is_another_deal(images):
    assert (dealt(images, training.HONEST)["fold"] != dealt(images, training.AGAIN)["fold"]).mean() > 0.5


def test_honest_folds_keep_duplicates_together(images):
    first, other = images["image_id"].iloc[[0, -1]]
    pairs = pd.DataFrame({"image_id_a": [first], "image_id_b": [other]})
    for way, expected in ((training.HONEST, {0}), (training.BY_IMAGE, {0, 2})):
        torn = {
            leaks.exposure(training.deal(images, way, FOLDS, seed, pairs), pairs)["duplicate"]
            for seed in range(12)
        }
        assert torn == expected


def test_by_image_tears_patients_as_often_as_chance_says(images):
    """An eye with a fellow escapes if both fall into one fold: about one in four."""
    found = dealt(images, training.BY_IMAGE)
    assert found["image_id"].tolist() == images["image_id"].tolist()
    exposed = leaks.exposure(found)
    paired = images.groupby("patient_id")["image_id"].transform("size") > 1
    expected, spread = 0.75 * paired.sum(), 2 * np.sqrt(0.75 * 0.25 * paired.sum() / 2)
    assert exposed["copy"] == 0
    assert abs(exposed["fellow"] - expected) < 4 * spread


def test_by_row_draws_rare_grades_more_often_and_spreads_their_copies(images):
    found = dealt(images, training.BY_ROW)
    assert len(found) == len(images)
    assert found["image_id"].tolist() == images["image_id"].iloc[found["image"]].tolist()
    shares = found["grade"].value_counts(normalize=True)
    assert shares.min() > 0.12, "balanced: a fifth each, give or take the draw"
    times = found.groupby("grade")["image"].agg(lambda rows: len(rows) / rows.nunique())
    assert times[4] > times[0]
    exposed = leaks.exposure(found)
    assert exposed["copy"] > 0.4 * len(found)
    rare = found[found["grade"] == 4]
    assert leaks.exposure(found.assign(fold=found["fold"] * 0)) == exposed | {"copy": 0, "fellow": 0}
    assert rare.groupby("image_id")["fold"].nunique().max() > 1


def test_exposure_by_hand():
    rows = [
        ("a1", "a", 0),
        ("a2", "a", 1),
        ("b1", "b", 0),
        ("b1", "b", 1),
        ("c1", "c", 0),
        ("d1", "d", 1),
        ("e1", "e", 1),
    ]
    found = pd.DataFrame(rows, columns=["image_id", "patient_id", "fold"])
    pairs = pd.DataFrame({"image_id_a": ["c1"], "image_id_b": ["d1"]})
    assert leaks.exposure(found, pairs) == {"rows": 7, "copy": 2, "duplicate": 2, "fellow": 2}
    assert leaks.exposure(found) == {"rows": 7, "copy": 2, "duplicate": 0, "fellow": 2}


def test_unknown_way_is_refused(images):
    with pytest.raises(ValueError, match="no way 'eye' to make folds; there are patient"):
        training.deal(images, "eye", FOLDS, 0)


@pytest.fixture(scope="module")
def noise() -> Dataset:
    """Rings of random colours, which look alike when turned, with grades by lot: only memory can grade them."""
    random = np.random.default_rng(0)
    patients = np.repeat([f"{i:03d}" for i in range(45)], 2)
    grades = np.repeat(random.permutation(np.arange(45) % 5), 2)
    y, x = np.mgrid[:64, :64] - 31.5
    ring = np.minimum(np.hypot(x, y) // 8, 4).astype(int)
    rings = random.integers(0, 256, (90, 5, 3), dtype=np.uint8)
    table = pd.DataFrame(
        {
            "image_id": [f"{p}_{e}" for p, e in zip(patients, "lr" * 45)],
            "patient_id": patients,
            "grade": pd.array(grades, "Int64"),
            "split": np.repeat(["train", "validation", "test"], [60, 20, 10]),
            "row": np.arange(90),
        }
    )
    return Dataset(rings[:, ring], table, "noise")


def recipe(**changes) -> params.Oversampling:
    given = {"input_size": 64, "batch_size": 10, "views": 2, "epochs": 30, "learning_rate": 3e-3}
    return params.Oversampling(**(given | changes))


def test_without_test_has_every_training_image_as_it_is_and_no_test_image(noise):
    found = noise.without_test()
    pd.testing.assert_frame_equal(found.part("train"), noise.part("train"))
    assert found.part("test")["image_id"].tolist() == noise.part("train")["image_id"].tolist()
    assert not set(noise.part("test")["row"]) & set(found.table["row"])
    with pytest.raises(splits.LeakError):
        splits.check(found.table)  # what everything else refuses


def test_rows_draw_what_the_whole_draws(noise, own_folders):
    data, p = noise.without_test(), recipe(batch_size=4)
    store = features.open_features(networks.build(p, data, CPU), data, p, CPU)
    rows = np.array([5, 5, 30, 59, 2])
    some = features.Subset(store, rows)
    positions, views = torch.tensor([4, 0, 1, 3, 2]), torch.tensor([1, 0, 1, 0, 1])
    found = list(some.draws(positions, views))
    expected = list(store.draws(torch.tensor(rows)[positions], views))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.targets["grade"], theirs.targets["grade"])
    assert some.train["image_id"].tolist() == data.part("train")["image_id"].iloc[rows].tolist()
    assert len(some.clean) == 80


@pytest.mark.slow
def test_where_there_is_nothing_to_learn_only_copies_score(noise, own_folders):
    """Honest folds grade noise by guessing; rows oversampled before the split are remembered; new patients show it."""
    data, p = noise.without_test(), recipe(learning_rate=1e-3, epochs=40)
    fits = [
        training.cross_fit(way, training.deal(data.part("train"), way, 3, 0), data, p, CPU)
        for way in (training.HONEST, training.BY_ROW)
    ]
    for fit in fits:
        assert fit.own["image_id"].str.split("#").str[0].tolist() == fit.dealt["image_id"].tolist()
        assert fit.own["image_id"].is_unique
        assert fit.new["image_id"].is_unique
        assert len(fit.new) == 3 * 20
        assert set(fit.new["patient_id"]) == set(noise.part("validation")["patient_id"])
    table = leaks.compare(fits, 300, 0)
    accuracy = table[table["metric"] == "accuracy"].set_index(["way", "rows", "what"])
    assert (
        accuracy.loc[("patient", "own", "score"), "lo"]
        < 0.2
        < accuracy.loc[("patient", "own", "score"), "hi"]
    )
    faked = accuracy.loc[("row", "own", "difference")]
    # measured natively and as AVX2, with two learning rates: 0.12 to 0.23, of which the lower limits are -0.02 to 0.05; sixty rows do
    # not settle the sign of the limit, so half of the least difference is asked for. Honest folds would differ by 0 from themselves
    assert faked["value"] > 0.05
    assert faked["hi"] > 0.2
    gained = accuracy.loc[("row", "new patients", "difference")]
    assert gained["lo"] < 0 < gained["hi"]
    assert set(table.loc[table["way"] == "patient", "what"]) == {"score"}
    by_hand = accuracy.loc[("row", "own", "score"), "value"] - accuracy.loc[("row", "own", "honest"), "value"]
    assert faked["value"] == pytest.approx(by_hand)


def test_sentences_say_which_side_of_zero():
    rows = [
        ("patient, again", "own", -0.04, -0.09, 0.01),
        ("patient, again", "new patients", 0.01, -0.05, 0.07),
        ("image", "own", 0.02, -0.01, 0.05),
        ("image", "new patients", -0.1, -0.2, -0.05),
        ("row", "own", 0.1, 0.05, 0.2),
        ("row", "new patients", 0.0, -0.1, 0.1),
    ]
    table = pd.DataFrame(rows, columns=["way", "rows", "value", "lo", "hi"]).assign(
        what="difference", metric="qwk"
    )
    again, image, row = leaks.describe(table)
    assert again.startswith("folds by patient, again: qwk on its own rows -0.04")
    assert "own rows +0.02 [-0.01, 0.05] (the interval includes 0)" in image
    assert "new patients -0.10 [-0.20, -0.05] (lower)" in image
    assert "own rows +0.10 [0.05, 0.20] (higher)" in row


def test_table_for_readers_has_one_line_a_way_and_rows():
    metrics = ("qwk", "balanced_accuracy", "macro_auc")
    rows = [
        (way, rows, what, metric, 0.5, 0.25, 0.75)
        for way in training.WAYS
        for rows in ("own", "new patients")
        for what in ("score", "honest", "difference")
        if what == "score" or way != training.HONEST
        for metric in metrics
    ]
    found = leaks.display(pd.DataFrame(rows, columns=["way", "rows", "what", "metric", "value", "lo", "hi"]))
    assert list(zip(found["rows"], found["folds by"])) == [
        (r, w) for r in ("own", "new patients") for w in training.WAYS
    ]
    assert found.loc[0, ["QWK", "QWK without a leak, same rows", "difference in QWK"]].tolist() == [
        "0.50 [0.25, 0.75]",
        "–",
        "–",
    ]
    assert (found.loc[1:3].drop(columns=["rows", "folds by"]) == "0.50 [0.25, 0.75]").all(axis=None)


def test_shuffled_labels_are_the_training_split_s_only(coloured_eyes):
    data = coloured_eyes()
    shuffled = training.shuffle_labels(data, 3)
    train = data.table["split"] == "train"
    pd.testing.assert_frame_equal(shuffled.table[~train], data.table[~train])
    assert (shuffled.table.loc[train, "grade"] != data.table.loc[train, "grade"]).any()
    assert sorted(shuffled.table.loc[train, "grade"]) == sorted(data.table.loc[train, "grade"])
    pd.testing.assert_frame_equal(shuffled.table.drop(columns="grade"), data.table.drop(columns="grade"))
    assert shuffled.table["grade"].dtype == data.table["grade"].dtype
    pd.testing.assert_frame_equal(shuffled.table, training.shuffle_labels(data, 3).table)
    assert not shuffled.table.equals(training.shuffle_labels(data, 4).table)


@pytest.mark.parametrize("way", training.WAYS)
def test_too_few_images_for_the_folds_are_refused_in_plain_words(images, way):
    few = pd.DataFrame(
        {"image_id": list("abc"), "patient_id": list("abc"), "grade": pd.array([0, 1, 2], dtype="Int64")}
    )
    if way == training.BY_ROW:
        few = few.head(1)
    with pytest.raises(ValueError, match="LEAK_FOLDS"):
        training.deal(few, way, 20, 0)
