"""External validation: folds, choice on validation alone, the matrix on fabricated predictions, missing sets, the learning curve."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fabricated import eyes, graded

from drstudy.core import records
from drstudy.core.params import ParameterError
from drstudy.evaluation import calibration, metrics
from drstudy.papers.external import cohorts, crossed, learner, params, recipes, tables
from drstudy.papers.external.cohorts import POOLED, Cohort
from drstudy.papers.external.paper import NAME
from drstudy.study import plan

B = 50
SHARES = (0.4, 0.2, 0.2, 0.1, 0.1)


def cohort(name: str, patients: int, seed: int, own: bool = True) -> Cohort:
    table = eyes(patients, seed, SHARES)
    table = table.assign(row=range(len(table)), group=table["patient_id"], image_id=name + table["image_id"])
    return Cohort(name, table, np.zeros((len(table), 8, 8, 3), np.uint8), name, own)


def similar(table: pd.DataFrame, noise: float, seed: int) -> np.ndarray:
    """Similarities of images whose descriptors are their grade and noise."""
    random = np.random.default_rng(seed)
    values = np.column_stack([table["grade"] * 1.0, random.normal(0, noise, (len(table), 12))])
    return values @ values.T


@pytest.fixture(scope="module")
def bench() -> crossed.Bench:
    sets = [cohort("near", 60, 0), cohort("far", 50, 1), cohort("phantom", 40, 2, own=False)]
    table = crossed.bench_table(sets, 4, 0)
    steps = {"good": recipes.Recipe(("a",)), "noisy": recipes.Recipe(("b",), head=learner.ORDINAL)}
    kernels = {"good": similar(table, 1.0, 0), "noisy": similar(table, 6.0, 1)}
    return crossed.Bench(table, steps, kernels, 0.8)


@pytest.fixture(scope="module")
def trained(bench) -> dict[str, crossed.Trained]:
    return {
        name: crossed.train(bench, name, list(bench.recipes), each=name == POOLED) for name in bench.trainings
    }


def test_folds_keep_patients_together_and_spread_sets_and_grades(bench):
    table = bench.table
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    shares = table.groupby(["set", "fold"]).size().unstack()
    assert (shares.max(axis=1) - shares.min(axis=1) <= 6).all()
    with pytest.raises(learner.FoldError, match="The set b has 2 patients, too few for 3 folds"):
        learner.folds(np.array(list("aaabb")), np.arange(5), np.zeros(5, int), 3, 0)


def test_patients_who_share_a_duplicate_across_pooled_sets_share_a_fold():
    first, second = cohort("near", 30, 0), cohort("far", 30, 1)
    linked = second.table.assign(group=[f"x{group}" for group in second.table["group"]])
    linked.loc[linked["patient_id"] == "00003", "group"] = "00007"
    table = crossed.bench_table([first, dataclasses.replace(second, table=linked)], 3, 0)
    both = table[table["group"] == "own-00007"]
    assert set(both["set"]) == {"near", "far"}
    assert both["fold"].nunique() == 1


def test_trainings_are_the_sets_and_the_pool_of_those_of_this_profile(bench):
    assert bench.trainings == ["near", "far", "phantom", POOLED]
    assert set(bench.table.iloc[bench.rows(POOLED)]["set"]) == {"near", "far"}
    with pytest.raises(KeyError, match="no training set 'nowhere'; there are near"):
        bench.rows("nowhere")


def test_each_image_is_tested_once_by_each_training_set(bench, trained):
    for one in trained.values():
        assert sorted(one.predictions["image_id"]) == sorted(bench.table["image_id"])
        metrics.check_predictions(one.predictions)


def test_no_head_sees_a_patient_that_it_is_tested_on(bench):
    for fold in range(4):
        for size in (0, 30):
            rows = crossed.subset(bench, POOLED, fold, size)
            assert not set(bench.table["group"].iloc[rows]) & set(
                bench.table.loc[bench.table["fold"] == fold, "group"]
            )


def test_a_larger_subset_contains_the_smaller_and_keeps_patients_whole(bench):
    small, large = (set(crossed.subset(bench, POOLED, 0, size, 5)) for size in (20, 60))
    assert small < large
    assert 15 <= len(small) <= 20
    group = bench.table["group"]
    rows = crossed.subset(bench, POOLED, 0)
    for chosen in (small, large):
        groups = set(group.iloc[sorted(chosen)])
        assert set(rows[group.iloc[rows].isin(groups)]) == chosen


def test_the_choice_reads_no_test_label(bench, trained):
    """With the labels of the tested fold permuted, everything that was chosen and every probability of that fold stays."""
    fold = 2
    table = bench.table.copy()
    held = np.flatnonzero(table["fold"] == fold)
    table.loc[held, "grade"] = np.random.default_rng(0).permutation(table["grade"].to_numpy()[held])
    assert not np.array_equal(table["grade"], bench.table["grade"])
    other = crossed.train(dataclasses.replace(bench, table=table), POOLED, list(bench.recipes))
    (name, mine), (again, theirs) = trained[POOLED].chosen[fold], other.chosen[fold]
    assert name == again
    assert (mine.ridge, mine.criterion, mine.threshold) == (theirs.ridge, theirs.criterion, theirs.threshold)
    assert np.array_equal(mine.cuts, theirs.cuts)
    columns = ["image_id", *metrics.PROBABILITIES, "predicted", "called"]
    images = set(table["image_id"].iloc[held])
    before, after = (
        one.predictions[one.predictions["image_id"].isin(images)][columns] for one in (trained[POOLED], other)
    )
    pd.testing.assert_frame_equal(before.reset_index(drop=True), after.reset_index(drop=True))
    elsewhere = [
        other.chosen[one][1].criterion != trained[POOLED].chosen[one][1].criterion for one in (0, 1, 3)
    ]
    assert all(elsewhere), "those labels are validation labels of the other folds"


def test_each_recipe_alone_is_tested_as_if_it_were_the_only_one(bench, trained):
    each = trained[POOLED].each
    assert list(each) == ["good", "noisy"]
    pd.testing.assert_frame_equal(each["noisy"], crossed.train(bench, POOLED, ["noisy"]).predictions)
    pd.testing.assert_frame_equal(each["good"], trained[POOLED].predictions)
    assert not trained["near"].each


def test_validation_chooses_the_recipe_that_learns_more(trained):
    assert {name for name, _ in trained[POOLED].chosen.values()} == {"good"}
    table = tables.choices(trained)
    assert (table["good"] > table["noisy"]).all()
    assert set(table["chosen"]) == {"good"}


def test_the_threshold_keeps_the_wanted_specificity_on_validation(trained):
    for _, chosen in trained[POOLED].chosen.values():
        score, positive = calibration.referable(chosen.validation)
        assert (score[~positive] < chosen.threshold).mean() >= 0.8


def test_ridge_is_the_textbook_formula():
    random = np.random.default_rng(0)
    x, z, y = random.normal(size=(20, 3)), random.normal(size=(5, 3)), random.integers(0, 5, 20)
    found = learner.ridge(x @ x.T, y, z @ x.T, learner.REGRESSION)
    centred = x - x.mean(axis=0)
    scale = np.linalg.eigvalsh(centred @ centred.T).clip(0).mean()
    for strength, scores in zip(learner.RIDGES, found):
        weights = np.linalg.solve(
            centred.T @ centred + strength * scale * np.eye(3), centred.T @ (y - y.mean())
        )
        assert scores[:, 0] == pytest.approx((z - x.mean(axis=0)) @ weights + y.mean(), abs=1e-9)
    cuts = learner.ridge(x @ x.T, y, z @ x.T, learner.ORDINAL)
    assert cuts.sum(axis=2) == pytest.approx(found[:, :, 0], abs=1e-9), "the four cuts sum to the grade"


def test_similarity_ignores_scale_and_offset_and_other_images():
    block = np.random.default_rng(0).normal(size=(6, 40))
    found = learner.kernel([block, 5 * block + 3])
    assert np.diag(found) == pytest.approx(1)
    assert found == pytest.approx(np.corrcoef(block), abs=1e-12)
    assert learner.kernel([block[:4]]) == pytest.approx(found[:4, :4], abs=1e-12)


def test_probabilities_never_rise_with_the_cut_and_sum_to_one():
    scores = np.random.default_rng(0).normal(size=(30, 4))
    found = learner.probability(scores, np.array([1.0, 2, 3, 4]), np.array([0.0, 1, -1, 2]))
    assert (found >= 0).all()
    assert found.sum(axis=1) == pytest.approx(1)
    one = learner.probability(np.array([[0.0]]), np.ones(4), np.array([0, -1e9, -1e9, -1e9]))
    assert one[0].tolist() == pytest.approx([0.5, 0.5, 0, 0, 0])


def test_calibration_of_a_cut_that_no_eye_reaches_is_finite():
    slopes, offsets = learner.calibrate(np.arange(10.0)[:, None], np.array([0] * 5 + [2] * 5))
    assert slopes[2:].tolist() == [0, 0]
    assert offsets[2] == pytest.approx(np.log(0.05 / 0.95))
    assert slopes[0] > 0


def test_the_fellow_eye_is_the_mean_of_the_others():
    found = recipes.fellows(np.array(["a", "b", "a", "c", "a"]))
    assert found[0].tolist() == [0, 0, 0.5, 0, 0.5]
    assert found[1].tolist() == [0, 1, 0, 0, 0], "an eye alone stands for its fellow"
    assert found.sum(axis=1) == pytest.approx(1)


def test_each_recipe_changes_one_thing():
    steps = list(recipes.ladder(("a", "b"), True).values())
    for before, after in itertools.pairwise(steps):
        changed = [name for name, value in vars(after).items() if value != getattr(before, name)]
        assert len(changed) == 1
    assert "+ more networks" not in recipes.ladder(("a",), False)


def sure(frame: pd.DataFrame, predicted: np.ndarray) -> pd.DataFrame:
    p = np.eye(5)[predicted]
    columns = {name: p[:, k] for k, name in enumerate(metrics.PROBABILITIES)}
    return frame.assign(**columns, predicted=predicted, called=predicted >= 2)


@pytest.fixture(scope="module")
def fabricated_pair() -> dict[str, pd.DataFrame]:
    """Two sets of ten patients. "right" knows every grade; "wrong" says 0 in the set b, and is right in the set a."""
    grade = np.array([0, 1, 2, 3, 4] * 4)
    frame = pd.DataFrame(
        {"image_id": [f"i{i}" for i in range(20)], "patient_id": [f"p{i // 2}" for i in range(20)]}
    )
    frame = frame.assign(grade=grade, set=["a"] * 10 + ["b"] * 10)
    return {"right": sure(frame, grade), "wrong": sure(frame, np.where(frame["set"] == "b", 0, grade))}


def test_matrix_by_hand(fabricated_pair):
    table = tables.matrix(tables.drawn(fabricated_pair, B, 0)).set_index(
        ["training", "test", "mix", "metric"]
    )["value"]
    for mix in (tables.OWN, tables.COMMON):
        assert (
            table["right", "a", mix, "qwk"]
            == table["right", "b", mix, "qwk"]
            == table["wrong", "a", mix, "qwk"]
            == 1
        )
        assert table["wrong", "b", mix, "qwk"] == 0
        assert table["wrong", "b", mix, "auc_ge2"] == 0.5
        assert table["wrong", "b", mix, "sensitivity_ge2"] == 0
        assert table["wrong", "b", mix, "specificity_ge2"] == 1
        assert table["wrong", "b", mix, "ece_ge2"] == pytest.approx(0.6), (
            "three of five eyes are referable and none is called"
        )
    wide = tables.display(table.rename("value").reset_index().assign(lo=np.nan, hi=np.nan), tables.OWN)
    assert wide.loc[("QWK", "wrong"), ["a", "b"]].tolist() == ["1.00", "0.00"]


def test_paired_differences_and_the_sentences_follow_the_numbers(fabricated_pair):
    found = tables.differences(fabricated_pair["right"], fabricated_pair["wrong"], B, 0).set_index(
        ["test", "metric"]
    )
    assert found.loc[("a", "qwk"), ["value", "lo", "hi"]].tolist() == [0, 0, 0]
    assert found.loc[("b", "auc_ge2"), "value"] == 0.5
    shuffled = fabricated_pair["wrong"].sample(frac=1, random_state=0)
    again = tables.differences(fabricated_pair["right"], shuffled, B, 0).set_index(["test", "metric"])
    pd.testing.assert_frame_equal(found, again)
    text = tables.describe(tables.matrix(tables.drawn(fabricated_pair, B, 0)))
    assert "QWK on b is highest with the training set right: 1.00" in text


def test_each_step_is_compared_with_the_one_before_and_the_choice_with_the_first(fabricated_pair):
    right, wrong = fabricated_pair["right"], fabricated_pair["wrong"]
    table = tables.ablation({"probe": wrong, "+ more": right, recipes.STUDY: right}, B, 0)
    value = table.set_index(["recipe", "what", "test", "metric"])["value"]
    assert (
        value["+ more", "step", "b", "qwk"]
        == value["+ more", "total", "b", "qwk"]
        == value["study", "total", "b", "qwk"]
        == 1
    )
    assert ("study", "step", "b", "qwk") not in value
    assert list(tables.ablation_display(table, "step").index) == ["+ more"]
    assert list(tables.ablation_display(table, "total").index) == ["+ more", "study"]
    assert tables.ablation_display(table, "score").loc["study", "b, QWK"].startswith("1.00")


def test_shifts_are_of_other_sets_only_and_add_up(trained):
    found = tables.shifts(tables.drawn({name: one.predictions for name, one in trained.items()}, B, 0))
    assert POOLED not in set(found["training"])
    assert (found["training"] != found["test"]).all()
    wide = found.pivot(index=["training", "test", "metric"], columns="part", values="value")
    assert wide["total"].to_numpy() == pytest.approx((wide["prevalence"] + wide["rest"]).to_numpy())


def test_one_set_alone_has_a_matrix_of_one_and_no_shift():
    frame = graded(eyes(60, shares=SHARES)).assign(set="only")
    frame = sure(frame, frame[metrics.PROBABILITIES].to_numpy().argmax(axis=1))
    draws = tables.drawn({"only": frame}, B, 0)
    assert len(tables.shifts(draws)) == 0
    assert len(tables.shifts_display(tables.shifts(draws))) == 0
    assert list(tables.display(tables.matrix(draws), tables.OWN).columns) == ["only"]


def test_curve_has_all_photographs_last_and_varies_with_the_draws(bench):
    found = crossed.curve(bench, POOLED, dict.fromkeys(range(4), "good"), (20, 40, 80, 10_000), 2, 0)
    assert list(found)[:3] == [20, 40, 80]
    assert len(found) == 4, "a size above what there is is left out, and all photographs are added"
    assert [len(frames) for frames in found.values()] == [2, 2, 2, 1]
    assert not found[20][0].equals(found[20][1])
    table = tables.curves(tables.curve_draws(found, B, 0), list(found), (3000,))
    assert set(table["what"]) == {"measured", "predicted", "law"}
    assert table.loc[table["what"] == "predicted", "size"].unique().tolist() == [3000]
    wide = tables.curves_display(table)
    assert list(wide.index)[-1] == "3000, extrapolated"


def test_a_missing_set_is_named_with_its_reason(own_folders, monkeypatch):
    present = cohort("here", 20, 0)
    monkeypatch.setattr(records, "upstream", lambda *_: SimpleNamespace(params={"SOURCE": "folder"}))
    monkeypatch.setattr(cohorts, "_of", lambda *_: [present])
    run = records.start(params.External())
    found, described = cohorts.read(
        "results/x/01_data_audit", ["results/gone/01_data_audit/fine"], run, 1000, 0
    )
    assert [one.name for one in found] == ["here"]
    row = described.set_index("set").loc["gone"]
    assert row["photographs"] == 0
    assert row["note"].startswith("missing: results/gone/01_data_audit/fine has no finished run")


def test_stand_ins_are_other_patients_of_another_prevalence():
    phantom = cohort("smoke", 80, 0)
    first, second = cohorts.stand_ins(phantom, 0)
    assert not set(first.table["group"]) & set(second.table["group"])
    assert (second.table["grade"] == 0).mean() < (first.table["grade"] == 0).mean() - 0.05
    assert second.camera == cohorts.OTHER_CAMERA
    assert all("synthetic eyes" in one.note for one in (first, second))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    changed = cohorts.camera(images)
    assert changed.shape == images.shape
    assert changed[..., 2].mean() < images[..., 2].mean() - 10, "less blue"


def test_a_large_set_is_thinned_by_patient_and_says_so():
    whole = cohort("big", 60, 0)
    found = cohorts.fewer(whole, 40, 0)
    assert 30 <= len(found.table) <= 40
    assert set(whole.table["group"].isin(found.table["group"]).groupby(whole.table["group"]).nunique()) == {1}
    assert "photographs drawn by patient" in found.note
    assert cohorts.fewer(whole, 1000, 0) is whole


def test_profiles_name_further_sets_and_wait_for_them():
    stage = plan.stage(NAME, "real_mini")
    assert stage.overrides["OTHERS"] == ["results/demo/01_data_audit/fine"]
    assert stage.overrides["PRETRAINED"] == "results/demo/03_fine_tuning/efficientnet_lite0-seed0"
    assert set(stage.needs) == {
        "results/real_mini/01_data_audit/fine",
        *stage.overrides["OTHERS"],
        stage.overrides["PRETRAINED"],
        "results/real_mini/03_fine_tuning/efficientnet_lite0-seed0",
    }
    alone = plan.stage(NAME, "eyepacs_mini")
    assert (alone.overrides["OTHERS"], alone.overrides["PRETRAINED"]) == ([], "")


@pytest.mark.parametrize(("value", "message"), [((20, 10), "must rise"), ((10, 10), "must rise")])
def test_sizes_must_rise(value, message):
    with pytest.raises(ParameterError, match=message):
        params.External.check({"SIZES": value})


def test_a_fine_tuned_network_is_compared_on_its_own_test_eyes(trained):
    """Against itself the difference is 0; a network that guesses is worse; eyes of other sets are left out."""
    study = trained[POOLED].predictions
    near = study[study["set"] == "near"].iloc[::2]
    again = tables.beside_fine_tuned(
        study, near.drop(columns=["set", "predicted", "called"]), ["near", "far"], B, 0
    )
    change = again[again["what"] == "total"].set_index("metric")["value"]
    assert change["auc_ge2"] == pytest.approx(0, abs=1e-12)
    assert set(again["test"]) == {"near"}
    guess = near.assign(**dict.fromkeys(metrics.PROBABILITIES, 0.2))
    worse = tables.beside_fine_tuned(study, guess, ["near"], B, 0)
    change = worse[worse["what"] == "total"].set_index("metric")
    assert change.loc["auc_ge2", "lo"] > 0
    shown = tables.fine_tuned_display(worse)
    assert list(shown.index) == ["fine-tuned (fixed)", "study", "study minus fine-tuned (fixed)"]
    with pytest.raises(
        metrics.PredictionError, match="None of the 58 test eyes of FINE_TUNED is in the sets far"
    ):
        tables.beside_fine_tuned(study, near, ["far"], B, 0)
