"""Figures of the comparison: what stands in them is what the tables say."""

from __future__ import annotations

import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from pictures_made import Blocks, eyes

from drstudy.core import paths
from drstudy.papers.gan import arm_tables, arms, comparison_figures, memorisation, pictures, quality, survival


def names(ax):
    return [tick.get_text() for tick in ax.get_yticklabels()]


def test_survival_has_one_row_per_lesion():
    table = pd.DataFrame(
        {
            "code": ["HE", "HE", "MA", "MA"],
            "name": ["haemorrhage"] * 2 + ["microaneurysm"] * 2,
            "size": [64, 128] * 2,
            "value": [0.3, 0.8, 0.0, 0.25],
            "diameter_px": [0.9, 1.8, 0.4, 0.8],
        }
    )
    figure = comparison_figures.survival(table)
    ax = figure.axes[0]
    assert names(ax) == ["microaneurysm", "haemorrhage"]
    assert [text.get_text() for text in ax.texts] == [
        "0%\n0.4 px",
        "25%\n0.8 px",
        "30%\n0.9 px",
        "80%\n1.8 px",
    ]
    with pytest.raises(ValueError, match="these photographs have no masks"):
        comparison_figures.survival(table.iloc[:0])


def test_differences_of_arms_are_drawn_where_they_are():
    rows = [
        {"arm": arm, "to": "none", "metric": metric, "value": 0.01 * place, "lo": -0.1, "hi": 0.2}
        | {"seed_lo": -0.02, "seed_hi": 0.03, "seed_std": 0.01, "seeds": 5}
        for place, arm in enumerate(list(arms.TITLES)[1:])
        for metric in arm_tables.METRICS
    ]
    figure = comparison_figures.difference_of_arms(pd.DataFrame(rows))
    ax = figure.axes[0]
    assert names(ax) == list(arms.TITLES.values())[1:]
    points = ax.collections[0].get_offsets()
    np.testing.assert_allclose(points[:, 0], 0.01 * np.arange(10))
    assert ax.get_title() == "recall, grades 3 and 4"
    plt.close(figure)


def test_distances_show_every_set_and_the_floor():
    train, reference = eyes(24, 0, "train"), eyes(24, 1, "test")
    made = {"GAN": pictures.generated(eyes(24, 2).images, eyes(24, 2).grades)}
    table = quality.table(
        reference, quality.sets(train, made, 0), [Blocks()], quality.Setting(draws=1, subsets=2)
    )
    figure = comparison_figures.distances(table, "blocks")
    assert names(figure.axes[0]) == list(quality.sets(train, made, 0))
    assert len(figure.axes) == len(quality.MEASURES)
    with pytest.raises(KeyError, match="no encoder 'lite0'; there are blocks"):
        comparison_figures.distances(table, "lite0")


def test_agreement_by_grade_has_a_bar_per_set():
    table = pd.DataFrame(
        {
            "set": ["generated"] * 6 + ["real"] * 6,
            "grade": [*"01234", "all"] * 2,
            "value": [0.9, 0.1, 0.3, 0.2, np.nan, 0.5, 0.8, 0.4, 0.6, 0.5, 0.4, 0.7],
        }
    )
    table = table.assign(lo=table["value"] - 0.1, hi=table["value"] + 0.1)
    figure = comparison_figures.agreement(table, {"generated": "generated", "real": "real"})
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]
    np.testing.assert_allclose(heights[1], [0.8, 0.4, 0.6, 0.5, 0.4])
    assert len(figure.axes[0].lines) == 9  # an interval for each bar but the one without value


def test_pairs_and_heat_show_the_pictures():
    train, held_out, some = eyes(20, 0, "train"), eyes(20, 1, "other"), eyes(15, 2)
    made = pictures.generated(some.images, some.grades)
    found = memorisation.check(train, held_out, made, Blocks(), 20, 0)
    figure = comparison_figures.nearest_pairs(found, train, made)
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 12
    first = memorisation.closest(found).iloc[0]
    drawn = shown[0].images[0].get_array()
    np.testing.assert_array_equal(drawn[:, :16], made.images[first["picture"]])
    np.testing.assert_array_equal(drawn[:, -16:], train.images[first["train"]])
    few = made.take(np.arange(5))
    maps = np.random.default_rng(0).random((5, 16, 16), dtype=np.float32)
    figure = comparison_figures.heat(few, maps, np.arange(5))
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), few.images[0])
    assert "predicted: 3" in figure.axes[3].get_title()


def test_photographs_without_masks_have_tables_but_no_figure_of_survival():
    """The cell of the notebook, as it stands, on photographs of which no lesion was measured."""
    (cell,) = [
        "".join(one["source"])
        for one in json.loads((paths.root() / "notebooks/15_gan_oversampling.ipynb").read_text())["cells"]
        if "survival.by_lesion" in "".join(one["source"])
    ]
    kept, shown = {}, []

    class Run:
        def table(self, frame, name):
            kept[name] = frame
            return frame

        def figure(self, figure, name):
            kept[name] = figure
            return figure

    module = SimpleNamespace(**vars(survival))
    p = SimpleNamespace(size=64, surviving=0, resamples=20, seed=0)
    known = {"p": p, "run": Run(), "audit": None, "data": None, "display": shown.append}
    names = {"survival": module, "comparison_figures": comparison_figures}
    module.lesions = lambda *_, **__: pd.DataFrame(columns=survival.COLUMNS)
    exec(cell, known | names)
    assert set(kept) == {"survival_by_lesion", "survival_by_grade"}
    assert kept["survival_by_lesion"].empty
    assert set(kept["survival_by_grade"]["generable"]) == {"not measurable"}
    assert not shown
    assert survival.generable(kept["survival_by_grade"], 64)[4] == "not measurable"
    one = {"image_id": "a", "patient_id": "a", "grade": 2, "code": "HE", "lesion": 0, "size": 64}
    one |= {"diameter_px": 2.0, "cnr": 9.0, "rose": 18.0, "visible": True}
    module.lesions = lambda *_, **__: pd.DataFrame([one])
    exec(cell, known | names)
    assert shown == [kept["survival"]]
    plt.close(kept["survival"])
