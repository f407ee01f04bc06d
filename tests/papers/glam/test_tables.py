"""Tables of notebook 14, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from drstudy.papers.glam import compared, figures, maps, tables
from drstudy.papers.glam.params import TOGETHER
from drstudy.show import style

SIX = {f"e{k}": f"p{k}" for k in range(6)}
DRAW = {"resamples": 50, "seed": 0}


def scored(values: dict[str, list[float]], region: str = "MA") -> pd.DataFrame:
    """Average precision of maps on eyes e0, e1, ..."""
    rows = [
        {"image_id": f"e{k}", "map": name, "region": region, "aupr": value, "dice_cut": value}
        for name, several in values.items()
        for k, value in enumerate(several)
    ]
    return pd.DataFrame(rows)


def test_a_ratio_is_one_of_means_and_not_a_mean_of_ratios():
    eyes = scored({"ours": [0.2, 0.4, 0.6, 0.2, 0.4, 0.6], "theirs": [0.1, 0.1, 0.1, 0.2, 0.2, 0.1]})
    (row,) = compared.ratios(eyes, "ours", "theirs", SIX, **DRAW).to_dict("records")
    assert row["value"] == pytest.approx(2.4 / 0.8)
    assert row["of_map"] == pytest.approx(0.4)
    assert row["of_other"] == pytest.approx(0.8 / 6)
    assert row["lo"] < row["value"] < row["hi"]
    assert (row["eyes"], row["patients"]) == (6, 6)


def test_a_ratio_of_two_maps_in_proportion_has_no_spread():
    """Both means come from the same resample, so the interval is the ratio itself."""
    eyes = scored({"ours": [0.2, 0.4, 0.6, 0.1, 0.9, 0.3], "theirs": [0.1, 0.2, 0.3, 0.05, 0.45, 0.15]})
    (row,) = compared.ratios(eyes, "ours", "theirs", SIX, **DRAW).to_dict("records")
    assert [row["lo"], row["value"], row["hi"]] == pytest.approx([2, 2, 2])


def test_a_ratio_counts_only_eyes_that_both_maps_have():
    eyes = scored({"ours": [0.2, 0.4, 0.9], "theirs": [0.1, 0.2, np.nan]})
    (row,) = compared.ratios(eyes, "ours", "theirs", SIX, **DRAW).to_dict("records")
    assert row["eyes"] == 2
    assert row["value"] == pytest.approx(2)
    assert np.isnan(row["lo"]), "two patients are too few for an interval"


def test_no_ratio_to_nothing():
    eyes = scored({"ours": [0.2] * 6, "theirs": [0.0] * 6})
    (row,) = compared.ratios(eyes, "ours", "theirs", SIX, **DRAW).to_dict("records")
    assert np.isnan([row["value"], row["lo"], row["hi"]]).all()
    missing = compared.ratios(eyes, "ours", "nobody", SIX, **DRAW)
    assert missing.empty
    assert list(missing.columns) == compared.RATIO_COLUMNS


@pytest.fixture
def validation():
    return pd.DataFrame(
        {
            "map": ["fine", "whole", "fine", "whole"],
            "region": ["MA", "MA", "SE", "SE"],
            "eyes": [5, 5, 0, 0],
            "ap": [0.1, 0.3, np.nan, np.nan],
            "auc": [0.9, 0.8, 0.6, 0.7],
        }
    )


def test_each_rule_takes_its_own_map(validation):
    eyes = scored({"fine": [0.1] * 6, "whole": [0.4] * 6, "ours": [0.3] * 6})
    found = compared.choices(validation, ["fine", "whole"], "whole", eyes, SIX, **DRAW).set_index("rule")
    assert found["map"].to_dict() == {"fixed": "whole", "labels": "fine", "masks": "whole"}
    assert found.loc["labels", "ap"] == pytest.approx(0.1)
    assert found.loc["labels", "difference"] == pytest.approx(-0.3)
    assert found.loc["labels", "difference_hi"] == pytest.approx(-0.3)
    assert found.loc["fixed", "difference"] == 0


def test_where_validation_cannot_decide_the_fixed_map_stands_in(validation):
    eyes = scored({"fine": [0.1] * 6, "whole": [0.4] * 6}, "SE")
    found = compared.choices(validation, ["fine", "whole"], "fine", eyes, SIX, **DRAW).set_index("rule")
    assert found["map"].to_dict() == {"fixed": "fine", "labels": "whole", "masks": "fine"}
    unseen = scored({"fine": [0.1] * 6}, "NV")
    found = compared.choices(validation, ["fine"], "fine", unseen, SIX, **DRAW)
    assert set(found["map"]) == {"fine"}


def test_the_hardest_blind_map_is_named():
    eyes = scored(
        {
            "ours": [0.5, 0.6, 0.5, 0.6, 0.5, 0.6],
            "random": [0.1] * 6,
            "centre": [0.4, 0.5, 0.4, 0.5, 0.4, 0.5],
        }
    )
    (row,) = compared.beyond_blind(eyes, "ours", SIX, **DRAW).to_dict("records")
    assert row["blind"] == "centre"
    assert row["difference"] == pytest.approx(0.1)
    assert row["beats_all"]
    worse = eyes.assign(aupr=eyes["aupr"].where(eyes["map"] != "ours", 0.3))
    (row,) = compared.beyond_blind(worse, "ours", SIX, **DRAW).to_dict("records")
    assert not row["beats_all"]


def test_labels_are_scored_by_map_and_unknown_ones_left_out():
    said = pd.DataFrame(
        {
            "map": ["a"] * 4 + ["b"] * 4,
            "image_id": ["e0", "e1", "e2", "e3"] * 2,
            "patient_id": ["p0", "p1", "p2", "p3"] * 2,
            "p_MA": [0.9, 0.1, 0.8, 0.0, 0.1, 0.9, 0.2, 0.5],
        }
    )
    labels = pd.DataFrame(
        {
            "image_id": ["e0", "e1", "e2", "e3"],
            "MA": pd.array([1, 0, 1, None], dtype="Int64"),
        }
    )
    found = tables.label_scores(said, labels, ["MA"], **DRAW)
    auc = found[(found["label"] == "MA") & (found["metric"] == "auc")].set_index("map")
    assert auc["value"].to_dict() == {"a": 1.0, "b": 0.0}
    assert auc["lo"].isna().all(), "two patients with and one without the label"
    assert (auc["present"].iloc[0], auc["absent"].iloc[0]) == (2, 1)
    shown = tables.display_labels(found)
    assert shown["MA"].tolist() == ["1.00", "0.00"]


@pytest.fixture
def located():
    rows = [
        {"map": "ours", "region": "MA", "metric": "aupr", "units": 7, "value": 0.25},
        {"map": "ours", "region": TOGETHER, "metric": "aupr", "units": 9, "value": 0.5},
        {"map": "other", "region": TOGETHER, "metric": "aupr", "units": 9, "value": 0.2},
        {"map": "ours", "region": TOGETHER, "metric": "recall_small", "units": 30, "value": 0.75},
    ]
    found = pd.DataFrame(rows)
    return found.assign(value_lo=found["value"] - 0.1, value_hi=found["value"] + 0.1)


def test_display_has_a_row_per_map_and_says_how_many_eyes(located):
    shown = tables.display(located, "aupr")
    assert list(shown.columns) == ["average precision", "MA (n=7)", "all lesions (n=9)"]
    assert shown.iloc[:, 0].tolist() == ["ours", "other"]
    assert shown["all lesions (n=9)"].tolist() == ["0.50 [0.40, 0.60]", "0.20 [0.10, 0.30]"]
    assert shown["MA (n=7)"].tolist() == ["0.25 [0.15, 0.35]", "–"]


def test_headline_keeps_the_order_of_the_maps(located):
    shown = tables.headline(located, ["other", "ours"])
    assert shown["map"].tolist() == ["other", "ours"]
    assert list(shown.columns) == ["score", "map", "all lesions", "MA"]


def test_metrics_are_flat_and_all_lesions_have_no_ending(located):
    divided = pd.DataFrame(
        {
            "quantity": "ratio",
            "region": [TOGETHER, "MA"],
            "value": [4.0, 2.0],
            "lo": [3.0, 1.0],
            "hi": [5.0, 3.0],
        }
    )
    labels = pd.DataFrame(
        [{"map": "ours", "label": "MA", "metric": "auc", "value": 0.8, "lo": 0.7, "hi": 0.9}]
    )
    found = tables.as_metrics(located, labels, divided, "ours")
    assert found["ap"] == 0.5
    assert (found["ap_MA"], found["ap_MA_lo"]) == (0.25, 0.15)
    assert found["recall_small"] == 0.75
    assert (found["ratio"], found["ratio_MA_hi"], found["auc_MA_lo"]) == (4.0, 3.0, 0.7)


def test_tables_of_nothing_have_no_rows():
    """Photographs without any annotated lesion: every table is there, and empty."""
    eyes = pd.DataFrame(columns=["image_id", "map", "region", "aupr", "dice_cut"])
    located = tables.localisation(
        pd.DataFrame(columns=["image_id", "map", "region", *tables.aggregate.METRICS]),
        pd.DataFrame(),
        {},
        **DRAW,
        against=maps.DISEASE,
    )
    assert located.empty
    assert tables.display(located, "aupr").empty
    assert tables.headline(located, ["ours"]).empty
    assert tables.together(located, ["recall"]).empty
    assert tables.released(located, ["released sep"], 64).empty
    divided = compared.ratios(eyes, "ours", "theirs", {}, **DRAW)
    assert compared.display_ratios(divided).empty
    assert compared.display_blind(compared.beyond_blind(eyes, "ours", {}, **DRAW)).empty
    assert figures.choose(eyes, "ours", ["MA"]).empty
    figures.localisation(located)
    figures.side_by_side(figures.choose(eyes, "ours", ["MA"]), {}, None, {})


def test_pictures_are_chosen_by_dice():
    eyes = scored({"ours": [0.3, 0.9, 0.1, 0.5, 0.4], "other": [0.0] * 5})
    found = figures.choose(eyes, "ours", ["MA", "SE"])
    assert found[["case", "image_id"]].to_dict("records") == [
        {"case": "best", "image_id": "e1"},
        {"case": "median", "image_id": "e4"},
        {"case": "worst", "image_id": "e2"},
    ]
    two = figures.choose(scored({"ours": [0.3, 0.9]}), "ours", ["MA"])
    assert two["image_id"].tolist() == ["e1", "e0"], "no eye is shown twice"


def test_the_window_lies_around_the_largest_lesion_and_inside_the_picture():
    mask = np.zeros((100, 100), bool)
    assert figures.window(mask) == (0, 100, 0, 100)
    mask[90:96, 40:46] = True
    mask[10, 10] = True
    assert figures.window(mask) == (18, 68, 50, 100)


def test_every_map_of_the_fundus_has_its_colour():
    own = [maps.GLOBAL, maps.LOCAL, maps.REFINED, maps.FUNDUS, maps.MEAN, *maps.SCALES.values()]
    rivals = [maps.COARSE, maps.BAG, maps.SUPERVISED, maps.GRADE, maps.DISEASE, maps.FINER, maps.RAM]
    colours = [style.lesion_map_colour(name) for name in (*own, *rivals)]
    assert style.NEUTRAL not in colours
    assert len(set(colours)) == len(colours)
