"""Arms of oversampling on fabricated features, where the right answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from drstudy.core.devices import Compute
from drstudy.evaluation import calibration, metrics, statistics
from drstudy.papers.gan import arm_tables, arms, heads, pictures
from drstudy.papers.gan.heads import HeadRecipe, Known

CPU = Compute("cpu", "fp32")
WIDTH = 8


def recipe(**changes) -> HeadRecipe:
    return HeadRecipe(**{"steps": 60, "batch_size": 32, "learning_rate": 0.03} | changes)


def cloud(counts, centres, seed, spread=1.0) -> Known:
    """Normal clouds, one centre per grade."""
    random = np.random.default_rng(seed)
    grades = np.repeat(np.arange(5), counts)
    features = centres[grades] + spread * random.normal(size=(len(grades), WIDTH))
    return Known(features.astype(np.float32), grades.astype(np.int64))


def frame_of(known: Known) -> pd.DataFrame:
    names = [f"{i:03d}" for i in range(len(known))]
    patients = [f"p{i // 2:03d}" for i in range(len(known))]
    return pd.DataFrame({"image_id": names, "patient_id": patients, "split": "test", "grade": known.grades})


@pytest.fixture(scope="module")
def made():
    """Grades whose clouds overlap. Grade 4 has two training photographs at an untypical place; the generator knows where they really are."""
    centres = np.zeros((5, WIDTH), np.float32)
    centres[np.arange(5), np.arange(5)] = 3.0
    wrong = centres.copy()
    wrong[4] = centres[0] + 0.2
    train = cloud((60, 30, 30, 30, 2), wrong, 1)
    small = Known(train.features + 0.1, train.grades)
    test = cloud((20, 20, 20, 20, 20), centres, 2)
    rare = np.flatnonzero(train.grades > 0)
    source = np.repeat(rare, 2)
    return arms.Material(
        train=train,
        validation=cloud((4, 4, 4, 4, 4), centres, 3),
        small=small,
        augmented=Known(train.features[source] - 0.1, train.grades[source]),
        source=source,
        fakes=cloud((5, 80, 80, 80, 130), centres, 4),
        test=test,
        table=frame_of(test),
        held=frame_of(test).head(20).assign(split="validation"),
        middle=np.zeros(train.features.shape[1]),
        scale=np.ones(train.features.shape[1]),
    )


def test_needed_fills_up_to_the_most_frequent_grade():
    assert arms.needed((490, 37, 99, 20, 12)).tolist() == [0, 453, 391, 470, 478]
    assert arms.needed((490, 37, 99, 20, 0), 0.25).tolist() == [0, 113, 98, 118, 0]


def test_every_balanced_arm_has_the_same_counts(made):
    found = arms.make(made, recipe(), CPU)
    assert list(found) == list(arms.KINDS) == list(arms.TITLES)
    for name in ("duplicated", "duplicated_small", "augmented", "gan_100", "gan_filtered", "gan_shuffled"):
        assert found[name].known.counts.tolist() == [60] * 5, name
        assert found[name].added.tolist() == [0, 30, 30, 30, 58]
        assert found[name].sampler == "none"
    assert found["gan_25"].known.counts.tolist() == [60, 38, 38, 38, 16]  # 7.5 and 14.5 are rounded to even
    assert found["duplicated"].distinct.tolist() == [0, 30, 30, 30, 2]
    assert found["gan_100"].distinct.tolist() == [0, 30, 30, 30, 58]
    for name in ("none", "paper", "inverse"):
        assert len(found[name].known) == 152


def test_arms_differ_only_in_what_was_added(made):
    found = arms.make(made, recipe(seed=3), CPU)
    base = len(made.train)
    for arm in found.values():
        np.testing.assert_array_equal(arm.known.features[:base], made.train.features)
    added = {name: arm.known.features[base:] for name, arm in found.items()}
    np.testing.assert_allclose(added["duplicated_small"], added["duplicated"] + 0.1, atol=1e-6)
    np.testing.assert_array_equal(added["gan_shuffled"], added["gan_100"])
    shuffled, whole = found["gan_shuffled"].known.grades[base:], found["gan_100"].known.grades[base:]
    assert 0.1 < (shuffled == whole).mean() < 0.5
    again = arms.make(made, recipe(seed=3), CPU)
    for name in found:
        np.testing.assert_array_equal(again[name].known.features, found[name].known.features)


def test_a_smaller_share_is_part_of_a_larger_one(made):
    found = arms.make(made, recipe(), CPU)
    base = len(made.train)
    small, large = (found[name].known.features[base:] for name in ("gan_25", "gan_100"))
    assert {row.tobytes() for row in small} <= {row.tobytes() for row in large}


def test_the_filter_keeps_what_looks_like_its_grade(made):
    """Half of the generated pictures of grade 1 lie where grade 2 is; the filter leaves these out."""
    features = made.fakes.features.copy()
    own = np.flatnonzero(made.fakes.grades == 1)
    features[own[:40], 1], features[own[:40], 2] = features[own[:40], 2], features[own[:40], 1]
    mixed = Known(features, made.fakes.grades)
    kept = arms.likely(arms.Material(**{**vars(made), "fakes": mixed}), recipe(steps=200), CPU)
    assert kept.counts.tolist() == [3, 40, 40, 40, 65]
    wrong = {row.tobytes() for row in features[own[:40]]}
    assert np.mean([row.tobytes() in wrong for row in kept.features[kept.grades == 1]]) < 0.1


@pytest.fixture(scope="module")
def outcome(made):
    return arms.train(made, recipe(steps=120), 2, CPU)


def test_an_arm_that_must_win_wins(outcome):
    seeds = arm_tables.by_seed(outcome.predictions)
    draws = arm_tables.resampled(outcome.predictions, 100, 0)
    gaps = arm_tables.differences(seeds, draws).set_index(["arm", "metric"])
    recall = gaps.loc[("gan_100", "recall_grade4")]
    assert recall["value"] > 0.5
    assert recall["lo"] > 0.3
    assert gaps.loc[("gan_filtered", "recall_rare"), "lo"] > 0
    assert gaps.loc[("duplicated", "recall_grade4"), "value"] < 0.3  # copies of an untypical eye teach little
    control = arm_tables.differences(seeds, draws, to="gan_100", of=["gan_shuffled"]).set_index("metric")
    assert control.loc["qwk", "hi"] < 0  # a control that must lose
    said = arm_tables.findings(gaps.reset_index())
    assert len(said) == 10
    assert "the interval excludes 0, so it is better" in said[list(arms.KINDS).index("gan_100") - 1]


def test_scores_are_those_of_the_study(outcome):
    seeds = arm_tables.by_seed(outcome.predictions)
    draws = arm_tables.resampled(outcome.predictions, 100, 0)
    whole = arm_tables.scores(seeds, draws).set_index(["arm", "metric"])
    frames = outcome.predictions["inverse"]
    assert len(frames) == 2
    assert whole.loc[("inverse", "qwk"), "value"] == pytest.approx(
        np.mean([metrics.evaluate(frame)["qwk"] for frame in frames])
    )
    by_house = statistics.resampled_mean(frames, 100, 0)
    np.testing.assert_array_equal(draws["inverse"]["macro_auc"], by_house["macro_auc"])
    rare = np.mean([metrics.evaluate(frames[0])[f"recall_grade{grade}"] for grade in (3, 4)])
    assert arm_tables.values(frames[0])["recall_rare"] == pytest.approx(rare)
    ece = calibration.summary(frames[0], 100, 0).set_index("metric").loc["ece"]
    one = arm_tables.drawn(frames[:1], 100, 0)["ece"]
    assert np.percentile(one, 2.5) == pytest.approx(ece["lo"], abs=1e-12)
    assert arm_tables.values(frames[0])["ece"] == pytest.approx(ece["value"], abs=1e-12)


def test_differences_by_hand():
    """Two arms, two seeds; the second arm predicts one of four photographs better."""
    table = frame_of(Known(np.zeros((10, 1), np.float32), np.arange(10) % 5))

    def predicted(grades):
        return table.assign(**{f"p{k}": (np.asarray(grades) == k).astype(float) for k in range(5)})

    true = np.arange(10) % 5
    miss = true.copy()
    miss[[3, 4]] = 0  # of two photographs of grade 3 and two of grade 4, one each is lost
    predictions = {"none": [predicted(miss), predicted(miss)], "gan_100": [predicted(true), predicted(miss)]}
    seeds = arm_tables.by_seed(predictions)
    draws = arm_tables.resampled(predictions, 200, 0)
    gaps = arm_tables.differences(seeds, draws).set_index("metric")
    assert gaps.loc["recall_rare", "value"] == pytest.approx(0.25)  # (0.5 + 0) / 2
    assert gaps.loc["recall_rare", ["seed_lo", "seed_hi"]].tolist() == [0.0, 0.5]
    assert gaps.loc["recall_rare", "seed_std"] == pytest.approx(0.5 / np.sqrt(2))
    assert gaps.loc["recall_grade0", "value"] == 0
    with pytest.raises(KeyError, match="'gan_25' was not trained; there are none, gan_100"):
        arm_tables.differences(seeds, draws, of=["gan_25"])
    shown = arm_tables.display(gaps.reset_index())
    assert shown.index.tolist() == ["generated, 100 %"]
    assert shown.loc["generated, 100 %", "recall, grades 3 and 4"].startswith("+0.25 (")


def test_no_interval_of_few_patients():
    table = frame_of(Known(np.zeros((10, 1), np.float32), np.arange(10) % 5))
    said = table.assign(**{f"p{k}": (np.arange(10) % 5 == k).astype(float) for k in range(5)})
    for patients, there in ((5, True), (4, False)):
        one = said.assign(patient_id=[f"p{i % patients}" for i in range(10)])
        predictions = {"none": [one], "gan_100": [one]}
        seeds, draws = arm_tables.by_seed(predictions), arm_tables.resampled(predictions, 30, 0)
        whole = arm_tables.scores(seeds, draws).set_index(["arm", "metric"])
        assert whole.loc[("none", "qwk"), "value"] == 1
        gaps = arm_tables.differences(seeds, draws)
        for found in (whole.loc[("none", "qwk")], gaps.set_index("metric").loc["qwk"]):
            assert np.isfinite(found[["lo", "hi"]].to_numpy(float)).all() == there
        assert ("too few test photographs or patients" in arm_tables.findings(gaps)[0]) != there


def test_undefined_recalls_stay_undefined():
    table = frame_of(Known(np.zeros((6, 1), np.float32), np.array([0, 0, 1, 1, 2, 3])))
    said = table.assign(**{f"p{k}": [float(k == 3)] * 6 for k in range(5)})
    found = arm_tables.values(said)
    assert np.isnan(found["recall_grade4"])
    assert found["recall_rare"] == 1.0  # of grade 3 alone, the only rare grade that is there


def test_every_head_takes_the_same_steps_and_starts_alike(made):
    p = recipe(steps=7, batch_size=40)  # 280 draws: more than one round of 152 pictures
    for sampler in ("none", "paper"):
        own = p.model_copy(update={"sampler": sampler})
        task = heads.Head(heads.Pooled(made.train, made.validation, own, CPU), own, CPU)
        drawn = task.draw(1, torch.Generator().manual_seed(0))
        assert len(drawn) == 280
        assert len(list(task.feed.draws(drawn, torch.zeros(280, dtype=torch.int64)))) == 7
        if sampler == "none":
            assert torch.bincount(drawn[:152]).eq(1).all()
            start = task.modules["head"].weight
        else:
            assert torch.equal(task.modules["head"].weight, start)


def test_a_head_learns_and_is_repeatable(made):
    first, second = (
        heads.probabilities(heads.fit(made.train, made.validation, recipe(seed=2), CPU), made.test.features)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first.sum(1), 1)
    seen = made.test.grades < 4
    assert (first.argmax(1) == made.test.grades)[seen].mean() > 0.7


def test_bad_input_is_refused(made):
    with pytest.raises(ValueError, match="58 pictures of grade 4 are needed, but the set has none"):
        pictures.by_counts(np.zeros(3, np.int64), np.array([0, 0, 0, 0, 58]), np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least one training per arm"):
        arms.train(made, recipe(), 0, CPU)
    with pytest.raises(ValueError, match="A feature is not finite"):
        Known(np.full((2, 3), np.nan, np.float32), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"their shapes are \(2, 3\) and \(3,\)"):
        Known(np.zeros((2, 3), np.float32), np.zeros(3, np.int64))
