"""Measures of labels against scikit-learn, thresholds, decisions, and the tables that are made of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from drstudy.evaluation import multilabel
from drstudy.papers.lesions import figures, tables
from drstudy.papers.lesions.params import Lesions

CODES = ("MA", "HE", "EX", "NV")


@pytest.fixture(scope="module")
def case():
    """200 images of 80 patients, 4 labels; scores have ties, some labels are unknown, one label is rare."""
    random = np.random.default_rng(0)
    truth = (random.random((200, 4)) < (0.6, 0.4, 0.2, 0.0)).astype(float)
    truth[[3, 77, 150], 3] = 1
    score = np.round((truth + random.normal(0, 0.8, truth.shape)).clip(-1, 2) / 3 + 1 / 3, 2)
    unknown = random.random(truth.shape) < 0.1
    unknown[[3, 77, 150], 3] = False
    truth[unknown] = np.nan
    return truth, score, np.array([f"p{i % 80:02d}" for i in range(200)])


def expected(truth, score, called, weights):
    return {
        "auc": sk.roc_auc_score(truth, score, sample_weight=weights),
        "ap": sk.average_precision_score(truth, score, sample_weight=weights),
        "f1": sk.f1_score(truth, called, sample_weight=weights),
        "sensitivity": sk.recall_score(truth, called, sample_weight=weights),
        "specificity": sk.recall_score(1 - truth, ~called, sample_weight=weights),
    }


def test_measures_are_those_of_scikit_learn_for_any_weights(case):
    truth, score, _ = case
    known = ~np.isnan(truth[:, 1])
    positive, said = truth[known, 1] == 1, score[known, 1]
    weights = np.random.default_rng(1).integers(0, 4, (5, known.sum()))
    found = multilabel.measures(positive, said, said >= 0.5, weights)
    for row, weight in enumerate(weights):
        for name, value in expected(positive.astype(int), said, said >= 0.5, weight).items():
            assert found[name][row] == pytest.approx(value, abs=1e-12), name


def test_what_is_undefined_is_nan_and_not_0():
    weights = np.ones((1, 3))
    none = multilabel.measures(np.zeros(3, bool), np.arange(3.0), np.array([False, False, True]), weights)
    assert np.isnan([none[name][0] for name in ("auc", "ap", "sensitivity")]).all()
    assert none["f1"][0] == 0
    assert none["specificity"][0] == pytest.approx(2 / 3)
    quiet = multilabel.measures(np.zeros(3, bool), np.arange(3.0), np.zeros(3, bool), weights)
    assert np.isnan(quiet["f1"][0])
    everyone = multilabel.measures(np.ones(3, bool), np.arange(3.0), np.ones(3, bool), weights)
    assert np.isnan(everyone["ap"][0]), "scikit-learn says 1, whatever the scores"
    assert everyone["sensitivity"][0] == 1
    nobody = multilabel.measures(np.zeros(0, bool), np.zeros(0), np.zeros(0, bool), np.ones((2, 0)))
    assert all(np.isnan(values).all() and len(values) == 2 for values in nobody.values())


def test_several_labels_together_are_those_of_scikit_learn(case):
    truth, score, patients = case
    at = np.array([0.5, 0.55, 0.4, 0.6])
    table = multilabel.evaluate(truth, score, at, patients, CODES, 200, 0).set_index(["label", "metric"])
    known = ~np.isnan(truth)
    called = score >= at
    single = [expected(truth[k, j], score[k, j], called[k, j], None) for j, k in enumerate(known.T)]
    for name in multilabel.MEASURES:
        assert table.loc[("macro", name), "value"] == pytest.approx(np.mean([one[name] for one in single])), (
            name
        )
        assert table.loc[("EX", name), "value"] == pytest.approx(single[2][name]), name
    together = expected(truth[known], score[known], called[known], None)
    for name in multilabel.MEASURES:
        assert table.loc[("micro", name), "value"] == pytest.approx(together[name]), name
    assert table.loc[("all labels", "hamming_loss"), "value"] == pytest.approx(
        (truth != called)[known].mean()
    )
    whole = known.all(1)
    subset = sk.accuracy_score(truth[whole].astype(int), called[whole].astype(int))
    assert table.loc[("all labels", "subset_accuracy"), "value"] == pytest.approx(subset)
    complete = np.nan_to_num(truth).astype(int)  # where everything is known, scikit-learn's multilabel forms
    full = multilabel.evaluate(complete.astype(float), score, at, patients, CODES, 5, 0).set_index(
        ["label", "metric"]
    )
    assert full.loc[("all labels", "hamming_loss"), "value"] == pytest.approx(
        sk.hamming_loss(complete, called)
    )
    assert full.loc[("micro", "f1"), "value"] == pytest.approx(sk.f1_score(complete, called, average="micro"))
    assert full.loc[("macro", "ap"), "value"] == pytest.approx(sk.average_precision_score(complete, score))


def test_intervals_hold_the_value_and_a_rare_label_has_none(case):
    truth, score, patients = case
    table = multilabel.evaluate(truth, score, np.full(4, 0.5), patients, CODES, 300, 0).set_index(
        ["label", "metric"]
    )
    for label in ("NV", "macro"):  # a mean that hangs on a rare label has none either
        rare = table.loc[label]
        assert rare["value"].notna().all()
        assert list(rare.index[rare["lo"].notna()]) == ["specificity"], (
            "of patients without it there are many"
        )
    assert set(table.loc["NV", "present"]) == {3}
    rest = table[~table.index.get_level_values("label").isin(["NV", "macro"])]
    assert ((rest["lo"] <= rest["value"]) & (rest["value"] <= rest["hi"])).all()
    assert (rest["hi"] > rest["lo"]).all()
    one = table.loc[("HE", "auc")]
    # 160 known images at an AUC near 0.75: about 0.07 either way (Hanley & McNeil 1982); half and twice that are wrong
    assert 0.07 < one["hi"] - one["lo"] < 0.28


def test_decisions_by_hand():
    p = np.array([[0.2, 0.5], [0.0, 0.0], [1.0, 0.3]])
    np.testing.assert_allclose(multilabel.combine(p, "max"), [0.5, 0, 1])
    np.testing.assert_allclose(multilabel.combine(p, "noisy_or"), [1 - 0.8 * 0.5, 0, 1])
    with pytest.raises(ValueError, match="one of max, noisy_or"):
        multilabel.combine(p, "mean")


def test_threshold_has_the_greatest_f1():
    positive, score = np.array([0, 0, 1, 0, 1, 1], bool), np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9])
    assert multilabel.best_threshold(positive, score)[0] == pytest.approx(0.25)  # 3 of 3 with 1 false: F1 6/7
    assert multilabel.best_threshold(np.ones(3, bool), np.array([0.2, 0.4, 0.6]))[0] == 0.2
    assert np.isnan(multilabel.best_threshold(np.zeros(3, bool), np.zeros(3))).all()


def test_thresholds_that_are_as_good_are_said():
    """200 positives and, last but one, a negative: calling everything costs next to nothing."""
    score = np.linspace(0, 1, 201)
    positive = np.ones(201, bool)
    positive[1] = False
    best, low, high = multilabel.best_threshold(positive, score)
    assert best == 0, "F1 400/401 against 398/399 for those above the negative"
    assert low == 0
    # without the negative and k positives F1 is 2 (200 - k) / (400 - k): within 0.01 of the best up to k = 4, scores 0 to 0.02
    assert high == pytest.approx(0.0225)


def test_co_occurrence_by_hand():
    given = np.array([[1, 1, 0], [1, 0, 0], [1, np.nan, 0], [0, 1, 0]])
    found = multilabel.co_occurrence(given)
    np.testing.assert_allclose(found[:2], [[1, 0.5, 0], [0.5, 1, 0]])
    assert np.isnan(found[2]).all()


# --- the tables of notebook 12 -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def study():
    """Two networks, 120 eyes of 60 patients in validation and test; lesions follow the grade, the second network is noise."""
    random = np.random.default_rng(3)
    grade = random.integers(0, 5, 240)
    truth = pd.DataFrame(
        {"MA": grade >= 1, "HE": grade >= 2, "EX": (grade >= 2) & (random.random(240) < 0.5)}
    )
    labels = truth.astype("Int64").assign(image_id=[f"{i:03d}" for i in range(240)])
    about = pd.DataFrame(
        {
            "image_id": labels["image_id"],
            "patient_id": [f"{i // 2:03d}" for i in range(240)],
            "split": np.repeat(["validation", "test"], 120),
            "grade": pd.array(grade, dtype="Int64"),
        }
    )
    parts = []
    for network, skill in (("good", 2.0), ("noise", 0.0)):
        logits = skill * (2 * truth.to_numpy(float) - 1) + random.normal(0, 1, truth.shape)
        said = pd.DataFrame(1 / (1 + np.exp(-logits)), columns=["p_MA", "p_HE", "p_EX"])
        parts.append(pd.concat([about.assign(network=network), said], axis=1))
    p = np.exp(-((np.arange(5) - grade[:, None] - random.normal(0, 1, (240, 1))) ** 2))
    grades = about.assign(**{f"p{k}": p[:, k] / p.sum(1) for k in range(5)})
    return pd.concat(parts, ignore_index=True), grades, labels


CODES3 = ("MA", "HE", "EX")


def fitted_of(said, grades, labels, specificity=0.9):
    scores = tables.decision_scores(said, grades, labels, CODES3)
    return scores, tables.thresholds(said, scores, labels, CODES3, specificity)


def test_thresholds_come_from_validation_alone(study):
    """Test rows, and their labels, may be anything."""
    said, grades, labels = study
    _, before = fitted_of(said, grades, labels)
    other, other_labels = said.copy(), labels.copy()
    test = other["split"] == "test"
    other.loc[test, ["p_MA", "p_HE", "p_EX"]] = 1 - other.loc[test, ["p_MA", "p_HE", "p_EX"]]
    wrong = grades.assign(grade=grades["grade"].where(grades["split"] == "validation", 4 - grades["grade"]))
    rows = other_labels.index[120:]
    other_labels.loc[rows, list(CODES3)] = 1 - other_labels.loc[rows, list(CODES3)]
    _, after = fitted_of(other, wrong, other_labels)
    pd.testing.assert_frame_equal(before, after)
    _, moved = fitted_of(said.assign(p_HE=said["p_HE"] ** 2), grades, labels)
    assert not before["threshold"].equals(moved["threshold"]), "validation has a say"


def test_decisions_have_the_wanted_specificity_on_validation(study):
    said, grades, labels = study
    scores, fitted = fitted_of(said, grades, labels)
    at = fitted.set_index(["network", "target", "rule"])["threshold"]
    for (network, decision, rule), part in scores[scores["split"] == "validation"].groupby(
        ["network", "decision", "rule"]
    ):
        negative = part.loc[part["truth"] == 0, "score"]
        kept = (negative < at[network, decision, rule]).mean()
        assert 0.9 <= kept < 0.9 + 1.5 / len(negative), (network, decision, rule)


def test_decisions_are_counted_as_scikit_learn_does(study):
    said, grades, labels = study
    scores, fitted = fitted_of(said, grades, labels)
    test = scores[scores["split"] == "test"]
    table = tables.decisions(test, fitted, 300, 0)
    table = table.set_index(["network", "decision", "rule", "metric"]).sort_index()
    at = fitted.set_index(["network", "target", "rule"])["threshold"]
    rows = test[(test["network"] == "good") & (test["decision"] == "referable") & (test["rule"] == "max")]
    np.testing.assert_allclose(
        rows["score"],
        said.loc[(said["network"] == "good") & (said["split"] == "test"), ["p_HE", "p_EX"]].max(axis=1),
    )
    called = rows["score"] >= at["good", "referable", "max"]
    own = table.loc[("good", "referable", "max")]
    assert own.loc["sensitivity", "value"] == pytest.approx(sk.recall_score(rows["truth"], called))
    assert own.loc["specificity", "value"] == pytest.approx(sk.recall_score(1 - rows["truth"], ~called))
    assert own.loc["auc", "value"] == pytest.approx(sk.roc_auc_score(rows["truth"], rows["score"]))
    rival = table.loc[(tables.GRADES, "referable", "grades", "sensitivity"), "value"]
    assert own.loc["sensitivity", "difference"] == pytest.approx(own.loc["sensitivity", "value"] - rival)
    noise = table.loc[("noise", "any_dr", "max", "auc")]
    assert noise["lo"] < 0.5 < noise["hi"]
    assert table.loc[("good", "any_dr", "noisy_or", "auc"), "lo"] > 0.8
    assert own.loc["sensitivity", "printed"] == 0.939


def test_truth_of_an_eye_without_a_grade_can_only_be_yes():
    labels = pd.DataFrame(
        {"MA": [1, 0, 1, pd.NA, 0], "HE": [0, 0, 1, 1, 0], "DRUSEN": [0, 1, 0, 0, 0]}
    ).astype("Int64")
    grade = pd.Series(pd.array([pd.NA, pd.NA, pd.NA, 0, 3], dtype="Int64"))
    codes = ("MA", "HE", "DRUSEN")
    np.testing.assert_array_equal(tables.truth(grade, labels, codes, "any_dr"), [1, np.nan, 1, 0, 1])
    np.testing.assert_array_equal(tables.truth(grade, labels, codes, "referable"), [np.nan, np.nan, 1, 0, 1])
    assert tables.signs(codes, "any_dr") == ["MA", "HE"]
    assert tables.signs(codes, "referable") == ["HE"]


def test_a_permutation_of_labels_costs_the_scores(study):
    """Scored against another lesion's label, or another eye's, the good network is no longer good."""
    said, grades, labels = study
    test, (_, fitted) = said[said["split"] == "test"], fitted_of(said, grades, labels)

    def auc(truth):
        table = tables.by_label(test, fitted, truth, CODES3, 50, 0)
        chosen = (table["network"] == "good") & (table["group"] == "all") & (table["metric"] == "auc")
        return table[chosen].set_index("label")["value"]

    right = auc(labels)
    assert (right[list(CODES3)] > 0.9).all()
    shuffled = labels.assign(image_id=np.random.default_rng(0).permutation(labels["image_id"]))
    assert (auc(shuffled)[list(CODES3)] < 0.65).all()
    swapped = labels.rename(columns={"MA": "EX", "EX": "MA"})
    assert (auc(swapped)[["MA", "EX"]] < right[["MA", "EX"]] - 0.1).all()


def test_tables_for_readers_and_metrics(study):
    import matplotlib

    matplotlib.use("agg")

    said, grades, labels = study
    scores, fitted = fitted_of(said, grades, labels)
    test = said[said["split"] == "test"]
    scored = tables.by_label(test, fitted, labels, CODES3, 50, 0)
    decided = tables.decisions(scores[scores["split"] == "test"], fitted, 50, 0)
    names = {"good": "good net", "noise": "noisy net"}
    shown = tables.display_labels(scored, names)
    assert list(shown["label"].unique()) == [*CODES3, "macro", "micro"]
    assert shown["AUC within"].iloc[0] == "undefined", "every eye of grade 2 or more has microaneurysms"
    decisions = tables.display_decisions(decided, names)
    assert len(decisions) == 2 * (2 * 2 + 1)
    empty = pd.DataFrame(
        columns=["layer", "region", "against", "metric", "difference", "difference_lo", "difference_hi"]
    )
    found = tables.as_metrics(scored, decided, empty, "good", "max")
    for name in ("sensitivity_any_dr", "specificity_referable", "auc_macro", "f1_EX", "hamming_loss"):
        assert found[f"{name}_lo"] <= found[name] <= found[f"{name}_hi"], name
    called = tables.predicted(test[test["network"] == "good"], fitted, CODES3)
    assert called.shape == (120, 3)
    history = pd.DataFrame({"network": "good", "epoch": [1, 2], "loss": 1.0, "val_loss": 0.9, "val_auc": 0.7})
    truth = labels.set_index("image_id").loc[called.index, list(CODES3)].to_numpy(float)
    drawn = [
        figures.learning_curves(history, names),
        figures.label_scores(scored, names),
        figures.co_occurrence(truth, called.to_numpy(), CODES3),
        figures.decisions(decided, names),
    ]
    assert all(len(figure.axes) >= 2 for figure in drawn)


def located_rows() -> pd.DataFrame:
    """HE better, EX worse, MA undecided, NV of too few patients."""
    nan = float("nan")
    ends = {
        "HE": (0.02, 0.01, 0.03),
        "EX": (-0.02, -0.03, -0.01),
        "MA": (0.01, -0.01, 0.02),
        "NV": (0.3, nan, nan),
    }
    return pd.DataFrame(
        [
            {"layer": code, "region": code, "against": "five grades, disease", "metric": "aupr", "eyes": 9}
            | dict(zip(("difference", "difference_lo", "difference_hi"), numbers))
            for code, numbers in ends.items()
        ]
    )


def test_findings_follow_from_the_intervals():
    said = tables.findings(located_rows())
    assert [line.rpartition(": ")[2] for line in said] == ["better", "worse", "undecided", "too few patients"]
    assert "+2.0 (1.0 to 3.0) points, 9 eyes" in said[0]
    shown = tables.display_located(located_rows()).set_index("map")
    assert shown.loc["NV", "average precision"] == "+30.0"
    assert tables.display_located(located_rows().iloc[:0]).empty


def test_the_ledger_finds_its_numbers_under_their_names(study):
    """Every quantity that a claim names is in the table, and is the number that it says."""
    from drstudy.study import claims

    said, grades, labels = study
    scores, fitted = fitted_of(said, grades, labels)
    decided = tables.decisions(scores[scores["split"] == "test"], fitted, 50, 0)
    beyond = located_rows().assign(against="centre 7x7")
    beyond = pd.concat(
        [beyond, beyond.iloc[:1].assign(layer="SE", region="SE"), beyond.assign(against="random 7x7")]
    )
    table = tables.claims(decided, beyond, "good", "max").set_index("quantity")
    asked = {
        item.where["quantity"]
        for claim in claims.read()
        for item in claim.evidence
        if item.table == "claims" and item.notebook == Lesions.notebook
    }
    assert asked <= set(table.index)
    auc = decided.set_index(["network", "decision", "rule", "metric"]).loc[
        ("good", "any_dr", "max", "auc"), "value"
    ]
    assert table.loc["auc_any_dr_beyond_chance", "value"] == auc - 0.5
    assert table.loc["aupr_EX_beyond_centre", "hi"] == -0.01
