"""Splits: whole patients, the right shares of each grade, and what a split by image would leak."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from drstudy.data import manifest as manifests
from drstudy.data import splits

PARTS = (0.6, 0.15, 0.25)
pytestmark = pytest.mark.filterwarnings("ignore::drstudy.data.splits.SplitWarning")


def people(n: int, seed: int = 0, shares=(0.5, 0.15, 0.2, 0.1, 0.05)) -> pd.DataFrame:
    """n patients with both eyes, of mostly equal grades."""
    rng = np.random.default_rng(seed)
    first = rng.choice(5, n, p=shares)
    second = np.clip(first + rng.choice([-1, 0, 1], n, p=[0.1, 0.8, 0.1]), 0, 4)
    rows = [
        {
            "image_id": f"{who}_{eye}",
            "path": "x",
            "patient_id": str(who),
            "eye": eye,
            "grade": grades[who],
            "source": "t",
        }
        for who in range(n)
        for eye, grades in (("left", first), ("right", second))
    ]
    return manifests.build(rows)


def pairs(*names: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(names, columns=["image_id_a", "image_id_b"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n", "fractions"), [(40, PARTS), (110, (0.7, 0.1, 0.2)), (90, (0.8, 0.0, 0.2))])
def test_every_seed_keeps_patients_whole_and_shares_near(n, fractions, seed):
    manifest = people(n, seed)
    split = splits.make(manifest, fractions, seed)
    assert list(split["image_id"]) == list(manifest["image_id"])
    assert split.groupby("patient_id")["split"].nunique().max() == 1
    splits.check(split)
    assert splits.leaked(split) == 0
    counts = splits.balance(split)
    wanted = np.outer(fractions, counts.sum())
    # a patient is two images: each cell may be a patient off, and rare grades two
    assert np.abs(counts.to_numpy() - wanted).max() <= 4
    assert np.abs(counts.sum(axis=1).to_numpy() - 2 * n * np.array(fractions)).max() <= 0.03 * 2 * n + 2


def test_same_seed_same_split_and_another_seed_another():
    manifest = people(60)
    first = splits.make(manifest, PARTS, 3)
    pd.testing.assert_frame_equal(first, splits.make(manifest.copy(), PARTS, 3))
    assert (first["split"] != splits.make(manifest, PARTS, 4)["split"]).any()


@pytest.mark.parametrize("seed", range(5))
def test_patients_who_share_a_duplicate_stay_together(seed):
    manifest = people(60, seed)
    chain = pairs(("0_left", "1_left"), ("1_right", "2_left"), ("7_left", "50_right"), ("9_left", "9_right"))
    split = splits.make(manifest, PARTS, seed, duplicates=chain)
    side = split.groupby("patient_id")["split"].first()
    assert side["0"] == side["1"] == side["2"]
    assert side["7"] == side["50"]
    splits.check(split, chain)


def test_duplicates_of_images_that_are_not_there_are_no_matter():
    manifest = people(20)
    assert splits.make(manifest, PARTS, 0, duplicates=pairs(("0_left", "gone"))).equals(
        splits.make(manifest, PARTS, 0)
    )


def test_ungraded_images_are_in_no_part_and_whoever_shares_with_them_is_test():
    manifest = people(30)
    manifest.loc[manifest["image_id"] == "4_left", "grade"] = pd.NA
    manifest.loc[manifest["image_id"] == "5_left", "grade"] = pd.NA
    split = splits.make(manifest, PARTS, 0, duplicates=pairs(("5_left", "6_right")))
    side = split.set_index("image_id")["split"]
    assert set(side[["4_right", "5_right", "6_left", "6_right"]]) == {"test"}
    assert set(side[["4_left", "5_left"]]) == {splits.UNGRADED}
    splits.check(split, pairs(("5_left", "6_right")))


@pytest.mark.parametrize(
    "fractions", [PARTS, (0.8, 0.0, 0.2), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.98, 0.01, 0.01)]
)
def test_a_few_patients_are_split_or_refused_in_plain_words(fractions):
    refused = []
    for n in range(1, 9):
        for eyes in (people(n, n), people(n, n).iloc[::2].reset_index(drop=True)):
            try:
                split = splits.make(eyes, fractions, 0)
            except splits.SplitError as error:
                refused.append(str(error))
                continue
            splits.check(split)
            there = {part: (split["split"] == part).any() for part in ("train", "validation", "test")}
            assert list(there.values()) == [share > 0 for share in fractions]
    assert all("more images are needed" in said for said in refused)


def test_a_split_is_read_back_as_it_was_and_a_damaged_one_is_refused(tmp_path):
    manifest = people(10)
    manifest["patient_id"] = manifest["patient_id"].replace({"3": "NA", "4": "007", "5": "nan"})
    manifest.loc[0, "grade"] = pd.NA
    split = splits.make(manifest, PARTS, 0)
    file = tmp_path / "split.csv"
    split.to_csv(file, index=False)
    read = splits.read(file)
    assert read.to_csv() == split.to_csv()
    assert {"NA", "007", "nan"} <= set(read["patient_id"])
    for bad, said in (
        (split.assign(grade=9), "grade 9"),
        (pd.concat([split, split.tail(1)]), "more than once"),
        (split.assign(split="holdout"), "the part 'holdout'"),
        (split.drop(columns="patient_id"), "no column patient_id"),
    ):
        bad.to_csv(file, index=False)
        with pytest.raises(splits.SplitError, match=said):
            splits.read(file)
    file.write_text("")
    with pytest.raises(ValueError, match=r"split\.csv cannot be read"):
        splits.read(file)


def test_a_set_without_grades_is_all_test():
    manifest = people(5)
    manifest["grade"] = pd.array([pd.NA] * 10, dtype="Int64")
    split = splits.make(manifest, PARTS, 0)
    assert set(split["split"]) == {"test"}
    assert splits.balance(split).to_numpy().sum() == 0
    assert "nothing to train on" in splits.describe(split, PARTS, "patient")


def test_a_grade_that_a_part_lacks_is_warned_of():
    manifest = people(30, shares=(1, 0, 0, 0, 0))
    manifest["grade"] = 0
    manifest.loc[manifest["patient_id"] == "3", "grade"] = 4
    with pytest.warns(splits.SplitWarning, match=r"no image of grade 4 \(the data have 2\)"):
        split = splits.make(manifest, PARTS, 0)
    assert len(splits.gaps(split, PARTS)) == 2


def test_too_few_patients_and_wrong_arguments_are_errors():
    with pytest.raises(splits.SplitError, match=r"2 patient\(s\).* cannot be split into 3 parts"):
        splits.make(people(2), PARTS, 0)
    with pytest.raises(splits.SplitError, match="SPLIT_BY is 'eye'"):
        splits.make(people(9), PARTS, 0, by="eye")
    with pytest.raises(splits.SplitError, match="sum to 1"):
        splits.make(people(9), (0.5, 0.1, 0.1), 0)


@pytest.mark.parametrize("n", [3, 4, 6, 9])
def test_a_handful_of_patients_of_all_grades_can_be_split(n):
    manifest = people(n).assign(grade=pd.array([place % 5 for place in range(2 * n)], dtype="Int64"))
    split = splits.make(manifest, PARTS, 0)
    splits.check(split)
    assert set(split["split"]) == {"train", "validation", "test"}


def test_three_patients_fill_three_parts():
    split = splits.make(people(3), PARTS, 0)
    assert split.groupby("patient_id")["split"].first().nunique() == 3


def test_a_torn_patient_and_a_torn_duplicate_are_refused():
    split = splits.make(people(30), PARTS, 0)
    torn = split.copy()
    torn.loc[torn["image_id"] == "3_left", "split"] = "test" if torn.loc[6, "split"] != "test" else "train"
    with pytest.raises(splits.LeakError, match=r"1 patient\(s\) .* '3'"):
        splits.check(torn)
    side = split.groupby("split")["image_id"].first()
    across = pairs((side["train"], side["test"]))
    with pytest.raises(splits.LeakError, match=r"1 duplicate pair\(s\)"):
        splits.check(split, across)
    assert len(splits.across(split, across)) == 1
    within = pairs(tuple(split.loc[split["split"] == "train", "image_id"].iloc[:2]))
    splits.check(split, within)


def test_a_split_by_image_leaks_and_is_refused():
    manifest = people(100)
    split = splits.make(manifest, (0.8, 0, 0.2), 0, by="image")
    test = split[split["split"] == "test"]
    trained = set(split.loc[split["split"] == "train", "image_id"])
    swap = {"left": "right", "right": "left"}
    fellows = [f"{name.split('_')[0]}_{swap[name.split('_')[1]]}" for name in test["image_id"]]
    assert splits.leaked(split) == np.mean([name in trained for name in fellows]) > 0.5
    with pytest.raises(splits.LeakError):
        splits.check(split)


def test_expected_leak_is_the_mean_over_all_splits():
    rows = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "2"), ("e", "2"), ("f", "3"), ("g", "4"), ("h", "4")]
    manifest = manifests.build(
        [{"image_id": i, "path": "x", "patient_id": who, "grade": 0, "source": "t"} for i, who in rows]
    )
    who = manifest["patient_id"].to_numpy()
    found = []
    for test in itertools.combinations(range(8), 2):
        for train in itertools.combinations(sorted(set(range(8)) - set(test)), 4):
            found.append(np.mean([who[t] in set(who[list(train)]) for t in test]))
    leak = splits.leak(manifest, (0.5, 0.25, 0.25), 0, draws=4000)
    assert leak["expected"] == pytest.approx(np.mean(found), abs=1e-12)
    # standard error of 4000 draws of a share with SD < 0.5 is below 0.008
    assert leak["simulated"] == pytest.approx(leak["expected"], abs=0.025)


def test_each_number_of_fellow_images_is_asked_for_once(monkeypatch):
    """The exact probability takes longer the more images there are: asked for each image, the time grew as their square."""
    asked, exact = [], scipy.stats.hypergeom.pmf

    def counted(k, total, others, drawn):
        asked.append(len(others))
        return exact(k, total, others, drawn)

    manifest = people(300)
    plain = splits.leak(manifest, (0.5, 0.25, 0.25), 0, draws=2)["expected"]
    monkeypatch.setattr(scipy.stats.hypergeom, "pmf", counted)
    leak = splits.leak(manifest, (0.5, 0.25, 0.25), 0, draws=2)
    sizes = manifest["patient_id"].value_counts()
    others = sizes[manifest["patient_id"]].to_numpy() - 1
    n = len(manifest)
    assert leak["expected"] == plain == 1 - exact(0, n - 1, others, round(n * 0.5)).mean()
    assert asked == [sizes.nunique()]


def test_leak_of_pairs_is_the_share_of_train_and_of_single_images_nothing():
    leak = splits.leak(people(500), (0.8, 0, 0.2), 0, draws=20)
    assert leak["expected"] == pytest.approx(800 / 999)
    singles = people(50)
    singles["patient_id"] = singles["image_id"]
    assert splits.leak(singles, (0.8, 0, 0.2), 0, draws=5)["expected"] == 0
    few = splits.leak(people(1), PARTS, 0)
    assert all(np.isnan(list(few.values())))
    assert "too few" in splits.describe_leak(few)
